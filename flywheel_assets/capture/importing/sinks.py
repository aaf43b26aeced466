"""Takes landed rows: into the event log in bounded batches, onto their own days, or nowhere, for a look before."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import date
from typing import Protocol

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.history import HistoryLog, Published, find_day, has_own_time
from flywheel_assets.capture.log.segments import SegmentLog

_BATCH_ROWS = 1000
_BATCH_BYTES = 4 * 2**20
_BATCHES_IN_FLIGHT = 4


class RowSink(Protocol):
    """Takes the rows of accepted events in their order."""

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take the rows of one event; it may wait until there is room."""

    def finish(self) -> None:
        """Return when all rows are durable."""


class LogSink:
    """Sends rows to the log in batches, bounded in number and in bytes, however large the file is."""

    def __init__(self, event_log: SegmentLog, application: str) -> None:
        self._event_log = event_log
        self._application = application
        self._rows: list[LandedRow] = []
        self._size_bytes = 0
        self._in_flight: deque[Future[None]] = deque()

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take the rows of one event."""
        for row in rows:
            self._rows.append(row)
            self._size_bytes += len(row.line)
        if len(self._rows) >= _BATCH_ROWS or self._size_bytes >= _BATCH_BYTES:
            self._send()

    def finish(self) -> None:
        """Return when all rows are durable."""
        self._send()
        while self._in_flight:
            self._in_flight.popleft().result()

    def _send(self) -> None:
        if self._rows:
            while len(self._in_flight) >= _BATCHES_IN_FLIGHT:
                self._in_flight.popleft().result()
            self._in_flight.append(self._event_log.submit(self._application, self._rows))
            self._rows, self._size_bytes = [], 0


class HistorySink:
    """Lands rows on the days on which they happened, all at the end."""

    def __init__(self, history: HistoryLog) -> None:
        self._history = history
        self.published: Published | None = None
        """The days that have changed, once `finish` has returned."""

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take the rows of one event."""
        self._history.add(rows)

    def finish(self) -> None:
        """Return when every row is on its day."""
        self.published = self._history.publish()


class FirstRows:
    """Keeps the first rows and lands nothing; as history it also finds the days that would receive rows."""

    def __init__(self, most: int = 3, as_history: bool = False) -> None:
        self.rows: list[LandedRow] = []
        self.days: set[date] = set()
        """UTC days of rows that say when they happened, where `as_history`."""
        self.timeless = 0
        """Rows without a time of their own, which would land on today, where `as_history`."""
        self._most = most
        self._as_history = as_history

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Keep the rows of one event while there is room."""
        if self._as_history:
            rows = list(rows)
            for row in rows:
                if has_own_time(row):
                    self.days.add(find_day(row))
                else:
                    self.timeless += 1
        if len(self.rows) < self._most:
            self.rows.extend(list(rows)[: self._most - len(self.rows)])

    def finish(self) -> None:
        """Do nothing: nothing was to be landed."""
