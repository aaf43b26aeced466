"""Lists every format and finds the one that a file has."""

from collections.abc import Sequence

from flywheel_assets.errors import UnknownNameError
from flywheel_assets.formats import annotations, logs, preferences
from flywheel_assets.formats.format import Format
from flywheel_assets.formats.record import Record

FORMATS: tuple[Format, ...] = (*preferences.FORMATS, *annotations.FORMATS, *logs.FORMATS)
AUTO = "auto"


def find_format(name: str) -> Format:
    """Return the format of a name.

    Raises:
        UnknownNameError: there is none.
    """
    for each in FORMATS:
        if each.name == name:
            return each
    raise UnknownNameError("format", name, [AUTO, *(each.name for each in FORMATS)])


def detect_format(sample: Sequence[Record]) -> Format | None:
    """Return the format that most records of a sample have; None where no record has any.

    Of formats that equally many records have, the first in `FORMATS` counts.
    """
    counts = {each.name: sum(each.matches(record) for record in sample) for each in FORMATS}
    best = max(FORMATS, key=lambda each: counts[each.name], default=None)
    return best if best is not None and counts[best.name] else None
