"""Imports existing telemetry from a file, through the same decoding and event log as HTTP.

- `.jsonl`, `.ndjson`: per line an edit (`prompt`, `original_llm_output`, `final_user_edit`), a pair (`prompt`,
  `chosen`, `rejected`: two answers, of which a person preferred one), each with the optional fields of an edit, or a
  CloudEvent. Prompts and answers are texts or messages, as over HTTP; an answer may also be a list of one message.
- `.tsv`: a header row that names such columns, then one edit or pair per line. Cells are taken literally: quotation
  marks have no meaning, because real texts are full of them. An empty optional cell is absent; an empty text is kept.

Every row gets the source `import:<file name>`, even where a line names another. Ids are the given ones or hashes of the
content, so importing a file twice lands duplicates that the lake drops. A bad line costs only itself.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.texts import (
    DecodedEvent,
    LandedRow,
    Reception,
    land_choice,
    land_cloud_event,
    land_edit,
)
from flywheel_assets.capture.log.history import HistoryLog
from flywheel_assets.capture.log.segments import SegmentLimits, SegmentLog
from flywheel_assets.errors import InvalidEventError, UnknownNameError
from flywheel_assets.records import IMPORT_PREFIX
from flywheel_assets.wire import Choice, CloudEvent, Edit, decode_strictly

LISTED_ERRORS = 100
EVENT_BYTES = 4 * 2**20
_BATCH_LINES = 1000
_BATCH_BYTES = 4 * 2**20
_BATCHES_IN_FLIGHT = 4

_SUFFIXES = (".jsonl", ".ndjson", ".tsv")
_EDIT_TEXTS = ("prompt", "original_llm_output", "final_user_edit")
_PAIR_TEXTS = ("prompt", "chosen", "rejected")
_OPTIONAL_COLUMNS = ("id", "user_id", "thread_id", "model_version", "do_not_train", "occurred_at")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class _Shape(msgspec.Struct, frozen=True):
    """Lists the fields from which a line's format is recognised."""

    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    chosen: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    rejected: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_shape_decoder = msgspec.json.Decoder(_Shape)
_edit_decoder = msgspec.json.Decoder(Edit)
_choice_decoder = msgspec.json.Decoder(Choice)
_cloud_event_decoder: msgspec.json.Decoder[CloudEvent] = msgspec.json.Decoder(CloudEvent)


@dataclass(frozen=True)
class LineError:
    """Explains why one line was refused; lines count from 1 and include the header."""

    line: int
    error: str


@dataclass(frozen=True)
class ImportResult:
    """Counts the lines of a file: lines = accepted + refused. It lists the first `LISTED_ERRORS` refusals."""

    lines: int
    accepted: int
    refused: int
    errors: tuple[LineError, ...]


@dataclass
class _Tally:
    accepted: int = 0
    refused: int = 0
    errors: list[LineError] = field(default_factory=list)

    def refuse(self, line: int, error: str) -> None:
        self.refused += 1
        if len(self.errors) < LISTED_ERRORS:
            self.errors.append(LineError(line, error))


@dataclass
class _Batches:
    """Sends rows to the log in batches, bounded in number and in bytes, however large the file is."""

    event_log: SegmentLog
    application: str
    rows: list[LandedRow] = field(default_factory=list)
    size_bytes: int = 0
    in_flight: "deque[Future[None]]" = field(default_factory=deque)

    def add(self, rows: tuple[LandedRow, ...]) -> None:
        self.rows.extend(rows)
        self.size_bytes += sum(len(row.line) for row in rows)
        if len(self.rows) >= _BATCH_LINES or self.size_bytes >= _BATCH_BYTES:
            self.send()

    def send(self) -> None:
        if self.rows:
            while len(self.in_flight) >= _BATCHES_IN_FLIGHT:
                self.in_flight.popleft().result()
            self.in_flight.append(self.event_log.submit(self.application, self.rows))
            self.rows, self.size_bytes = [], 0

    def finish(self) -> None:
        self.send()
        while self.in_flight:
            self.in_flight.popleft().result()


