"""Reads spans that Phoenix exports, and annotations of spans.

- Spans, as its API gives them (`{"context": {"trace_id", "span_id"}, "parent_id", "attributes", …}`) or as its table
  does (`context.span_id`, `attributes.llm.input_messages`, one column each), or OpenTelemetry's console exporter.
- Annotations, `{"span_id", "name", "annotator_kind", "result": {"label", "score", "explanation"}}`.

Phoenix names spans by their own ids, so that an answer's id is the span's id.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.logs.spans import (
    Span,
    SpanEvent,
    convert_span,
    judge_annotation,
    read_attributes,
    read_links,
)
from flywheel_assets.formats.record import Record

NAME = "phoenix"


def matches(record: Record) -> bool:
    """Return whether it is a span with OpenInference's names, or an annotation of a span."""
    values = record.values
    if "annotator_kind" in values or "annotatorKind" in values:
        return any(name in values for name in ("span_id", "context.span_id", "result", "spanId"))
    has_context = "context.span_id" in values or "span_id" in read_mapping(values.get("context"))
    return has_context and ("span_kind" in values or "attributes" in values or _has_column(values))


def convert(record: Record) -> Sequence[Event]:
    """Turn a call of a model into a prediction, and people's annotations into feedback."""
    check_shape(matches(record), "a span with OpenInference's names, or an annotation of a span", record)
    values = record.values
    if "annotator_kind" in values or "annotatorKind" in values:
        return _convert_annotation(record)
    span = _read_span(record)
    events: list[Event] = []
    problem: InvalidEventError | None = None
    try:
        events.extend(convert_span(NAME, span, lambda _, span_id: span_id))
    except InvalidEventError as error:
        problem = error
    record.get("annotations")
    notes = values.get("annotations", values.get("span_annotations"))
    for place, said in enumerate(list_objects(notes)):
        event_id = read_text(said.get("id")) or f"{span.span_id}/{said.get('name')}/{place}"
        found = judge_annotation(
            NAME, event_id, span.span_id, said,
            time=Record(said).get_time("created_at"), user_id=said.get("user_id", said.get("identifier")),
        )  # fmt: skip
        if found is not None:
            events.append(found)
    if problem is not None and not events:
        raise problem
    return events


def _convert_annotation(record: Record) -> Sequence[Event]:
    span_id = record.get_id("span_id") or record.get_id("context.span_id") or record.get_id("spanId")
    if span_id is None:
        raise InvalidEventError("the annotation names no span; valid: `span_id`")
    for name in ("name", "annotator_kind", "result", "label", "score", "explanation", "metadata"):
        record.get(name)
    time = record.get_time("created_at") or record.get_time("updated_at")
    event_id = record.get_id("id") or f"{span_id}/{record.get('name')}/{record.get('identifier') or ''}"
    said = dict(record.values)
    for name in ("label", "score", "explanation"):  # as the table of annotations calls them
        if f"result.{name}" in said:
            said[name] = said[f"result.{name}"]
    user = record.get("user_id") or record.get("identifier")
    found = judge_annotation(NAME, event_id, span_id, said, time=time, user_id=user)
    return [] if found is None else [found]


def _read_span(record: Record) -> Span:
    values = record.values
    context = read_mapping(record.get("context"))
    span_id = _strip(read_text(context.get("span_id")) or record.get_id("context.span_id"))
    if span_id is None:
        raise InvalidEventError("the span has no `context.span_id`")
    attributes = read_attributes(record.get("attributes"))
    for name, value in values.items():
        if name.startswith("attributes.") and value is not None:
            record.get(name)
            inner = name.removeprefix("attributes.")
            attributes |= (
                {f"{inner}.{deeper}": each for deeper, each in read_attributes(value).items()}
                if isinstance(value, Mapping)
                else {inner: value}
            )
    kind = record.get("span_kind")
    if isinstance(kind, str) and kind.upper() not in ("", "UNKNOWN"):
        attributes["openinference.span.kind"] = kind
    status = str(record.get("status_code") or read_mapping(record.get("status")).get("status_code") or "")
    return Span(
        _strip(read_text(context.get("trace_id")) or record.get_id("context.trace_id")) or span_id,
        span_id,
        _strip(record.get_id("parent_id")),
        str(record.get("name") or ""),
        record.get_time("start_time"),
        record.get_time("end_time"),
        attributes,
        [
            SpanEvent(
                str(each.get("name") or ""), Record(each).get_time("timestamp"), read_attributes(each.get("attributes"))
            )
            for each in list_objects(record.get("events"))
        ],
        read_links(record.get("links")),
        error=str(record.get("status_message") or "") if status.upper() == "ERROR" else None,
    )


def _strip(hexadecimal: str | None) -> str | None:
    """Return an id without the `0x` that OpenTelemetry's console exporter writes before it."""
    return None if hexadecimal is None else hexadecimal.removeprefix("0x") or None


def _has_column(values: Mapping[str, Any]) -> bool:
    return any(name.startswith("attributes.") for name in values)


FORMAT = Format(
    name=NAME, title="Phoenix: spans and annotations", matches=matches, convert=convert, has_global_ids=True
)
