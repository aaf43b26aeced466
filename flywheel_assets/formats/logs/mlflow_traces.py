"""Reads MLflow's traces with their assessments, as `Trace.to_dict` and `search_traces` give them.

- The answer of a trace has the trace's id; prompt and answer are the inputs and outputs of its root span.
- Feedback of a person (`source_type` HUMAN): true, false, "yes" and their like are thumbs, 0 to 1 is a rating, other
  values are comments. A model's or code's judgement is left out, and so is one that was overridden (`valid` false).
- A person's expectation `expected_response` (and its like) is an edit; of a trace that failed, a demonstration. Other
  expectations are comments.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flywheel_assets.conversations import Message, Prompt, Tools
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_call, read_prompt, read_tools, write_json
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import CORRECTIONS, predict, score, state
from flywheel_assets.records import Signal

NAME = "mlflow"
_CALLS = ("CHAT_MODEL", "LLM")


def matches(record: Record) -> bool:
    """Return whether it is a trace, or a row of a table of traces."""
    values = record.values
    info = read_mapping(parse_json(values.get("info")))
    if ("trace_id" in info or "request_id" in info) and ("data" in values or "assessments" in info):
        return True
    named = "trace_id" in values or ("request_id" in values and "timestamp_ms" in values)
    return named and ("assessments" in values or "trace_metadata" in values or "trace" in values or "spans" in values)


def convert(record: Record) -> Sequence[Event]:
    """Turn a trace into a prediction, and people's assessments into feedback."""
    check_shape(matches(record), "a trace, or a row of a table of traces", record)
    values = record.values
    for name in ("info", "data", "trace_id", "request", "response", "assessments", "trace", "spans", "state"):
        record.get(name)
    whole = read_mapping(parse_json(values.get("trace")))
    info = read_mapping(parse_json(values.get("info") or whole.get("info"))) or values
    data = read_mapping(parse_json(values.get("data") or whole.get("data"))) or values
    said = Record(info)
    trace_id = said.get_id("trace_id") or said.get_id("request_id")
    if trace_id is None:
        raise InvalidEventError("the trace has no `trace_id`")
    metadata = read_mapping(info.get("trace_metadata")) or read_mapping(info.get("request_metadata"))
    time = said.get_time("request_time") or said.get_time("timestamp_ms")
    prompt, answer, tools, model = _read_trace(info, data, metadata)
    fields: dict[str, Any] = {
        "user_id": read_text(metadata.get("mlflow.trace.user")),
        "thread_id": read_text(metadata.get("mlflow.trace.session")),
    }
    events: list[Event] = []
    problem: InvalidEventError | None = None
    try:
        events.append(
            predict(NAME, trace_id, trace_id, prompt, answer, time=time, tools=tools, model_version=model, **fields)
        )
    except InvalidEventError as error:
        state_of = str(info.get("state") or info.get("status") or "")
        problem = InvalidEventError(f"the trace failed: {error}") if state_of.upper() == "ERROR" else error
    assessments = list_objects(parse_json(info.get("assessments"))) or list_objects(
        parse_json(values.get("assessments"))
    )
    overridden = {read_text(each.get("overrides")) for each in assessments}
    for place, each in enumerate(assessments):
        own = read_text(each.get("assessment_id"))
        if each.get("valid") is False or (own is not None and own in overridden):
            continue
        event_id = own or f"{trace_id}/{each.get('assessment_name') or each.get('name')}/{place}"
        events.extend(_assess(Record(each), event_id, trace_id, prompt, time, is_answered=problem is None))
    if problem is not None and not events:
        raise problem
    return events


