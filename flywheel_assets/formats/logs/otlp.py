"""Reads OTLP's JSON: export requests, one in a line, as the collector's file exporter writes them.

Content, ids and judgements are those of `spans`.
"""

from collections.abc import Sequence

from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.shapes import check_shape
from flywheel_assets.formats.logs.spans import convert_spans, read_spans
from flywheel_assets.formats.record import Record

NAME = "otlp"
_NAMES = ("resourceSpans", "resource_spans", "scopeSpans", "batches")


def matches(record: Record) -> bool:
    """Return whether it is an export request of traces."""
    return any(isinstance(record.values.get(name), list) for name in _NAMES)


def convert(record: Record) -> Sequence[Event]:
    """Turn each call of a model into a prediction, and people's evaluations into feedback."""
    check_shape(matches(record), "an export request of traces", record)
    for name in (*_NAMES, "resource"):
        record.get(name)
    # The list of a request may have been taken apart before.
    request = {"resourceSpans": [record.values]} if "scopeSpans" in record.values else record.values
    if "batches" in request:  # Tempo's name for it
        request = {"resourceSpans": request["batches"]}
    return convert_spans(NAME, read_spans(request))


FORMAT = Format(
    name=NAME, title="OpenTelemetry: OTLP JSON with the GenAI conventions", matches=matches, convert=convert,
    has_global_ids=True,
)  # fmt: skip
