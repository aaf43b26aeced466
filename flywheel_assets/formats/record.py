"""Reads one JSON object by paths and remembers which fields were read, so that the others can be listed."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flywheel_assets.errors import InvalidEventError

_EPOCH_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From this number on a time since 1970 counts nanoseconds, microseconds, milliseconds: in seconds it would lie 3,000
years ahead."""


class Record:
    """Holds one object of a file.

    Paths are given name by name, since names may contain dots: `record.get("data", "rating")`.
    """

    __slots__ = ("used", "values")

    def __init__(self, values: Mapping[str, Any], used: set[tuple[str, ...]] | None = None) -> None:
        """Take the object; `used` collects the paths that are read, of one record or of all records of a file."""
        self.values = values
        self.used = set() if used is None else used

    def get(self, *path: str) -> Any:
        """Return the value at a path; None where it is absent or null."""
        self.used.add(path)
        value: Any = self.values
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def get_text(self, *path: str) -> str | None:
        """Return the text at a path; None where it is absent or null.

        Raises:
            InvalidEventError: it is something else.
        """
        value = self.get(*path)
        if value is None or isinstance(value, str):
            return value
        raise InvalidEventError(f"`{'.'.join(path)}` is a {_name_type(value)}; valid: text")

    def get_id(self, *path: str) -> str | None:
        """Return the id at a path, a text or a whole number; None where it is absent, null or empty.

        Raises:
            InvalidEventError: it is something else.
        """
        value = self.get(*path)
        if value is None or value == "":
            return None
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float) and value.is_integer():  # tables hold integers with gaps as floats
            return str(int(value))
        raise InvalidEventError(f"`{'.'.join(path)}` is a {_name_type(value)}; valid: a text or a whole number")

    def get_time(self, *path: str) -> datetime | None:
        """Return the time at a path; None where it is absent, null or empty.

        ISO 8601 or seconds, milliseconds, microseconds or nanoseconds since 1970; without a zone it is UTC.

        Raises:
            InvalidEventError: it is something else.
        """
        value = self.get(*path)
        if value is None or value == "":
            return None
        try:
            return parse_time(value)
        except ValueError:
            shown = str(value)[:40]
            raise InvalidEventError(
                f"`{'.'.join(path)}` is {shown!r}; valid: a time in ISO 8601, or seconds since 1970"
            ) from None

    def get_json(self, *path: str) -> Any:
        """Return the value at a path, decoded where it is a text of JSON."""
        value = self.get(*path)
        if isinstance(value, str) and value[:1] in ("{", "[", '"'):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value

    def list_unread(self) -> list[str]:
        """List the fields that nothing has read, by dotted names, one level below those that were read in part."""
        unread = []
        for name, value in self.values.items():
            deeper = {path[1] for path in self.used if len(path) > 1 and path[0] == name}
            if (name,) in self.used:
                continue
            if not deeper:
                unread.append(name)
            elif isinstance(value, Mapping):
                unread.extend(f"{name}.{each}" for each in value if each not in deeper)
        return unread


def parse_time(value: Any) -> datetime:
    """Parse a time in ISO 8601 or a number since 1970 in seconds, milli-, micro- or nanoseconds.

    Without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            found = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    divisor = next((divisor for least, divisor in _EPOCH_UNITS if abs(value) >= least), 1.0)
    try:
        return datetime.fromtimestamp(value / divisor, UTC)
    except (OverflowError, OSError):
        raise ValueError(value) from None


def _name_type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
