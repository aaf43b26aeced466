"""Lists every format and finds the one that a file has."""

from collections.abc import Sequence

from flywheel_assets.errors import InvalidEventError, UnknownNameError
from flywheel_assets.formats import annotations, logs, preferences
from flywheel_assets.formats.format import Format
from flywheel_assets.formats.record import Record

FORMATS: tuple[Format, ...] = (*preferences.FORMATS, *annotations.FORMATS, *logs.FORMATS)
AUTO = "auto"
_SHOWN_FIELDS = 12
_SHOWN_FORMATS = 3


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

    In a file of several formats the records of the others are refused when they are converted.

    Raises:
        InvalidEventError: two formats have equally many records; the message names both and the option to choose one.
    """
    counted = [(sum(each.matches(record) for record in sample), each) for each in FORMATS]
    best = max((count for count, _ in counted), default=0)
    if not best:
        return None
    found = [each for count, each in counted if count == best]
    if len(found) > 1:
        options = " or ".join(f"--format {each.name} ({each.title})" for each in found)
        raise InvalidEventError(
            f"{best} of the first {len(sample)} records could be {' and '.join(each.name for each in found)} alike; "
            f"choose one: {options}"
        )
    return found[0]


def describe_unknown(sample: Sequence[Record], name: str) -> str:
    """Describe records of a source that have no known format: their fields, the nearest formats, and what helps."""
    fields = sorted({str(field) for record in sample for field in record.values})
    more = f" and {len(fields) - _SHOWN_FIELDS} more" if len(fields) > _SHOWN_FIELDS else ""
    nearest = [f"{each.name} ({', '.join(each.fields)})" for each in find_nearest(fields)]
    near = f"; nearest: {'; '.join(nearest)}" if nearest else ""
    return (
        f"no format has the fields of {name}: {', '.join(fields[:_SHOWN_FIELDS]) or 'none'}{more}{near}. Say which "
        "fields are what, for instance with --map prompt=question,final_text=answer_sent, or choose a format with "
        f"--format; valid: {', '.join(each.name for each in FORMATS)}"
    )


def find_nearest(fields: Sequence[str]) -> list[Format]:
    """Find the formats that share most field names with some, the nearest first."""
    there = set(fields)
    shares = [(len(there.intersection(each.fields)) / len(each.fields), each) for each in FORMATS if each.fields]
    near = sorted((pair for pair in shares if pair[0] > 0), key=lambda pair: -pair[0])
    return [each for _, each in near[:_SHOWN_FORMATS]]
