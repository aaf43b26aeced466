"""Keeps events on a broker: an event is acknowledged once the broker has acknowledged it.

Requests put their rows into a bounded queue. One sender thread takes everything that waits, packs it into as few
messages as it can, publishes them, and only then resolves the requests' futures. While the broker fails, nothing is
queued: requests are refused at once (503) and the sender asks every second whether the broker is back.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from flywheel_assets.capture.brokers.broker import Producer
from flywheel_assets.capture.brokers.messages import compute_raw_bytes, pack_rows, split_rows
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.backlog import Backlog
from flywheel_assets.errors import BrokerUnavailableError, LogWriteError, SettingsError

log = logging.getLogger(__name__)

_GROUP_BYTES = 8 * 2**20


@dataclass(frozen=True)
class BrokerLimits:
    """Limits the events that wait for the broker, and sets how often a failing broker is asked again."""

    queue_events: int = 20_000
    queue_bytes: int = 256 * 2**20
    check_s: float = 1.0


@dataclass(frozen=True)
class _Waiting:
    """Holds the rows of one request on their way to the broker."""

    application: str
    rows: Sequence[LandedRow]
    size_bytes: int
    written: "Future[None]" = field(default_factory=Future)

    @property
    def events(self) -> int:
        """Return the number of rows."""
        return len(self.rows)


class BrokerLog:
    """Appends events to a broker; used from any thread or event loop."""

    def __init__(
        self,
        open_producer: Callable[[], Producer],
        payload_bytes: int,
        limits: BrokerLimits | None = None,
    ) -> None:
        """Prepare the log without connecting.

        Args:
            open_producer: makes the producer that the sender thread uses.
            payload_bytes: the largest message.
            limits: of the queue.
        """
        self._open_producer = open_producer
        self._row_bytes = compute_raw_bytes(payload_bytes)
        self._limits = limits or BrokerLimits()
        self._work = threading.Condition()
        self._queue = Backlog[_Waiting]("broker", self._limits.queue_events, self._limits.queue_bytes)
        self._is_open = False
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "BrokerLog":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def queued_events(self) -> int:
        """Return the number of events that wait for the broker."""
        return self._queue.events

    def start(self) -> None:
        """Take events. A broker that does not answer yet is asked again until it does.

        Raises:
            SettingsError: there is no such broker, queue or topic, or we may not use it.
        """
        producer = self._open_producer()
        try:
            self._problem = self._find_problem(producer)
        except SettingsError:
            producer.close()
            raise
        self._is_open = True
        self._thread = threading.Thread(target=self._run, args=(producer,), name="broker-sender", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the waiting events, and take nothing more."""
        with self._work:
            self._is_open = False
            self._work.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        """Return when the broker has acknowledged the rows.

        Raises:
            QueueFullError: too much waits already; nothing was taken.
            LogWriteError: the broker did not take them all; nothing may be acknowledged.
        """
        await asyncio.wrap_future(self.submit(application, rows))

    def submit(self, application: str, rows: Sequence[LandedRow]) -> "Future[None]":
        """Queue the rows; the future resolves when the broker has them, or fails with `LogWriteError`.

        Raises:
            QueueFullError: too much waits already. A request larger than the whole queue passes when nothing waits.
            LogWriteError: the log is closed, or the broker failed a moment ago.
        """
        waiting = _Waiting(application, rows, sum(len(row.line) for row in rows))
        with self._work:
            if not self._is_open:
                raise LogWriteError("the event log is closed: the service is shutting down")
            if self._problem is not None:
                raise LogWriteError(self._problem)
            self._queue.put(waiting)
            self._work.notify_all()
        return waiting.written

    def find_problem(self) -> str | None:
        """Return why nothing can be made durable right now; None when all is well.

        The sender notices when the problem is over.
        """
        if not self._is_open or self._thread is None or not self._thread.is_alive():
            return "the event log is closed"
        return self._problem

    # The sender thread -----------------------------------------------------------------------------------------

    def _run(self, producer: Producer) -> None:
        while True:
            group, is_last = self._take_group()
            if group:
                self._send(producer, group)
            if is_last:
                break
            if self._problem is not None and not group:
                self._ask_again(producer)
        producer.close()

    def _take_group(self) -> tuple[list[_Waiting], bool]:
        with self._work:
            if self._is_open and not self._queue:
                self._work.wait(None if self._problem is None else self._limits.check_s)
            group = self._queue.take(_GROUP_BYTES)
            return group, not self._is_open and not self._queue

    def _send(self, producer: Producer, group: list[_Waiting]) -> None:
        try:
            problems = self._publish(producer, group)
        except Exception as error:
            # The thread must survive unexpected errors: its requests fail instead of waiting for ever.
            log.exception("publishing failed")
            problems = dict.fromkeys(range(len(group)), f"{type(error).__name__} in the sender")
        if problems:
            self._fail(next(iter(problems.values())))
        for number, waiting in enumerate(group):
            if number in problems:
                waiting.written.set_exception(LogWriteError(f"{problems[number]}; nothing was acknowledged"))
            else:
                waiting.written.set_result(None)

    def _publish(self, producer: Producer, group: list[_Waiting]) -> dict[int, str]:
        """Publish a group; return the problems, by the number of the request in its group."""
        senders: dict[str, list[int]] = {}
        for number, waiting in enumerate(group):
            senders.setdefault(waiting.application, []).append(number)
        messages: list[bytes] = []
        owners: list[set[int]] = []
        for application, numbers in senders.items():
            rows = [row for number in numbers for row in group[number].rows]
            owner_of_row = [number for number in numbers for _ in group[number].rows]
            packed = 0
            for run in split_rows(rows, self._row_bytes):
                messages.append(pack_rows(application, run))
                owners.append(set(owner_of_row[packed : packed + len(run)]))
                packed += len(run)
        problems: dict[int, str] = {}
        for problem, numbers_of_message in zip(producer.publish(messages), owners, strict=True):
            if problem is not None:
                problems |= dict.fromkeys(numbers_of_message, problem)
        return problems

    def _ask_again(self, producer: Producer) -> None:
        try:
            problem = self._find_problem(producer)
        except SettingsError as error:
            problem = str(error)
        if problem is None:
            log.info("the broker answers again")
        with self._work:
            self._problem = problem

    def _find_problem(self, producer: Producer) -> str | None:
        try:
            producer.check()
        except BrokerUnavailableError as error:
            log.warning("%s", error)
            return str(error)
        return None

    def _fail(self, problem: str) -> None:
        """Refuse waiting and new requests until the broker answers again: each try may take its whole timeout."""
        log.error("%s", problem)
        with self._work:
            self._problem = problem
            refused = self._queue.take()
        for waiting in refused:
            waiting.written.set_exception(LogWriteError(f"{problem}; nothing was acknowledged"))
