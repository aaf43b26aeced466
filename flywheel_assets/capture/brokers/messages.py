"""Packs landed rows into messages: many rows of one application, compressed, byte for byte.

One message is zlib over `{"version": 1, "application": …, "prediction": […], "feedback": […]}`. SQS charges and limits
by message, so that small rows share one; a row is never split.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.lake.landing.disk import EventKind

_VERSION = 1
_OVERHEAD_BYTES = 512
"""Of the envelope, and of zlib over what does not compress."""
_LARGEST_INFLATED_BYTES = 64 * 2**20
# It becomes a folder's name.
_APPLICATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


class UnreadableMessageError(ValueError):
    """Reports a message that is not one of this project; the text says why, without quoting it."""


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    application: str
    prediction: list[msgspec.Raw] = []
    feedback: list[msgspec.Raw] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Content)


@dataclass(frozen=True)
class UnpackedMessage:
    """Holds the content of one message."""

    application: str
    rows: tuple[LandedRow, ...]


def compute_raw_bytes(message_bytes: int) -> int:
    """Compute how many bytes of rows always fit into a message of this size, however badly they compress."""
    # zlib stores what it cannot compress in blocks of 16 KiB with five bytes each.
    return message_bytes - message_bytes // 2048 - _OVERHEAD_BYTES


def compute_largest_event_bytes(message_bytes: int) -> int:
    """Compute the largest element whose rows surely fit into messages of this size, one row in each.

    A conversation is stored as JSON in a text, which doubles its quotation marks and backslashes; a kilobyte is for
    the columns that capture adds.
    """
    return (compute_raw_bytes(message_bytes) - 1024) // 2


def split_rows(rows: Sequence[LandedRow], largest_bytes: int) -> Iterator[list[LandedRow]]:
    """Split rows into runs that fit into one message each; a larger row is a run of its own."""
    run: list[LandedRow] = []
    size = 0
    for row in rows:
        if run and size + len(row.line) > largest_bytes:
            yield run
            run, size = [], 0
        run.append(row)
        size += len(row.line)
    if run:
        yield run


def pack_rows(application: str, rows: Iterable[LandedRow]) -> bytes:
    """Pack rows into one message."""
    lines: dict[EventKind, list[msgspec.Raw]] = {kind: [] for kind in EventKind}
    for row in rows:
        lines[row.kind].append(msgspec.Raw(row.line.rstrip(b"\n")))
    content = _Content(_VERSION, application, lines[EventKind.PREDICTION], lines[EventKind.FEEDBACK])
    return zlib.compress(_encoder.encode(content), 1)


def unpack_message(message: bytes) -> UnpackedMessage:
    """Return the rows of a message, as they were packed.

    Raises:
        UnreadableMessageError: it is none of ours.
    """
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(message, _LARGEST_INFLATED_BYTES)
    except zlib.error:
        raise UnreadableMessageError("not compressed by zlib") from None
    if not inflater.eof:
        raise UnreadableMessageError("cut off, or larger than any message of ours")
    try:
        content = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableMessageError("not the JSON of a message of ours") from None
    if content.version != _VERSION:
        raise UnreadableMessageError(f"version {content.version}; known: {_VERSION}")
    if not _APPLICATION.fullmatch(content.application):
        raise UnreadableMessageError("its application is no name")
    by_kind = {EventKind.PREDICTION: content.prediction, EventKind.FEEDBACK: content.feedback}
    rows = tuple(LandedRow(kind, bytes(line) + b"\n") for kind, lines in by_kind.items() for line in lines)
    if any(b"\n" in row.line[:-1] for row in rows):
        raise UnreadableMessageError("an event of it has several lines")
    return UnpackedMessage(content.application, rows)
