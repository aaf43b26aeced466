"""Reads the shapes that records of logs share: objects, lists of objects and texts, where something else may stand."""

from collections.abc import Mapping
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.record import Record


def check_shape(is_known: bool, shape: str, record: Record) -> None:
    """Check that a record has the shape of its format.

    Raises:
        InvalidEventError: it has not; the message lists its fields.
    """
    if not is_known:
        fields = ", ".join(sorted(str(name)[:40] for name in record.values)[:12])
        raise InvalidEventError(f"the record is not {shape}; its fields: {fields or 'none'}")


def read_mapping(value: Any) -> Mapping[str, Any]:
    """Return an object; an empty one where it is none."""
    return value if isinstance(value, Mapping) else {}


def list_objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none where it is no list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def read_text(value: Any) -> str | None:
    """Return a text that says something, or a whole number as one; None where it is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None
