"""Reads what Langfuse's API, batch exports and blob exports give: traces, observations, scores, dataset items.

- The answer of a trace has the trace's id: the trace's own output, else its last outermost generation; a generation
  without a parent in a file of observations. Every other generation has its own id.
- A score says the observation or the trace that it is about. `EVAL` marks a judgement of a model: left out.
- A correction (`dataType` CORRECTION) is an edit; an expected output of a dataset item is a demonstration.

Fields may be spelt as the API does (`traceId`) or as blob exports do (`trace_id`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.conversations import Message, Prompt
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_call, read_prompt, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import CORRECTIONS, predict, score, state
from flywheel_assets.records import Signal

NAME = "langfuse"
_CAPITAL = re.compile(r"(?<=[a-z])([A-Z])")
_OF_TRACES = ("observations", "htmlPath", "bookmarked", "sessionId", "release", "public", "totalCost")


def matches(record: Record) -> bool:
    """Return whether it is a trace, an observation, a score or a dataset item."""
    values = record.values
    if "run_type" in values or "annotator_kind" in values:
        return False
    if _has(values, "datasetId") and _has(values, "expectedOutput"):
        return True
    return _is_score(values) or _is_observation(values) or _is_trace(values)


def convert(record: Record) -> Sequence[Event]:
    """Turn a trace or an observation into predictions, and people's scores into feedback."""
    check_shape(matches(record), "a trace, an observation, a score or a dataset item", record)
    values = record.values
    if _has(values, "datasetId") and _has(values, "expectedOutput"):
        return _convert_item(record)
    if _is_score(values):
        return _convert_score(record, None, is_alone=True)
    if _is_observation(values):
        return _convert_observation(record)
    return _convert_trace(record)


def _convert_trace(record: Record) -> Sequence[Event]:
    trace_id = record.get_id("id")
    if trace_id is None:
        raise InvalidEventError("the trace has no `id`")
    observations = [Record(each) for each in list_objects(parse_json(record.get("observations")))]
    generations = [each for each in observations if _is_generation(each.values)]
    ids = {each.get_id("id") for each in generations}
    outermost = [each for each in generations if _get_id(each, "parentObservationId") not in ids]
    user, session = _get_id(record, "userId"), _get_id(record, "sessionId")
    prompt, answer = read_call(record.get("input"), record.get("output"))
    last = max(outermost, key=lambda each: str(_get(each, "startTime") or ""), default=None)
    events: list[Event] = []
    problem: InvalidEventError | None = None
    if last is not None and (prompt is None or answer is None or _says_same(last, answer)):
        # The generation also has the system prompt and the tools.
        answering: Record | None = last
    else:
        answering = None
        if prompt is not None and answer is not None:
            events.append(
                predict(
                    NAME, f"{trace_id}/trace", trace_id, prompt, answer, time=record.get_time("timestamp"),
                    user_id=user, thread_id=session, model_version=None,
                )
            )  # fmt: skip
    for each in generations:
        target = trace_id if each is answering else each.get_id("id")
        try:
            events.append(_predict_generation(each, target or trace_id, user, session))
        except InvalidEventError as error:
            problem = error
    renamed = {answering.get_id("id"): trace_id} if answering is not None else {}
    for said in list_objects(parse_json(record.get("scores"))):
        events.extend(_convert_score(Record({"traceId": trace_id, "userId": user, **said}), renamed, is_alone=False))
    for place, said in enumerate(list_objects(parse_json(record.get("comments")))):
        text = read_text(said.get("content"))
        if text:
            event_id = read_text(said.get("id")) or f"{trace_id}/comment/{place}"
            time = Record(said).get_time("createdAt")
            who = read_text(said.get("authorUserId"))
            events.append(state(NAME, event_id, trace_id, Signal.COMMENT, comment=text, time=time, user_id=who))
    if not events and (problem is not None or observations or record.get("output") is not None):
        raise problem or InvalidEventError("the trace has no readable input and output, and no generation")
    return events


def _convert_observation(record: Record) -> Sequence[Event]:
    if not _is_generation(record.values):
        return []
    parent, trace_id, own = _get_id(record, "parentObservationId"), _get_id(record, "traceId"), record.get_id("id")
    target = trace_id if parent is None and trace_id is not None else own
    if target is None:
        raise InvalidEventError("the observation has neither `id` nor `traceId`")
    user, session = _get_id(record, "userId"), _get_id(record, "sessionId")
    return [_predict_generation(record, target, user, session)]


def _predict_generation(record: Record, prediction_id: str, user: str | None, session: str | None) -> Event:
    inputs = parse_json(record.get("input"))
    prompt, answer = read_call(inputs, record.get("output"))
    if answer is None and _get(record, "level") == "ERROR":
        raise InvalidEventError(f"the call failed: {str(_get(record, 'statusMessage') or 'level ERROR')[:200]}")
    metadata = read_mapping(parse_json(record.get("metadata")))
    return predict(
        NAME, record.get_id("id") or prediction_id, prediction_id, prompt, answer,
        time=_get_time(record, "endTime") or _get_time(record, "startTime"),
        model_version=read_text(_get(record, "model")) or read_text(_get(record, "providedModelName")),
        user_id=user, thread_id=session, tools=read_tools(inputs) or read_tools(metadata.get("tools")),
    )  # fmt: skip


