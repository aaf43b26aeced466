"""Lands history on the days on which it happened: predictions by their time, feedback by when it became known.

Rows are spread over days on this machine's scratch disk first, in bounded memory: five years of two kinds are 3,652
files, and none stays open. `publish` then brings each day into landing, one after the other, while neither a daily step
nor an erasure nor another import is at work. It records the decision before the first day changes, so that no day
changes without an audit; the closing of each day says what came. If it is killed, every day is what it was or complete.

The same events may come again, from a repeated import, after a kill, or because capture had received them: what a day
holds already is left out, so that a repetition changes nothing.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.daily.history import HistoryImport, clear_killed_imports, record_history_import
from flywheel_assets.lake.landing.disk import EventKind, Revision
from flywheel_assets.lake.landing.protocol import Landing, LandingPlace
from flywheel_assets.lake.tables.decisions import make_decision_id
from flywheel_assets.lake.tables.lake import Lake

_SPILL_BYTES = 64 * 2**20
_SEGMENT_BYTES = 64 * 2**20
"""A day's history is cut into segments of this size; S3 hands over each as a whole."""
_LINE_BEGINS = b'{"event_id":"'
_EVENT_ID = slice(len(_LINE_BEGINS), len(_LINE_BEGINS) + 32)

_Key = tuple[EventKind, date]


class _Times(msgspec.Struct):
    """Lists the fields of a landed line that say when it was received, happened and became known."""

    received_at: datetime
    occurred_at: datetime
    known_at: datetime | None = None


_times_decoder = msgspec.json.Decoder(_Times)


@dataclass(frozen=True)
class Published:
    """Says what `HistoryLog.publish` has changed."""

    decision: str | None
    """Id of the decision; None: everything had landed before, and nothing was changed."""
    days: dict[EventKind, list[date]]
    """The days that have received events, by kind, ascending."""
    reopened: dict[EventKind, list[date]]
    """Those that had been closed before."""
    events: int
    """Rows that landed."""
    known: int
    """Rows that were left out because their day holds their event already."""
    first_day: date | None
    """The first day of all history now; None: there is none."""


