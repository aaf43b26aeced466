"""Reads OTLP's JSON: export requests, one in a line, as the collector's file exporter writes them.

Content, ids and judgements are those of `spans`.
"""

from collections.abc import Sequence

from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.spans import convert_spans, read_spans
from flywheel_assets.formats.record import Record

NAME = "otlp"


def matches(record: Record) -> bool:
    """Return whether it is an export request of traces."""
    return isinstance(record.values.get("resourceSpans", record.values.get("resource_spans")), list)


def convert(record: Record) -> Sequence[Event]:
    """Turn each call of a model into a prediction, and people's evaluations into feedback."""
    record.get("resourceSpans")
    return convert_spans(NAME, read_spans(record.values))


FORMAT = Format(
    name=NAME, title="OpenTelemetry: OTLP JSON with the GenAI conventions", matches=matches, convert=convert,
    has_global_ids=True,
)  # fmt: skip