def _assess(
    said: Record, event_id: str, trace_id: str, prompt: Prompt | None, asked_at: datetime | None, *, is_answered: bool
) -> list[Event]:
    """Turn one assessment into feedback; without a time of its own it has the trace's."""
    source = read_mapping(said.get("source"))
    if str(source.get("source_type") or "").upper() != "HUMAN":
        return []
    name = read_text(said.get("assessment_name")) or read_text(said.get("name"))
    names = ("last_update_time", "last_update_time_ms", "create_time", "create_time_ms")
    time = next(filter(None, map(said.get_time, names)), None)
    fields: dict[str, Any] = {"time": time or asked_at, "user_id": _read_person(source)}
    rationale = read_text(said.get("rationale"))
    expectation = read_mapping(said.get("expectation"))
    if expectation:
        serialized = read_mapping(expectation.get("serialized_value"))
        value = parse_json(serialized["value"]) if "value" in serialized else expectation.get("value")
        if value is None:
            return []
        if name in CORRECTIONS:
            final = read_answer(value)
            if final is None:
                return []
            if is_answered or prompt is None:
                return [state(NAME, event_id, trace_id, Signal.EDIT, final_text=final, comment=rationale, **fields)]
            return [
                state(NAME, event_id, None, Signal.DEMONSTRATION, prompt=prompt, final_text=final, comment=rationale,
                      **fields)
            ]  # fmt: skip
        text = "\n".join(filter(None, (f"{name or 'expectation'}: {write_json(value)}", rationale)))
        return [state(NAME, event_id, trace_id, Signal.COMMENT, comment=text, **fields)]
    feedback = read_mapping(said.get("feedback"))
    value = feedback.get("value")
    if feedback.get("error") and value is None:
        return []
    if isinstance(value, Mapping | list):
        value = write_json(value)
    found = score(NAME, event_id, trace_id, name, value, is_alone=False, comment=rationale, **fields)
    return [] if found is None else [found]


def _read_person(source: Mapping[str, Any]) -> str | None:
    person = read_text(source.get("source_id"))
    return None if person == "default" else person


def _read_trace(
    info: Mapping[str, Any], data: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[Prompt | None, str | Message | None, Tools | None, str | None]:
    """Return prompt, answer, tools and model of a trace: of its root span, else of the trace's own request."""
    spans = list_objects(parse_json(data.get("spans")))
    root = next((each for each in spans if not _find_parent(each)), None)
    calls = [each for each in spans if _read_attribute(each, "mlflow.spanType") in _CALLS]
    last = calls[-1] if calls else None
    sides = [(_read_side(each, "Inputs"), _read_side(each, "Outputs")) for each in (root, last) if each is not None]
    sides.insert(1 if root is not None else 0, (data.get("request"), data.get("response")))
    sides.append((metadata.get("mlflow.traceInputs"), metadata.get("mlflow.traceOutputs")))
    sides.append((info.get("request_preview"), info.get("response_preview")))
    prompt: Prompt | None = None
    answer: str | Message | None = None
    for asked, answered in sides:
        asked_here, answered_here = (read_prompt(asked), None) if answered is None else read_call(asked, answered)
        prompt = asked_here if prompt is None or (answer is None and answered_here is not None) else prompt
        answer = answered_here if answer is None else answer
        if prompt is not None and answer is not None:
            break
    span = root if last is None else last
    tools = None if span is None else read_tools(_read_attribute(span, "mlflow.chat.tools"))
    asked = None if span is None else parse_json(_read_side(span, "Inputs"))
    model = None if span is None else read_text(_read_attribute(span, "mlflow.llm.model"))
    model = model or read_text(read_mapping(asked).get("model"))
    return prompt, answer, tools or read_tools(asked if isinstance(asked, Mapping) else None), model


def _find_parent(span: Mapping[str, Any]) -> Any:
    return span.get("parent_span_id") or span.get("parent_id")


def _read_side(span: Mapping[str, Any], side: str) -> Any:
    found = _read_attribute(span, f"mlflow.span{side}")
    return span.get(side.lower()) if found is None else found


def _read_attribute(span: Mapping[str, Any], name: str) -> Any:
    """Return an attribute, which MLflow keeps as a text of JSON."""
    return parse_json(read_mapping(parse_json(span.get("attributes"))).get(name))


FORMAT = Format(
    name=NAME, title="MLflow: traces with assessments", matches=matches, convert=convert, has_global_ids=True
)
