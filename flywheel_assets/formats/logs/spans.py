"""Reads spans of models' calls, in every spelling of their content that is in use.

- OpenTelemetry's GenAI conventions: `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`,
  `gen_ai.tool.definitions`, on the span or on its event `gen_ai.client.inference.operation.details`;
- the same until 1.36: events `gen_ai.user.message`, `gen_ai.choice`, … or `gen_ai.content.prompt` and `.completion`;
- OpenLLMetry (Traceloop): `gen_ai.prompt.0.role`, `gen_ai.completion.0.content`, `llm.request.functions.0.name`;
- OpenInference (Phoenix, Arize): `llm.input_messages.0.message.role`, `llm.output_messages.…`, `input.value`;
- others: see `_PLAIN`.

**Ids.** An answer has the id that its provider gave it (`gen_ai.response.id`), if that is long enough to be unique:
Ollama's are `chatcmpl-` and up to three digits. Without one, the answer of a trace has the trace's id: its root span
where that is a call of a model; otherwise, if the root came in the same record, the last of those calls that lie in no
other call. Every other call has the id `<trace id>/<span id>`. So feedback may name the answer, the trace, or one step
of it. A live endpoint, for which it is chance what comes in one request, reads each span alone, and links of later
spans name calls by trace and span: no call has the trace's id there.

**Judgements.** The conventions do not say who evaluated. A result counts as a person's if an attribute says so
(`annotator_kind`, `gen_ai.evaluation.source`, … `HUMAN`), or if its name does (`thumb`, `user_feedback`, …) and nothing
names a model; all others are automatic and are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from flywheel_assets.conversations import Message, Prompt, Role, Tools
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.logs.calls import (
    parse_json,
    read_answer,
    read_call,
    read_prompt,
    read_tools,
    write_json,
)
from flywheel_assets.formats.logs.shapes import list_objects, read_mapping, read_text
from flywheel_assets.formats.messages import read_message, read_messages
from flywheel_assets.formats.record import parse_time
from flywheel_assets.formats.statements import CORRECTIONS, is_of_people, predict, score, state
from flywheel_assets.records import Signal
from flywheel_assets.wire import LONGEST_IDENTIFIER

_SHORTEST_UNIQUE_ID = 16
_WORK = ("execute_tool", "embeddings", "retrieval", "create_agent", "evaluate")

_PLAIN = (
    ("input.value", "output.value"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("langfuse.trace.input", "langfuse.trace.output"),
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("ai.prompt.messages", "ai.response.text"),
    ("ai.prompt", "ai.response.text"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response"),
    ("lk.input_text", "lk.response.text"),
    ("gen_ai.prompt", "gen_ai.completion"),
)
_USERS = ("user.id", "enduser.id", "langfuse.user.id", "user_id", "traceloop.association.properties.user_id",
          "gen_ai.user", "llm.user", "enduser.pseudo.id")  # fmt: skip
_THREADS = ("gen_ai.conversation.id", "session.id", "langfuse.session.id", "conversation.id", "thread.id",
            "traceloop.association.properties.session_id")  # fmt: skip
_MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.response.model_name", "llm.model_name",
           "ai.model.id", "langfuse.observation.model.name", "llm.request.model_name")  # fmt: skip
_JUDGES = ("annotator_kind", "gen_ai.evaluation.annotator_kind", "gen_ai.evaluation.source", "evaluation.source",
           "gen_ai.evaluation.evaluator.type", "gen_ai.evaluator.type", "gen_ai.evaluation.evaluator.kind",
           "gen_ai.evaluation.source.type", "gen_ai.evaluation.method")  # fmt: skip
_JUDGING_MODELS = ("gen_ai.evaluation.evaluator.model", "gen_ai.evaluator.model", "gen_ai.request.model",
                   "gen_ai.evaluation.model", "gen_ai.response.model")  # fmt: skip
_OLD_MESSAGES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


@dataclass(frozen=True)
class SpanEvent:
    """Holds one event of a span."""

    name: str
    time: datetime | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """Holds one span, of any exporter; ids are lower-case hexadecimal where OpenTelemetry made them."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start: datetime | None
    end: datetime | None
    attributes: Mapping[str, Any]
    events: Sequence[SpanEvent] = ()
    links: Sequence[tuple[str, str]] = ()
    """(trace id, span id) of the spans that it is about."""
    error: str | None = None
    resource: Mapping[str, Any] = field(default_factory=dict)