def _convert_score(record: Record, renamed: Mapping[Any, str] | None, *, is_alone: bool) -> list[Event]:
    if str(_get(record, "source") or "").upper() == "EVAL":
        return []
    subject = read_mapping(_get(record, "subject"))
    observation, trace = _get_id(record, "observationId"), _get_id(record, "traceId")
    if subject.get("kind") == "observation":
        observation = read_text(subject.get("id"))
    elif subject.get("kind") == "trace":
        trace = read_text(subject.get("id"))
    target = observation or trace
    if target is None:
        if not is_alone:
            return []
        raise InvalidEventError("the score is about a session or a dataset run; valid: a `traceId` or `observationId`")
    target = (renamed or {}).get(target, target)
    name = read_text(record.get("name"))
    kind = str(_get(record, "dataType") or "").upper()
    value, text = (
        record.get("value"),
        read_text(_get(record, "stringValue")) or read_text(_get(record, "longStringValue")),
    )
    fields: dict[str, Any] = {
        "time": record.get_time("timestamp") or _get_time(record, "createdAt"),
        "user_id": _get_id(record, "authorUserId") or _get_id(record, "userId") or record.get_id("trace", "userId"),
    }
    event_id = record.get_id("id") or f"{target}/{name or 'score'}"
    comment = read_text(record.get("comment"))
    if kind == "CORRECTION" or (kind in ("TEXT", "CATEGORICAL") and name in CORRECTIONS):
        final = read_answer(text or value)
        if final is None:
            raise InvalidEventError("the correction has no text; valid: `stringValue` or `value`")
        return [state(NAME, event_id, target, Signal.EDIT, final_text=final, comment=comment, **fields)]
    if kind in ("CATEGORICAL", "TEXT") and text is not None:
        value = text
    found = score(NAME, event_id, target, name, text if value is None else value, is_alone=is_alone, comment=comment,
                  **fields)  # fmt: skip
    return [] if found is None else [found]


def _convert_item(record: Record) -> Sequence[Event]:
    prompt, final = read_prompt(record.get("input")), read_answer(_get(record, "expectedOutput"))
    if final is None:
        return []
    if prompt is None:
        raise InvalidEventError("the dataset item has no `input`")
    item_id = record.get_id("id")
    if item_id is None:
        raise InvalidEventError("the dataset item has no `id`")
    time = _get_time(record, "updatedAt") or _get_time(record, "createdAt")
    return [state(NAME, item_id, None, Signal.DEMONSTRATION, prompt=prompt, final_text=final, time=time)]


def _says_same(generation: Record, answer: Prompt | Message) -> bool:
    try:
        found = read_answer(generation.get("output"))
    except InvalidEventError:
        return False
    return _read_text(found) == _read_text(answer)


def _read_text(answer: Any) -> str:
    content = answer.content if isinstance(answer, Message) else answer
    return content.strip() if isinstance(content, str) else ""


def _is_generation(values: Mapping[str, Any]) -> bool:
    kind = str(values.get("type") or "").upper()
    return kind == "GENERATION"


def _is_trace(values: Mapping[str, Any]) -> bool:
    has_content = any(name in values for name in ("input", "output", "observations"))
    return "id" in values and "timestamp" in values and has_content and any(_has(values, name) for name in _OF_TRACES)


def _is_observation(values: Mapping[str, Any]) -> bool:
    return _has(values, "traceId") and "type" in values and _has(values, "startTime") and "id" in values


def _is_score(values: Mapping[str, Any]) -> bool:
    is_about = any(_has(values, name) for name in ("traceId", "observationId")) or (
        "kind" in read_mapping(values.get("subject"))
    )
    has_value = "value" in values or _has(values, "stringValue")
    return is_about and "name" in values and has_value and (_has(values, "dataType") or "source" in values)


def _snake(name: str) -> str:
    return _CAPITAL.sub(r"_\1", name).lower()


def _has(values: Mapping[str, Any], name: str) -> bool:
    return name in values or _snake(name) in values


def _get(record: Record, name: str) -> Any:
    found = record.get(name)
    return record.get(_snake(name)) if found is None else found


def _get_id(record: Record, name: str) -> str | None:
    return record.get_id(name) or record.get_id(_snake(name))


def _get_time(record: Record, name: str) -> Any:
    return record.get_time(name) or record.get_time(_snake(name))


FORMAT = Format(
    name=NAME, title="Langfuse: traces, observations, scores, dataset items", matches=matches, convert=convert,
    has_global_ids=True,
)  # fmt: skip
