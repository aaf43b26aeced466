"""Lands the events of systems that are asked for them, instead of sending them.

A reading lists all traces of a window of days, and reads those whose state it has not landed. What it has landed stands
in a small SQLite file, written after the rows are durable: a reading that is killed in between lands its page again,
and the ids of the events make that harmless. A lost file costs one reading of everything.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from flywheel_assets.capture.clock import Clock
from flywheel_assets.capture.events.texts import DecodedEvent, Reception, land_events
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Format
from flywheel_assets.formats.record import Record
from flywheel_assets.lake.landing.disk import EventKind

_LOCK_TIMEOUT_S = 60.0
_LISTED_REFUSALS = 20


class TraceState(Protocol):
    """Identifies what a system knows of one trace now."""

    @property
    def trace_id(self) -> str:
        """The id in that system."""

    @property
    def began_at(self) -> datetime:
        """The time of its beginning, UTC."""

    @property
    def fingerprint(self) -> str:
        """Changes when the trace, or what is said about it, changes."""

    @property
    def is_finished(self) -> bool:
        """Tells a trace with its answer from one in progress."""


class TraceHistory(Protocol):
    """Lists and reads the traces of one system; raises `SourceUnavailableError` where that does not answer."""

    def list_pages(self, since: datetime) -> Iterator[Sequence[TraceState]]:
        """List the traces that began at `since` or later, oldest first."""

    def read(self, trace_ids: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
        """Read whole traces; None: it is not complete yet."""


@dataclass(frozen=True)
class Window:
    """Sets which traces a reading looks at."""

    first: datetime
    """No trace that began earlier is read."""
    reread: timedelta
    """Traces that began within this time before the last complete reading are looked at again."""
    max_traces: int
    """New and changed ones at most."""


@dataclass
class Polled:
    """Counts one reading."""

    listed: int = 0
    """Traces in the window."""
    read: int = 0
    """New or changed ones among them that were read."""
    predictions: int = 0
    feedback: int = 0
    without_events: int = 0
    """Traces that say nothing of use, for instance without an answer."""
    incomplete: int = 0
    """Traces in progress, or whose spans are not there yet; the next reading looks again."""
    refused: list[str] = field(default_factory=list)
    """Ids of traces that cannot be used, the first 20; their reasons may quote texts."""
    refused_traces: int = 0
    is_complete: bool = False
    """Whether the whole window was read; the next reading goes on otherwise."""


def poll_traces(
    history: TraceHistory,
    form: Format,
    application: str,
    event_log: SegmentLog,
    memory_file: Path,
    window: Window,
    clock: Clock,
) -> Polled:
    """Land the events of all traces that are new, or changed, since the last reading.

    They land under the format's name as their source. When this returns, the rows are durable and remembered.

    Args:
        history: the system.
        form: converts its traces.
        application: whose events these are.
        event_log: makes them durable; it is open.
        memory_file: remembers what was landed; one reading at a time uses it, another one waits for a minute.
        window: which traces are looked at.
        clock: returns the time of receipt, UTC.

    Raises:
        SourceUnavailableError: the system does not answer; pages before that are durable.
        EventLogError: the disk refused; pages before that are durable.
        TimeoutError: another reading holds the memory for longer than a minute.
    """
    memory_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{memory_file}.lock", timeout=_LOCK_TIMEOUT_S), closing(_Memory(memory_file)) as memory:
        began_at, polled = clock(), Polled()
        since = memory.find_start(window)
        for page in history.list_pages(since):
            polled.listed += len(page)
            left = window.max_traces - polled.read
            changed = [state for state in page if state.is_finished and not memory.has_landed(state)]
            polled.incomplete += sum(not state.is_finished for state in page)
            _land_page(changed[:left], history, form, application, event_log, memory, clock, polled)
            if len(changed) > left:
                return polled
        memory.finish(began_at, window.first, since)
        polled.is_complete = True
    return polled


def _land_page(
    states: Sequence[TraceState],
    history: TraceHistory,
    form: Format,
    application: str,
    event_log: SegmentLog,
    memory: "_Memory",
    clock: Clock,
    polled: Polled,
) -> None:
    reception = Reception(application, clock())
    by_id = {state.trace_id: state for state in states}
    done: list[TraceState] = []
    events: list[DecodedEvent] = []
    for trace_id, trace in history.read(list(by_id)):
        if trace is None:
            polled.incomplete += 1
            continue
        polled.read += 1
        done.append(by_id[trace_id])
        try:
            found = land_events(form.convert(Record(trace)), reception, form.name)
        except InvalidEventError:
            polled.refused_traces += 1
            if len(polled.refused) < _LISTED_REFUSALS:
                polled.refused.append(trace_id)
        else:
            polled.without_events += not found
            events.extend(found)
    rows = [row for event in events for row in event.rows]
    if rows:
        event_log.submit(application, rows).result()
    memory.note(done)
    polled.predictions += sum(row.kind is EventKind.PREDICTION for row in rows)
    polled.feedback += sum(row.kind is EventKind.FEEDBACK for row in rows)


class _Memory:
    """Remembers in which state each trace of the window was landed, and when the window was last read completely."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS landed (trace_id TEXT PRIMARY KEY, began_at REAL, fingerprint TEXT);"
            "CREATE TABLE IF NOT EXISTS complete (read_at REAL, first REAL);"
        )

    def close(self) -> None:
        self._database.close()

    def has_landed(self, state: TraceState) -> bool:
        found = self._database.execute("SELECT fingerprint FROM landed WHERE trace_id = ?", [state.trace_id]).fetchone()
        return found is not None and found[0] == state.fingerprint

    def find_start(self, window: Window) -> datetime:
        """Return from when on traces are listed: all of them first, and after the window was moved back."""
        found = self._database.execute("SELECT read_at, first FROM complete").fetchone()
        if found is None or window.first.timestamp() < found[1]:
            return window.first
        return max(window.first, datetime.fromtimestamp(found[0], UTC) - window.reread)

    def note(self, states: Sequence[TraceState]) -> None:
        rows = [(state.trace_id, state.began_at.timestamp(), state.fingerprint) for state in states]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?, ?)", rows)

    def finish(self, read_at: datetime, first: datetime, since: datetime) -> None:
        """Remember a complete reading, and forget the traces before its window, which only moves on."""
        with self._database:
            self._database.execute("DELETE FROM complete")
            self._database.execute("INSERT INTO complete VALUES (?, ?)", [read_at.timestamp(), first.timestamp()])
            self._database.execute("DELETE FROM landed WHERE began_at < ?", [since.timestamp()])