def read_spans(request: Mapping[str, Any]) -> Iterator[Span]:
    """Yield the spans of an export request in OTLP's JSON.

    Ids are hexadecimal there; who decodes protobuf turns its bytes into hexadecimal first. Attributes may also be given
    as one flat object.

    Raises:
        InvalidEventError: a span has no ids, or a time is none.
    """
    for resource_spans in list_objects(request.get("resourceSpans", request.get("resource_spans"))):
        resource = read_attributes(read_mapping(resource_spans.get("resource")).get("attributes"))
        scopes = next(
            (resource_spans[name] for name in ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
             if name in resource_spans), None,
        )  # fmt: skip
        for scope in list_objects(scopes):
            for span in list_objects(scope.get("spans")):
                yield _read_span(span, resource)


def read_attributes(value: Any) -> dict[str, Any]:
    """Return attributes as one flat object, from OTLP's list of keys and values or from nested objects."""
    if isinstance(value, list):
        return {str(each.get("key")): _read_value(each.get("value")) for each in list_objects(value)}
    return dict(_flatten(value, "", 0)) if isinstance(value, Mapping) else {}


def convert_spans(source: str, spans: Iterable[Span]) -> list[Event]:
    """Turn the spans of one record or request into events.

    A call that cannot be used is an error only where nothing else in the record can be.

    Raises:
        InvalidEventError: there are calls of models, and none of them can be used.
    """
    known = list(spans)
    answers = find_answers(known)

    names = {(trace_id, span_id): trace_id for trace_id, span_id in answers} | _find_response_ids(known)

    def identify(trace_id: str, span_id: str) -> str:
        return names.get((trace_id, span_id), f"{trace_id}/{span_id}")

    events: list[Event] = []
    problems: list[str] = []
    for span in known:
        try:
            events.extend(convert_span(source, span, identify))
        except InvalidEventError as error:
            problems.append(str(error))
    if problems and not events:
        raise InvalidEventError(problems[0])
    return events


def convert_span(source: str, span: Span, identify: Callable[[str, str], str] | None = None) -> list[Event]:
    """Turn one span into the event of its call, and what people said of it.

    Args:
        source: name of the format.
        span: any span; those that are no call of a model give only feedback.
        identify: returns the prediction id of the call with a trace id and a span id. Left out, the span is read
            alone: it has its response's id, every other one `<trace id>/<span id>`.

    Raises:
        InvalidEventError: it is a call that failed or whose content was not logged.
    """
    if identify is None:
        identify = _identify_alone(span)
    events: list[Event] = []
    problem: InvalidEventError | None = None
    if is_call(span):
        try:
            events.append(_predict_span(source, span, identify))
        except InvalidEventError as error:
            problem = error
    events.extend(_judge_span(source, span, identify))
    if problem is not None and not events:
        raise problem
    return events


def _identify_alone(span: Span) -> Callable[[str, str], str]:
    names = _find_response_ids([span])
    return lambda trace_id, span_id: names.get((trace_id, span_id), f"{trace_id}/{span_id}")


def _find_response_ids(spans: Sequence[Span]) -> dict[tuple[str, str], str]:
    """Find the providers' ids of the answers of calls, by (trace id, span id)."""
    found = {(span.trace_id, span.span_id): _read_response_id(span.attributes) for span in spans if is_call(span)}
    return {key: response_id for key, response_id in found.items() if response_id is not None}