def import_file(
    path: Path,
    application: str,
    landing_root: Path,
    clock: Clock = read_clock,
    segment_limits: SegmentLimits | None = None,
    event_bytes: int = EVENT_BYTES,
    history: HistoryLog | None = None,
) -> ImportResult:
    """Land every good line of a JSONL or TSV file; when this returns they are published, unless they are `history`.

    Args:
        path: the file; its suffix names the format, its name becomes the source.
        application: whose events these are; a known name, the caller has checked it.
        landing_root: the landing zone.
        clock: when the events are received, and the default of when they occurred.
        segment_limits: of the event log that this call opens.
        event_bytes: a longer line is refused, and never held in memory.
        history: takes the lines in place of today's landing; the caller publishes it.

    Raises:
        UnknownNameError: the suffix is none of those read here.
        InvalidEventError: a TSV header does not name the columns.
        EventLogError: the disk refused; import again when it has room, what landed already is recognized.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UnknownNameError("file type", path.suffix, _SUFFIXES, "Rename or convert the file.")
    source = f"{IMPORT_PREFIX}{os.fsencode(path.name).decode(errors='replace')}"
    tally = _Tally()
    with open(path, "rb") as file:
        lines = _number_lines(file, event_bytes)
        convert_row = _build_tsv_reader(path, lines) if suffix == ".tsv" else bytes
        with SegmentLog(landing_root, segment_limits, clock) as event_log:
            batches = _Batches(event_log, application)
            reception = Reception(application, clock())
            for number, line in lines:
                reception = _receive_next(reception, clock())
                try:
                    if line is None:
                        raise InvalidEventError(f"the line is longer than {event_bytes} bytes")
                    event = decode_line(convert_row(line), reception, source)
                except InvalidEventError as error:
                    tally.refuse(number, str(error))
                else:
                    tally.accepted += 1
                    (batches if history is None else history).add(event.rows)
            batches.finish()
    return ImportResult(tally.accepted + tally.refused, tally.accepted, tally.refused, tuple(tally.errors))


def _receive_next(reception: Reception, now: datetime) -> Reception:
    """Return when the next line is received: later than the one before it, so that lines keep their order."""
    reception.advance()
    return reception if now <= reception.received_at else Reception(reception.application, now)


def decode_line(line: bytes, reception: Reception, source: str) -> DecodedEvent:
    """Decode one JSON line in any of the accepted formats.

    Raises:
        InvalidEventError: it cannot be accepted; the message says what is wrong.
    """
    shape = decode_strictly(line, _shape_decoder)
    if shape.specversion is not msgspec.UNSET:
        event = decode_strictly(line, _cloud_event_decoder)
        # Under one imported source, ids of different original sources must stay apart.
        return land_cloud_event(event, reception, source, partial(records.make_stable_id, event.source))
    if shape.chosen is not msgspec.UNSET or shape.rejected is not msgspec.UNSET:
        return land_choice(decode_strictly(line, _choice_decoder), reception, source)
    return land_edit(decode_strictly(line, _edit_decoder), reception, source)


def _number_lines(file: BinaryIO, event_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """List every line that is not blank, with its number, without its end. A line that is too long is None."""
    number = 0
    while line := file.readline(event_bytes + 1):
        number += 1
        is_too_long = len(line) > event_bytes and not line.endswith(b"\n")
        while is_too_long and line and not line.endswith(b"\n"):
            line = file.readline(event_bytes)
        content = line.rstrip(b"\r\n")
        if number == 1:
            content = content.removeprefix(b"\xef\xbb\xbf")
        if is_too_long:
            yield number, None
        elif content:
            yield number, content


def _build_tsv_reader(path: Path, lines: Iterator[tuple[int, bytes | None]]) -> Callable[[bytes], bytes]:
    """Read the header; return a function that converts a row into its JSON object."""
    _, header = next(lines, (0, b""))
    columns = (header or b"").decode("utf-8", "replace").split("\t")
    given = set(columns)
    texts = _PAIR_TEXTS if {"chosen", "rejected"} & given else _EDIT_TEXTS
    unknown = sorted(given - {*texts, *_OPTIONAL_COLUMNS})
    if unknown or not given.issuperset(texts) or len(given) != len(columns):
        problem = f"has the unknown columns {', '.join(unknown)[:200]}" if unknown else "lacks or repeats a column"
        raise InvalidEventError(
            f"the header of {path.name} {problem}; valid: {', '.join(_EDIT_TEXTS)}, or {', '.join(_PAIR_TEXTS)}, "
            f"and optionally {', '.join(_OPTIONAL_COLUMNS)}, separated by tabs"
        )

    def convert_row(line: bytes) -> bytes:
        cells = _decode_text(line).split("\t")
        if len(cells) != len(columns):
            raise InvalidEventError(f"the line has {len(cells)} cells; the header names {len(columns)}")
        row: dict[str, str | bool] = {
            column: cell for column, cell in zip(columns, cells, strict=True) if cell or column in texts
        }
        if "do_not_train" in row:
            row["do_not_train"] = _parse_truth(str(row["do_not_train"]))
        return msgspec.json.encode(row)

    return convert_row


def _decode_text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InvalidEventError(
            f"not valid UTF-8: byte 0x{line[error.start]:02x} at position {error.start} of the line; convert the file"
        ) from None


def _parse_truth(cell: str) -> bool:
    try:
        return _TRUTH[cell.strip().lower()]
    except KeyError:
        raise InvalidEventError(f"do_not_train is {cell[:20]!r}; valid: {', '.join(_TRUTH)}") from None
