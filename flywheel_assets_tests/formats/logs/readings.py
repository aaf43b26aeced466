"""Converts a record as an import does: detected by its own format alone, and landed."""

from datetime import UTC, datetime
from typing import Any

from flywheel_assets.capture.events.texts import Reception, land_cloud_event
from flywheel_assets.conversations import Message, read_answer_text
from flywheel_assets.formats.catalog import FORMATS
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import FeedbackCloudEvent, PredictionCloudEvent

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def read(format_name: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """What a record says, in short; each of its events lands."""
    found = [each for each in FORMATS if each.matches(Record(record))]
    assert [each.name for each in found] == [format_name]
    events = found[0].convert(Record(record))
    reception = Reception("chat", NOW)
    for event in events:
        assert isinstance(event, PredictionCloudEvent | FeedbackCloudEvent)
        assert event.source == format_name
        land_cloud_event(event, reception, f"import:{format_name}")
    assert len({event.id for event in events}) == len(events)
    return [shorten(event) for event in events]


def shorten(event: Any) -> dict[str, Any]:
    """The fields of an event that say something; messages as (role, text)."""
    data = event.data
    found: dict[str, Any] = {}
    for name in data.__struct_fields__:
        value = getattr(data, name)
        if value is None or value is False or (name == "sampling_probability"):
            continue
        if isinstance(value, Message):
            value = read_answer_text(value)
        elif name == "prompt" and isinstance(value, list):
            value = [(message.role.value, read_answer_text(message)) for message in value]
        found[name] = value.value if name == "signal" else value
    if event.time is not None:
        found["time"] = event.time.strftime("%Y-%m-%dT%H:%M:%S")
    return found


def thumb(about: str, value: float, **more: Any) -> dict[str, Any]:
    """One thumb, as `read` shows it."""
    return {"signal": "thumb", "prediction_id": about, "value": value, **more}