def _read_response_id(attributes: Mapping[str, Any]) -> str | None:
    """Return the id that a provider gave an answer; None where there is none, or one that is not unique."""
    found = read_text(attributes.get("gen_ai.response.id"))
    return found if found is not None and _SHORTEST_UNIQUE_ID <= len(found) <= LONGEST_IDENTIFIER else None


def is_call(span: Span) -> bool:
    """Return whether a span is a call of a model, or of an agent whose answer it holds."""
    attributes = span.attributes
    operation = attributes.get("gen_ai.operation.name")
    if isinstance(operation, str):
        return operation not in _WORK and (operation != "invoke_agent" or _has_content(span))
    kind = attributes.get("openinference.span.kind")
    if isinstance(kind, str):
        return kind.upper() == "LLM"
    if attributes.get("traceloop.span.kind") in ("tool", "task", "workflow"):
        return False
    if attributes.get("langfuse.observation.type") == "generation":
        return True
    if parse_json(attributes.get("mlflow.spanType")) in ("CHAT_MODEL", "LLM"):
        return True
    return any(
        name.startswith(("gen_ai.prompt", "gen_ai.completion", "gen_ai.request.model", "llm.input_messages"))
        or name in ("gen_ai.input.messages", "gen_ai.output.messages", "ai.prompt.messages", "llm.request.type")
        for name in attributes
    ) or any(event.name in (*_OLD_MESSAGES, "gen_ai.content.prompt") for event in span.events)


def read_span_call(span: Span) -> tuple[Prompt | None, str | Message | None, Tools | None]:
    """Return prompt, answer and tools of a span.

    Raises:
        InvalidEventError: one of its messages is none.
    """
    attributes = dict(span.attributes)
    for event in span.events:
        if event.name in ("gen_ai.client.inference.operation.details", "gen_ai.content.prompt",
                          "gen_ai.content.completion"):  # fmt: skip
            attributes |= event.attributes
    tools = read_tools(attributes.get("gen_ai.tool.definitions"))
    if (found := _read_conventions(attributes)) is not None:
        return *found, tools
    if (found := _read_old_events(span)) is not None:
        return *found, tools
    tree = _unflatten(attributes)
    if (found := _read_numbered(tree)) is not None:
        functions = read_mapping(read_mapping(tree.get("llm")).get("request")).get("functions")
        return *found, tools or read_tools(_list_numbered(functions))
    if (found := _read_openinference(tree)) is not None:
        return *found, tools or _read_openinference_tools(tree)
    for asked, answered in _PLAIN:
        if asked in attributes or answered in attributes:
            prompt, answer = read_call(attributes.get(asked), attributes.get(answered))
            return prompt, answer, tools or read_tools(attributes.get("ai.prompt.tools"))
    return None, None, tools


def _predict_span(source: str, span: Span, identify: Callable[[str, str], str]) -> Event:
    prompt, answer, tools = read_span_call(span)
    if span.error is not None and answer is None:
        raise InvalidEventError(f"the call failed: {span.error[:200] or 'the span has the status ERROR'}")
    if prompt is None and answer is None:
        raise InvalidEventError(
            "the span has no content: instrumentations log it only if asked; set "
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true (or TRACELOOP_TRACE_CONTENT=true)"
        )
    return predict(
        source,
        f"{span.trace_id}/{span.span_id}",
        identify(span.trace_id, span.span_id),
        prompt,
        answer,
        time=span.end or span.start,
        model_version=_find_first(span.attributes, _MODELS),
        user_id=_find_first(span.attributes, _USERS) or _find_first(span.resource, _USERS),
        thread_id=_find_first(span.attributes, _THREADS),
        tools=tools,
    )


