"""Chooses how the records of a source become events.

By a format's name, by detection among all formats, or by a mapping of fields.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flywheel_assets.errors import InvalidEventError, UnknownNameError
from flywheel_assets.formats import own
from flywheel_assets.formats.catalog import AUTO, FORMATS, describe_unknown, detect_format
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.reading.entries import Entry, decode_object
from flywheel_assets.formats.record import Record

SAMPLE_RECORDS = 200


class FieldMap(Protocol):
    """Turns records into events by the names of their fields, as a person gave them."""

    def check_columns(self, sample: Iterable[Record], /) -> None:
        """Check that the first records of a source have the fields.

        Raises:
            InvalidRuleError: a field is in none of them.
        """

    def convert(self, record: Record, /) -> Sequence[Event]:
        """Turn one record into events.

        Raises:
            InvalidEventError: the record cannot be used.
        """


@dataclass(frozen=True)
class Conversion:
    """Turns the entries of one source into events."""

    name: str
    """Of the format; `map` for a mapping of fields."""
    title: str
    convert: Callable[[bytes | dict[str, Any]], Sequence[Event]]
    """Raises `InvalidEventError`."""
    has_global_ids: bool
    read: Callable[[Record], Sequence[Event]]
    """Does the same with a record that remembers which of its fields were read."""


def list_formats() -> tuple[Format, ...]:
    """List every format, our own first."""
    return (own.OWN, *FORMATS)


def is_record(values: Mapping[str, Any]) -> bool:
    """Return whether any format knows an object as a record of its own."""
    record = Record(values)
    return any(each.matches(record) for each in list_formats())


def choose_conversion(
    sample: Sequence[Entry], name: str, choice: str = AUTO, mapping: FieldMap | None = None
) -> Conversion:
    """Choose the conversion for a source of that name, of which these are the first records.

    Raises:
        UnknownNameError: no format has the chosen name.
        InvalidRuleError: a field of the mapping is in none of the records.
        InvalidEventError: no format knows these records; the message lists their fields and what helps.
    """
    if mapping is not None:
        mapping.check_columns(map(Record, decode_sample(sample)))
        read = _contain("map", mapping.convert)
        return Conversion("map", "fields by --map", _convert_by(read), False, read)
    if choice != AUTO:
        found = next((each for each in list_formats() if each.name == choice), None)
        if found is None:
            raise UnknownNameError("format", choice, [AUTO, *(each.name for each in list_formats())])
        return _build_conversion(found)
    values = list(decode_sample(sample))
    counted = [Record(each) for each in values]
    own_count = sum(map(own.OWN.matches, counted))
    detected = detect_format(counted)
    if own_count and (detected is None or own_count >= sum(map(detected.matches, counted))):
        return _build_conversion(own.OWN)
    if detected is not None:
        return _build_conversion(detected)
    if any(map(own.is_nearly, values)) or not values:
        return _build_conversion(own.OWN)
    raise InvalidEventError(describe_unknown(counted, name))


def list_unread(sample: Sequence[Entry], conversion: Conversion) -> list[str]:
    """List the fields of the sampled records that become no part of an event, by dotted names."""
    used: set[tuple[str, ...]] = set()
    read = [Record(values, used) for values in decode_sample(sample)]
    for record in read:
        try:
            conversion.read(record)
        except InvalidEventError:
            continue
    return sorted({field for record in read for field in record.list_unread()})


def decode_sample(sample: Iterable[Entry]) -> Iterable[dict[str, Any]]:
    """Decode those of the sampled records that can be decoded."""
    for entry in sample:
        try:
            yield decode_object(entry.value) if isinstance(entry.value, bytes) else entry.value
        except InvalidEventError:
            continue


def _build_conversion(chosen: Format) -> Conversion:
    read = _contain(chosen.name, chosen.convert)
    convert = own.convert_entry if chosen is own.OWN else _convert_by(read)
    return Conversion(chosen.name, chosen.title, convert, chosen.has_global_ids, read)


def _contain(name: str, read: Callable[[Record], Sequence[Event]]) -> Callable[[Record], Sequence[Event]]:
    """Make a fault of a format, on a shape that its author did not foresee, cost only the record."""

    def read_contained(record: Record) -> Sequence[Event]:
        try:
            return read(record)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidEventError(
                f"the format {name} cannot read this shape of its records; please report it: "
                f"{type(error).__name__}: {str(error)[:200]}"
            ) from error

    return read_contained


def _convert_by(read: Callable[[Record], Sequence[Event]]) -> Callable[[bytes | dict[str, Any]], Sequence[Event]]:
    # What was read is of no interest here: one set for all records costs nothing.
    used: set[tuple[str, ...]] = set()

    def convert(value: bytes | dict[str, Any]) -> Sequence[Event]:
        return read(Record(decode_object(value) if isinstance(value, bytes) else value, used))

    return convert
