"""Defines a numbered entry of a source, the options of reading, and how one JSON object is decoded."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading.quoting import Quoting
from flywheel_assets.wire import decode_strictly

LONGEST_BYTES = 64 * 2**20
"""Of one record. It is more than an event may have, because one record of a trace export holds many."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Holds one record of a source; numbers count from 1, in the unit of the reading."""

    number: int
    value: bytes | dict[str, Any]
    """One JSON object, not decoded yet, or the cells of a row by column."""


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """Explains why one entry of a source is no record; the others are not affected."""

    number: int
    problem: str


def _deny(_: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Says how a source is to be read, where it does not show that itself."""

    encoding: str | None = None
    """None: by the byte order mark, or else UTF-8."""
    delimiter: str | None = None
    """Of a table. None: the tab, semicolon or comma that its header shows."""
    quoting: Quoting | None = None
    """Of a table. None: as RFC 4180 has it, except where a table with tabs shows that its marks are literal."""
    escapes: bool = False
    r"""Whether `\n`, `\r`, `\t` and `\\` in cells of a table stand for other characters."""
    longest_bytes: int = LONGEST_BYTES
    r"""A longer record is refused and never held whole."""
    rows_at_once: int = 500
    """Rows of Parquet that are held at once. One short text in a dictionary may stand in every row: what bounds one row
    bounds this many."""
    is_record: Callable[[Mapping[str, Any]], bool] = _deny
    """Says whether an object is a record itself, although it holds a list of objects under a usual name."""


_decoder = msgspec.json.Decoder(dict[str, Any])
_CONSTANT = re.compile(rb"\b(?:NaN|Infinity)\b")
_PYTHON = re.compile(rb"\{\s*'|[:\[,]\s*(?:None|True|False)\s*[,}\]]")
PYTHON_SENTENCE = (
    "this is Python's own notation of a dict, not JSON; write each record with json.dumps(record), or a data frame "
    "with to_json(path, orient='records', lines=True)"
)


def decode_object(value: bytes) -> dict[str, Any]:
    """Decode one JSON object; a literal NaN or Infinity becomes null.

    Raises:
        InvalidEventError: it is none; the message says what is wrong and what helps.
    """
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_leniently(value)


def normalize_object(value: bytes) -> bytes:
    """Return one JSON object as strict JSON.

    Raises:
        InvalidEventError: it is none.
    """
    return msgspec.json.encode(decode_object(value))


def _decode_leniently(value: bytes) -> dict[str, Any]:
    if _CONSTANT.search(value):
        try:
            found = json.loads(value, parse_constant=lambda _: None)
            msgspec.json.encode(found)  # refuses lone surrogates
        except (ValueError, RecursionError, UnicodeError):
            pass
        else:
            if isinstance(found, dict):
                return found
    if _PYTHON.match(value) or _is_python(value):
        raise InvalidEventError(PYTHON_SENTENCE)
    try:
        decode_strictly(value, _decoder)
    except InvalidEventError as error:
        hint = ", or name its encoding with --encoding latin-1" if "not valid UTF-8" in str(error) else ""
        raise InvalidEventError(f"{error}{hint}") from None
    raise AssertionError("the decoder has refused this before")


def _is_python(value: bytes) -> bool:
    """Return whether Python's constants stand where JSON's would: `{"a": None}`."""
    return value[:1] == b"{" and _PYTHON.search(value) is not None