def find_answers(spans: Sequence[Span]) -> frozenset[tuple[str, str]]:
    """Find (trace id, span id) of the answer of each trace, as the head of this module says."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    calls = {key for key, span in by_id.items() if is_call(span)}
    answers: set[tuple[str, str]] = set()
    for trace_id in {span.trace_id for span in spans}:
        roots = [span for span in by_id.values() if span.trace_id == trace_id and not span.parent_id]
        called = [span for span in roots if (trace_id, span.span_id) in calls]
        if not called and roots:
            called = [by_id[key] for key in calls if key[0] == trace_id and not _lies_in_call(by_id[key], by_id, calls)]
        if called:
            last = max(called, key=lambda span: (_order(span.end or span.start), span.span_id))
            answers.add((trace_id, last.span_id))
    return frozenset(answers)


def _order(time: datetime | None) -> float:
    return time.timestamp() if time is not None else 0.0


def _lies_in_call(span: Span, by_id: Mapping[tuple[str, str], Span], calls: set[tuple[str, str]]) -> bool:
    seen: set[str] = set()
    parent = span.parent_id
    while parent and parent not in seen:
        seen.add(parent)
        if (span.trace_id, parent) in calls:
            return True
        above = by_id.get((span.trace_id, parent))
        parent = above.parent_id if above is not None else None
    return False


def _judge_span(source: str, span: Span, identify: Callable[[str, str], str]) -> Iterator[Event]:
    """Yield what people said: evaluation events, and OpenInference's annotations of the span or its trace."""
    own = identify(span.trace_id, span.span_id)
    is_root = span.parent_id is None
    if len(span.links) == 1 and not is_call(span):  # said later, by a span that carries nothing else
        own, is_root = identify(*span.links[0]), True
    user = _find_first(span.attributes, _USERS)
    for place, event in enumerate(span.events):
        if event.name not in ("gen_ai.evaluation.result", "gen_ai.evaluation"):
            continue
        said = event.attributes
        name = read_text(said.get("gen_ai.evaluation.name"))
        judge = next((said[key] for key in _JUDGES if isinstance(said.get(key), str)), None)
        if judge is None and any(key in said for key in _JUDGING_MODELS):
            continue
        if not is_of_people(name, judge) and not any(key in said for key in ("user.id", "enduser.id")):
            continue
        value = said.get("gen_ai.evaluation.score.value", said.get("gen_ai.evaluation.score.label"))
        found = score(
            source,
            f"{span.trace_id}/{span.span_id}/{name}/{place}",
            _read_response_id(said) or own,
            name,
            value,
            is_alone=False,
            comment=read_text(said.get("gen_ai.evaluation.explanation")),
            time=event.time,
            user_id=_find_first(said, _USERS) or user,
        )
        if found is not None:
            yield found
    tree = _unflatten({key: each for key, each in span.attributes.items() if "annotations" in key or "evaluat" in key})
    for holder, target in ((tree, own), (read_mapping(tree.get("trace")), own if is_root else span.trace_id)):
        for plural, singular in (("annotations", "annotation"), ("evaluations", "evaluation")):
            for each in _list_numbered(holder.get(plural)):
                said = read_mapping(read_mapping(each).get(singular)) or read_mapping(each)
                event_id = f"{span.trace_id}/{span.span_id}/{said.get('name')}/{said.get('identifier') or ''}"
                noted = judge_annotation(source, event_id, target, said, time=span.end, user_id=user)
                if noted is not None:
                    yield noted


def judge_annotation(
    source: str, event_id: str, prediction_id: str, said: Mapping[str, Any], *, time: datetime | None, user_id: Any
) -> Event | None:
    """Build the event of one annotation of OpenInference or Phoenix; None where no person made it.

    Raises:
        InvalidEventError: capture could not take it.
    """
    kind = said.get("annotator_kind", said.get("annotatorKind"))
    if not is_of_people(said.get("name"), kind):
        return None
    result = read_mapping(said.get("result")) or said
    name, explanation = read_text(said.get("name")), read_text(result.get("explanation"))
    label = result.get("label")
    if isinstance(name, str) and name.lower() in CORRECTIONS and (isinstance(label, str) or explanation):
        text = explanation or str(label)
        return state(
            source, event_id, prediction_id, Signal.EDIT, final_text=text, time=time, user_id=read_text(user_id)
        )
    value = result.get("score")
    return score(
        source,
        event_id,
        prediction_id,
        name,
        label if value is None else value,
        is_alone=False,
        comment=explanation,
        time=time,
        user_id=read_text(user_id),
    )


