"""Reads PostHog's events of models: `$ai_generation`, `$ai_trace`, `$ai_feedback`, `$ai_metric`.

Feedback names the trace. A generation without a parent is the answer of its trace and has the trace's id; a generation
within a chain has its own `$ai_span_id`, and the `$ai_trace` event the trace's. Metrics count where their name speaks
of people; `$ai_evaluation` is a model's judgement.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_call, read_prompt, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import is_of_people, predict, score
from flywheel_assets.records import make_stable_id

NAME = "posthog"
_FLAT = "properties."


def matches(record: Record) -> bool:
    """Return whether it is an event of a model."""
    event = record.values.get("event")
    is_of_model = isinstance(event, str) and event.startswith("$ai_")
    return is_of_model and ("properties" in record.values or any(map(_is_flat, record.values)))


def convert(record: Record) -> Sequence[Event]:
    """Turn a generation into a prediction, and feedback into feedback."""
    event = record.get("event")
    if isinstance(event, str) and not event.startswith("$ai_") and "distinct_id" in record.values:
        return []  # a page view or the like, in an export of all events
    check_shape(matches(record), "an event of a model", record)
    said = Record(_read_properties(record))
    trace_id = said.get_id("$ai_trace_id")
    user = record.get_id("distinct_id")
    time = record.get_time("timestamp")
    event_id = record.get_id("uuid") or record.get_id("id")
    if event_id is None:
        event_id = make_stable_id("posthog", trace_id, user, str(event), str(time), _show(said.values))
    fields: dict[str, Any] = {"time": time, "user_id": user}
    if event in ("$ai_generation", "$ai_trace"):
        return _predict(said, event_id, trace_id, is_trace=event == "$ai_trace", fields=fields)
    if event not in ("$ai_feedback", "$ai_metric"):
        return []
    target = trace_id
    if target is None:
        raise InvalidEventError(f"the {event} names no trace; valid: `properties.$ai_trace_id`")
    if event == "$ai_feedback":
        text = said.get_text("$ai_feedback_text")
        rating = said.get("$ai_feedback_rating")
        found = score(NAME, event_id, target, "feedback", rating, is_alone=False, comment=text, **fields)
    else:
        name = said.get_text("$ai_metric_name")
        if not is_of_people(name):
            return []
        found = score(NAME, event_id, target, name, said.get("$ai_metric_value"), **fields)
    return [] if found is None else [found]


def _is_flat(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(_FLAT)


def _read_properties(record: Record) -> Mapping[str, Any]:
    """Return the properties: an object, its JSON, or columns such as `properties.$ai_model` of the UI's CSV."""
    if "properties" in record.values:
        return read_mapping(parse_json(record.get("properties")))
    names = [name for name in record.values if _is_flat(name)]
    return {name.removeprefix(_FLAT): value for name in names if (value := record.get(name)) != ""}


def _predict(
    said: Record, event_id: str, trace_id: str | None, *, is_trace: bool, fields: dict[str, Any]
) -> Sequence[Event]:
    asked = said.get("$ai_input_state") if is_trace else said.get("$ai_input")
    outputs = said.get("$ai_output_state") if is_trace else said.get("$ai_output_choices") or said.get("$ai_output")
    failed = said.get("$ai_is_error") in (True, "true")
    if is_trace:
        if asked is None or outputs is None:
            return []
        prompt, answer = read_call(asked, outputs)
    else:
        choices = parse_json(outputs)
        first = choices[0] if isinstance(choices, list) and choices else choices
        prompt, answer = read_prompt(asked), read_answer(first)
    if answer is None and failed:
        raise InvalidEventError(f"the call failed: {str(said.get('$ai_error') or '$ai_is_error')[:200]}")
    own = said.get_id("$ai_span_id") or said.get_id("$ai_generation_id")
    is_outermost = is_trace or said.get("$ai_parent_id") is None
    target = trace_id if is_outermost and trace_id is not None else own
    return [
        predict(
            NAME,
            event_id,
            target or event_id,
            prompt,
            answer,
            model_version=read_text(said.get("$ai_model")),
            thread_id=said.get_id("$ai_session_id"),
            tools=read_tools(said.get("$ai_tools")),
            **fields,
        )
    ]


def _show(values: Any) -> str:
    return str(sorted((name, str(value)) for name, value in values.items()))


FORMAT = Format(name=NAME, title="PostHog: $ai_ events", matches=matches, convert=convert, has_global_ids=True)
