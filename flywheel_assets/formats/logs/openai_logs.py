"""Reads chat completions and responses that OpenAI, Azure, Together and their like store or send.

- Stored completions, `{"object": "chat.completion", "messages", "choices"}`, also with the request next to the response
  (`request`/`response`, `input`/`output`, `body`), as gateways and batch files have them.
- Responses, `{"object": "response", "input", "output"}`.
- Messages of Anthropic with their request, `{"type": "message", "role": "assistant", "content"}`.

An answer's id is the completion's own id; of several choices the one at index `n` > 0 has the id `<id>/<n>`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_call, read_prompt, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import predict

NAME = "openai-logs"
_REQUESTS = ("request", "request_body", "input", "body")
_RESPONSES = ("response", "response_body", "output", "completion")
_READ = ("id", "object", "created", "model", "messages", "prompt", "choices", "metadata", "user", "tools", "custom_id",
         "instructions", *_REQUESTS, *_RESPONSES)  # fmt: skip
_OF_OTHERS = ("request_id", "call_type", "observations", "traceId", "traceID", "run_type", "resourceSpans", "mlflow")


def matches(record: Record) -> bool:
    """Return whether it is a completion or a response together with what was asked."""
    values = record.values
    if any(name in values for name in _OF_OTHERS):
        return False
    request, response = _find_sides(values)
    return request is not None and response is not None and _is_response(response)


def convert(record: Record) -> Sequence[Event]:
    """Turn a completion into one prediction for each choice."""
    check_shape(matches(record), "a completion or a response together with what was asked", record)
    for name in _READ:
        record.get(name)
    request, response = _find_sides(record.values)
    if request is None or response is None:
        raise InvalidEventError("no request is in the record; valid: `messages` or `input` next to the answer")
    if response.get("error"):
        raise InvalidEventError(f"the call failed: {str(response['error'])[:200]}")
    found = Record(response)
    answer_id = found.get_id("id") or Record(request).get_id("id") or record.get_id("custom_id")
    if answer_id is None:
        raise InvalidEventError("the answer has no `id`; valid: the completion's own id, such as 'chatcmpl-…'")
    metadata = read_mapping(record.values.get("metadata") or request.get("metadata") or response.get("metadata"))
    fields: dict[str, Any] = {
        "time": found.get_time("created") or found.get_time("created_at") or record.get_time("created_at"),
        "model_version": read_text(response.get("model")) or read_text(request.get("model")),
        "user_id": next(
            filter(
                None,
                (
                    read_text(holder.get(name))
                    for holder in (request, metadata)
                    for name in ("user", "user_id", "safety_identifier", "end_user")
                ),
            ),
            None,
        ),
        "thread_id": read_text(metadata.get("session_id") or metadata.get("thread_id") or metadata.get("conversation")),
        "tools": read_tools(request),
    }
    if response.get("type") == "message":
        prompt = read_prompt({name: request[name] for name in ("system", "messages") if request.get(name)})
        answer = read_answer({"role": "assistant", "content": response["content"]})
        return [predict(NAME, answer_id, answer_id, prompt, answer, **fields)]
    if not isinstance(response.get("choices"), list):
        prompt, answer = read_call(request, {"output": response.get("output")})
        return [predict(NAME, answer_id, answer_id, prompt, answer, **fields)]
    prompt = read_prompt({name: request[name] for name in ("messages", "prompt", "system") if request.get(name)})
    choices = list_objects(response["choices"])
    events: list[Event] = []
    for place, choice in enumerate(choices):
        index = choice.get("index", place)
        name = answer_id if not index else f"{answer_id}/{index}"
        answer = read_answer(choice.get("message") if choice.get("message") is not None else choice.get("text"))
        if answer is not None or len(choices) == 1:
            events.append(predict(NAME, name, name, prompt, answer, **fields))
    return events


def _find_sides(values: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return request and response; one object may be both."""
    response = values if _is_response(values) else None
    for name in _RESPONSES:
        inner = _open_body(parse_json(values.get(name)))
        if response is None and _is_response(inner):
            response = inner
    request = values if isinstance(values.get("messages"), list) or _asks(values, response) else None
    for name in _REQUESTS:
        inner = _open_body(parse_json(values.get(name)))
        if request is None and isinstance(inner, Mapping) and ("messages" in inner or "input" in inner):
            request = inner
        elif request is None and name == "input" and isinstance(inner, list) and response is not values:
            request = {"messages": inner}
    return request, response


def _open_body(value: Any) -> Any:
    body = read_mapping(value).get("body")
    return body if isinstance(body, Mapping) else value


def _asks(values: Mapping[str, Any], response: Mapping[str, Any] | None) -> bool:
    if response is None:
        return False
    if values.get("object") == "response":
        return bool(values.get("input"))
    return isinstance(values.get("prompt"), str | list) and bool(values["prompt"])


def _is_response(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if value.get("object") == "response":
        return "output" in value
    if value.get("type") == "message":
        return value.get("role") == "assistant" and isinstance(value.get("content"), list)
    return isinstance(value.get("choices"), list) and all(isinstance(each, Mapping) for each in value["choices"])


FORMAT = Format(
    name=NAME, title="OpenAI, Azure, Together, Anthropic: answers with what was asked", matches=matches,
    convert=convert, has_global_ids=True,
)  # fmt: skip