def _read_span(span: Mapping[str, Any], resource: Mapping[str, Any]) -> Span:
    trace_id = read_text(span.get("traceId", span.get("trace_id")))
    span_id = read_text(span.get("spanId", span.get("span_id")))
    if trace_id is None or span_id is None:
        raise InvalidEventError("a span has no `traceId` or no `spanId`; valid: hexadecimal ids")
    parent = read_text(span.get("parentSpanId", span.get("parent_span_id")))
    status = read_mapping(span.get("status"))
    is_error = status.get("code") in (2, "2", "STATUS_CODE_ERROR", "ERROR")
    return Span(
        trace_id,
        span_id,
        parent if parent and parent.strip("0") else None,
        str(span.get("name") or ""),
        _read_time(span, "startTimeUnixNano", "start_time_unix_nano"),
        _read_time(span, "endTimeUnixNano", "end_time_unix_nano"),
        read_attributes(span.get("attributes")),
        [
            SpanEvent(
                str(event.get("name") or ""),
                _read_time(event, "timeUnixNano", "time_unix_nano"),
                read_attributes(event.get("attributes")),
            )
            for event in list_objects(span.get("events"))
        ],
        read_links(span.get("links")),
        str(status.get("message") or "") if is_error else None,
        resource,
    )


def read_links(value: Any) -> list[tuple[str, str]]:
    """Return (trace id, span id) of a span's links."""
    found = []
    for each in list_objects(value):
        context = read_mapping(each.get("context")) or each
        trace_id = read_text(context.get("traceId", context.get("trace_id")))
        span_id = read_text(context.get("spanId", context.get("span_id")))
        if trace_id and span_id:
            found.append((trace_id, span_id))
    return found


def _read_time(value: Mapping[str, Any], *names: str) -> datetime | None:
    found = next((value[name] for name in names if value.get(name) not in (None, "", 0, "0")), None)
    if found is None:
        return None
    try:
        return parse_time(found)
    except (ValueError, OverflowError):
        raise InvalidEventError(f"`{names[0]}` is {str(found)[:40]!r}; valid: nanoseconds since 1970") from None


def _read_value(value: Any) -> Any:
    """Return one `AnyValue` of OTLP's JSON, in which whole numbers are texts."""
    if not isinstance(value, Mapping):
        return value
    for name in ("stringValue", "boolValue", "doubleValue", "bytesValue",
                 "string_value", "bool_value", "double_value", "bytes_value"):  # fmt: skip
        if name in value:
            return value[name]
    for name in ("intValue", "int_value"):
        if name in value:
            whole = str(value[name])
            return int(whole) if whole.lstrip("-").isdecimal() and len(whole) < 20 else value[name]
    for name in ("arrayValue", "array_value"):
        if name in value:
            inner = read_mapping(value[name]).get("values")
            return [_read_value(each) for each in inner] if isinstance(inner, list) else []
    for name in ("kvlistValue", "kvlist_value"):
        if name in value:
            return {
                str(each.get("key")): _read_value(each.get("value"))
                for each in list_objects(read_mapping(value[name]).get("values"))
            }
    return None