@dataclass
class HistoryLog:
    """Collects rows of history and publishes them under their own days; use it as a context.

    Args:
        lake: the tables of the application whose events these are.
        landing: of all applications.
        scratch: a folder on this machine's disk for the rows that are not published yet.
        who: the person who decides that history comes in.
        reason: why.
        file: the name of the file, for the audit.
        clock: the time; no row lands behind its UTC day.
    """

    lake: Lake
    landing: LandingPlace
    scratch: Path
    who: str
    reason: str
    file: str
    clock: Clock = read_clock
    spill_bytes: int = _SPILL_BYTES
    _held: dict[_Key, list[bytes]] = field(default_factory=dict)
    _held_bytes: int = 0
    _spilled: set[_Key] = field(default_factory=set)
    _closing: ExitStack = field(default_factory=ExitStack)
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        """Check the decision.

        Raises:
            InvalidRuleError: the person or the reason is missing: a decision that cannot be audited is none.
        """
        if not self.who.strip() or not self.reason.strip():
            raise InvalidRuleError(
                f"history changes closed days, which is kept for the audit: it needs who decides and why, got "
                f"{self.who!r}, {self.reason!r}; give --who and --reason"
            )

    def __enter__(self) -> "HistoryLog":
        self.scratch.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.scratch)
        self._folder = Path(self._closing.enter_context(TemporaryDirectory(dir=self.scratch)))
        descriptor = os.open(self._folder, os.O_RDONLY)
        self._closing.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take rows; they are on no durable place before `publish`."""
        today = self.clock().astimezone(UTC).date()
        for row in rows:
            key = row.kind, min(find_day(row), today)
            self._held.setdefault(key, []).append(row.line)
            # An entry of a list costs more than the line where lines are short.
            self._held_bytes += len(row.line) + 64
        if self._held_bytes >= self.spill_bytes:
            self._spill()

    def publish(self) -> Published:
        """Bring every row into landing; return which days have changed.

        Raises:
            LandingRetiredError: retention removed the segments of a day that the history reaches; nothing was changed.
            OpenSegmentError: yesterday is about to close; repeat in some minutes.
            CommitContentionError: a daily step or an erasure was at work for ten minutes; repeat.
            LandingError: S3 does not answer; repeat, what has landed is recognized.
        """
        self._spill()
        lake, landing, application = self.lake, self.landing, self.lake.application
        zones = {kind: landing.open_zone(application, kind) for kind in EventKind}
        now = self.clock().astimezone(UTC)
        with lake.pause_daily_steps():
            clear_killed_imports(lake, landing)
            known, segments = 0, dict[_Key, list[Path]]()
            # By lot, since two imports may have one clock: a segment's name must never come twice.
            decision = make_decision_id(lake, "history", now.isoformat(), self.who, self.file, secrets.token_hex(8))
            prefix = f"{now:%Y%m%dT%H%M%S%f}Z-history-{decision}"
            for key in sorted(self._spilled):
                found, left_out = self._cut_segments(key, zones[key[0]], prefix)
                known += left_out
                if found:
                    segments[key] = found
            days = {kind: [day for other, day in segments if other is kind] for kind in EventKind}
            if not segments:
                return Published(None, days, days, 0, known, landing.read_first_day(application))
            events = sum(map(_count_lines, (path for paths in segments.values() for path in paths)))
            closed = {kind: [day for day in days[kind] if zones[kind].look(day).is_closed] for kind in EventKind}
            planned = HistoryImport(decision, now, self.who, self.reason, self.file, events, days, closed)
            record_history_import(lake, planned)
            landing.note_first_day(application, min(day for _, day in segments))
            revision = Revision(decision, now, self.who, self.reason)
            reopened: dict[EventKind, list[date]] = {kind: [] for kind in EventKind}
            for (kind, day), paths in segments.items():
                if zones[kind].add_history(day, paths, revision, self.clock().astimezone(UTC)):
                    reopened[kind].append(day)
        return Published(decision, days, reopened, events, known, landing.read_first_day(application))

    def _spill(self) -> None:
        for key, lines in self._held.items():
            with open(self._find_spill(key), "ab") as file:
                file.writelines(lines)
        self._spilled.update(self._held)
        self._held, self._held_bytes = {}, 0

    def _find_spill(self, key: _Key) -> Path:
        kind, day = key
        return self._folder / f"{kind.value}-{day.isoformat()}.spilled"

    def _cut_segments(self, key: _Key, zone: Landing, prefix: str) -> tuple[list[Path], int]:
        """Cut a day's rows into segments, without the events that the day holds; return them and how many those are."""
        kind, day = key
        there = self._read_event_ids(zone, day)
        spilled = self._find_spill(key)
        folder = self._folder / f"{kind.value}-{day.isoformat()}"
        folder.mkdir()
        found: list[Path] = []
        left_out = 0
        with open(spilled, "rb") as lines, ExitStack() as files:
            segment = None
            for line in lines:
                if there and line[_EVENT_ID] in there:
                    left_out += 1
                    continue
                if segment is None or segment.tell() >= _SEGMENT_BYTES:
                    found.append(folder / f"{prefix}-{len(found) + 1:06d}.jsonl")
                    segment = files.enter_context(open(found[-1], "wb"))
                segment.write(line)
        spilled.unlink()
        return found, left_out

    def _read_event_ids(self, zone: Landing, day: date) -> set[bytes]:
        landed = zone.look(day)
        if not landed.paths:
            return set()
        with zone.fetch(landed, self._folder / "landed") as paths:
            return set(_list_event_ids(paths))


def find_day(row: LandedRow) -> date:
    """Find the UTC day that a row belongs to: when feedback became known, else when it happened.

    A client that gave no time got the time of receipt: its row belongs to today.
    """
    times = _times_decoder.decode(row.line)
    known_at = times.known_at if row.kind is EventKind.FEEDBACK else None
    return (known_at or times.occurred_at).astimezone(UTC).date()


def has_own_time(row: LandedRow) -> bool:
    """Return whether the client said when a row happened or became known; else it has the time of its receipt."""
    times = _times_decoder.decode(row.line)
    return times.known_at is not None or times.occurred_at != times.received_at


def _list_event_ids(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with open(path, "rb") as lines:
            for line in lines:
                # A torn line is none that ingest reads: its event may come again.
                if line.startswith(_LINE_BEGINS) and line.endswith(b"}\n"):
                    yield line[_EVENT_ID]


def _count_lines(path: Path) -> int:
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)


def _remove_leftovers(scratch: Path) -> None:
    """Delete what killed imports have left: it holds people's texts. A living one holds a lock on its folder."""
    for folder in scratch.iterdir():
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
