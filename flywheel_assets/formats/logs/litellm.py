"""Reads LiteLLM's standard logging payload, and the rows of its spend logs.

An answer's id is the completion's own id, which the caller of the proxy has as well.
"""

from collections.abc import Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_call, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import predict

NAME = "litellm"
_OTHER_CALLS = ("embedding", "rerank", "image", "speech", "transcription", "moderation", "health", "models")


def matches(record: Record) -> bool:
    """Return whether it is a call that LiteLLM logged."""
    values = record.values
    return isinstance(values.get("call_type"), str) and ("messages" in values or "response" in values)


def convert(record: Record) -> Sequence[Event]:
    """Turn one call into one prediction."""
    check_shape(matches(record), "a call that LiteLLM logged", record)
    kind = str(record.get("call_type"))
    if any(name in kind for name in _OTHER_CALLS):
        return []
    response = read_mapping(parse_json(record.get("response")))
    answer_id = record.get_id("id") or record.get_id("request_id") or read_text(response.get("id"))
    if answer_id is None:
        raise InvalidEventError("the call has no `id`")
    error = record.get("error_str") or read_mapping(record.get("error_information")).get("error_message")
    if record.get("status") == "failure" or error:
        raise InvalidEventError(f"the call failed: {str(error or 'status failure')[:200]}")
    settings = read_mapping(parse_json(record.get("model_parameters")))
    metadata = read_mapping(parse_json(record.get("metadata")))
    asked = record.get("messages") or parse_json(record.get("proxy_server_request"))
    prompt, answer = read_call(asked, record.get("response"))
    return [
        predict(
            NAME,
            answer_id,
            answer_id,
            prompt,
            answer,
            time=record.get_time("endTime") or record.get_time("startTime"),
            model_version=read_text(record.get("model")),
            user_id=record.get_id("end_user")
            or read_text(metadata.get("user_api_key_end_user_id"))
            or read_text(settings.get("user")),
            thread_id=record.get_id("session_id") or read_text(metadata.get("session_id")) or record.get_id("trace_id"),
            tools=read_tools(settings) or read_tools(asked),
        )
    ]


FORMAT = Format(name=NAME, title="LiteLLM: standard payload", matches=matches, convert=convert, has_global_ids=True)