def _flatten(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; lists stay as they are."""
    for name, each in value.items():
        if isinstance(each, Mapping) and each and depth < 8:
            yield from _flatten(each, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", each


def _unflatten(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as nested objects; numbers in names stay names, see `_list_numbered`."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        here = tree
        *path, last = name.split(".")[:16]
        for step in path:
            below = here.setdefault(step, {})
            if not isinstance(below, dict):
                below = here[step] = {"": below}
            here = below
        if isinstance(here.get(last), dict):
            here[last][""] = value
        else:
            here[last] = value
    return tree


def _list_numbered(value: Any) -> list[Any]:
    """Return a list that came as a list, or as an object whose names are its numbers."""
    if isinstance(value, list):
        return [_unflatten(each) if isinstance(each, dict) else each for each in value]
    if not isinstance(value, Mapping):
        return []
    numbered = [(int(name), each) for name, each in value.items() if name.isdecimal() and len(name) < 9]
    return [each for _, each in sorted(numbered, key=lambda pair: pair[0])]


def _find_first(attributes: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((found for name in names if (found := read_text(attributes.get(name)))), None)


def _has_content(span: Span) -> bool:
    return "gen_ai.output.messages" in span.attributes or any(
        name.startswith("gen_ai.completion.") for name in span.attributes
    )


Call = tuple[Prompt | None, str | Message | None]


def _read_conventions(attributes: Mapping[str, Any]) -> Call | None:
    asked = _open(attributes.get("gen_ai.input.messages"))
    answered = _open(attributes.get("gen_ai.output.messages"))
    if asked is None and answered is None:
        return None
    prompt: Prompt | None = read_messages(asked) if isinstance(asked, list) else read_prompt(asked)
    system = parse_json(attributes.get("gen_ai.system_instructions"))
    if isinstance(system, Mapping):
        system = [system]
    if isinstance(prompt, list) and system:
        parts = system if isinstance(system, list) else [{"type": "text", "content": str(system)}]
        prompt = [read_message({"role": "system", "parts": parts}), *prompt]
    # Several messages are several choices, of which the first counts.
    first = answered[0] if isinstance(answered, list) and answered else answered
    return prompt or None, read_answer(first)


def _open(value: Any) -> Any:
    """Return messages from the text of their JSON; each message of a list may be such a text as well."""
    value = parse_json(value)
    return [parse_json(each) for each in value] if isinstance(value, list) else value


def _read_old_events(span: Span) -> Call | None:
    """Read the conventions before 1.37, in which each message was an event of the span."""
    messages: list[Message] = []
    answer: str | Message | None = None
    said_in = [(event.name, event.attributes) for event in span.events]
    # Pydantic AI and Logfire keep the same events in an attribute.
    said_in += [(str(each.get("event.name")), each) for each in list_objects(parse_json(span.attributes.get("events")))]
    for name, said in said_in:
        body = read_mapping(parse_json(said.get("gen_ai.event.content"))) or said
        if name in _OLD_MESSAGES:
            fields = {name: parse_json(body.get(name)) for name in ("tool_calls",) if body.get(name)}
            if name == "gen_ai.tool.message":
                fields["tool_call_id"] = body.get("id")
            role = body.get("role") or _OLD_MESSAGES[name]
            parts = parse_json(body.get("content"))
            content = parts if isinstance(parts, list) else body.get("content")
            messages.append(read_message({**fields, "role": role, "content": content}))
        elif name == "gen_ai.choice" and answer is None:
            message = parse_json(body.get("message"))
            if isinstance(message, Mapping):
                answer = read_answer({"role": "assistant", **message})
            else:
                answer = read_answer(message if message is not None else {"role": "assistant", **body})
    return (messages or None, answer) if messages or answer else None


def _read_numbered(tree: Mapping[str, Any]) -> Call | None:
    """Read `gen_ai.prompt.0.role` and its like."""
    gen_ai = read_mapping(tree.get("gen_ai"))
    asked, answered = _list_numbered(gen_ai.get("prompt")), _list_numbered(gen_ai.get("completion"))
    if not asked and not answered:
        return None
    prompt = [_read_numbered_message(each, "user") for each in asked]
    return prompt or None, _read_numbered_message(answered[0], "assistant") if answered else None


def _read_numbered_message(value: Any, role: str) -> Message:
    said = read_mapping(value)
    calls = [
        {"id": read_text(call.get("id")), "name": call.get("name"), "arguments": call.get("arguments") or {}}
        for call in map(read_mapping, _list_numbered(said.get("tool_calls")))
    ]
    content = said.get("content")
    blocks = parse_json(content)
    is_blocks = isinstance(blocks, list) and all(isinstance(each, Mapping) and "type" in each for each in blocks)
    reasoning = said.get("reasoning")
    return read_message(
        {
            "role": said.get("role") or role,
            "content": blocks if is_blocks else None if content is None else write_json(content),
            "tool_call_id": read_text(said.get("tool_call_id")),
            **({"tool_calls": calls} if calls else {}),
            **({"reasoning_content": reasoning} if isinstance(reasoning, str) else {}),
        }
    )


def _read_openinference(tree: Mapping[str, Any]) -> Call | None:
    llm = read_mapping(tree.get("llm"))
    asked = _list_numbered(parse_json(llm.get("input_messages")))
    answered = _list_numbered(parse_json(llm.get("output_messages")))
    prompts = _list_numbered(llm.get("prompts"))
    if not asked and prompts:
        texts = [read_text(read_mapping(read_mapping(each).get("prompt")).get("text")) for each in prompts]
        prompt: Prompt | None = "\n".join(filter(None, texts)) or None
    else:
        prompt = [_read_openinference_message(each) for each in asked] or None
    if prompt is None and not answered:
        return None
    values = {name: read_mapping(tree.get(name)).get("value") for name in ("input", "output")}
    answer: str | Message | None = None
    if answered:
        answer = msgspec.structs.replace(_read_openinference_message(answered[0]), role=Role.ASSISTANT)
    elif choices := _list_numbered(llm.get("choices")):
        answer = read_text(read_mapping(read_mapping(choices[0]).get("completion")).get("text"))
    if answer is None or (isinstance(answer, Message) and not answer.content and not answer.tool_calls):
        answer = read_answer(values["output"])
    return prompt or read_prompt(values["input"]), answer


def _read_openinference_message(value: Any) -> Message:
    said = read_mapping(read_mapping(value).get("message")) or read_mapping(value)
    calls = []
    for each in _list_numbered(said.get("tool_calls")):
        call = read_mapping(read_mapping(each).get("tool_call")) or read_mapping(each)
        function = read_mapping(call.get("function"))
        calls.append(
            {
                "id": read_text(call.get("id")),
                "name": function.get("name"),
                "arguments": function.get("arguments") or {},
            }
        )
    if isinstance(said.get("function_call_name"), str):
        arguments = said.get("function_call_arguments_json") or {}
        calls.append({"name": said["function_call_name"], "arguments": arguments})
    content: Any = said.get("content")
    parts = [_read_openinference_part(each) for each in _list_numbered(said.get("contents"))]
    if content in (None, "") and parts:
        content = parts
    return read_message(
        {
            "role": said.get("role") or "assistant",
            "content": content if content is None or isinstance(content, list) else write_json(content),
            "name": said.get("name") if isinstance(said.get("name"), str) else None,
            "tool_call_id": read_text(said.get("tool_call_id")),
            **({"tool_calls": calls} if calls else {}),
        }
    )


def _read_openinference_part(value: Any) -> dict[str, Any]:
    part = read_mapping(read_mapping(value).get("message_content")) or read_mapping(value)
    if part.get("type") in ("text", "reasoning", None):
        return {"type": part.get("type") or "text", "text": str(part.get("text") or "")}
    return {**part, "type": str(part["type"])}


def _read_openinference_tools(tree: Mapping[str, Any]) -> Tools | None:
    listed = _list_numbered(read_mapping(tree.get("llm")).get("tools"))
    schemas = [
        read_mapping(each).get("tool.json_schema") or read_mapping(read_mapping(each).get("tool")).get("json_schema")
        for each in listed
    ]
    return read_tools([schema for schema in schemas if schema])
