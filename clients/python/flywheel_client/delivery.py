"""Delivers events to capture: a bounded buffer, one background thread, batches, retries with full jitter.

The caller only appends to a list under a lock that is never held over encoding or input and output. What cannot be
delivered is counted under the reason, never raised. Delivering twice is harmless: every event carries its own id.

`http.client`, `ssl`, `email` and `random` take longer to import than all the rest together: the thread imports them
when it first needs them.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Protocol
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

log = logging.getLogger("flywheel")

RETRYABLE = frozenset({408, 429, 502, 503, 504})
"""Nothing was acknowledged and the same request may succeed later. Everything else would only be refused again."""
_ANSWER_BYTES = 4 * 2**20
_SECONDS_BETWEEN_WARNINGS = 60.0

Event = dict[str, Any]


@dataclass(frozen=True)
class DeliveryLimits:
    """Limits the waiting events, the size of a request, and the times."""

    buffer_events: int = 10_000
    buffer_characters: int = 32 * 2**20
    """Of text, before encoding."""
    batch_events: int = 200
    batch_bytes: int = 2**20
    event_bytes: int = 4 * 2**20
    linger_s: float = 0.5
    """An event waits this long for others to share its request."""
    timeout_s: float = 10.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0


@dataclass(frozen=True)
class DeliveryCounts:
    """Counts the offered events by result; all but `accepted`, `waiting` and `retries` are drops."""

    accepted: int = 0
    waiting: int = 0
    retries: int = 0
    """Requests, not events."""
    buffer_full: int = 0
    refused: int = 0
    """By capture, for good."""
    invalid: int = 0
    """Cannot be encoded as JSON, or larger than one event may be."""
    closed: int = 0
    """Offered to a closed client, or still waiting when closing took too long."""

    @property
    def dropped(self) -> int:
        """Return the number of events that will never arrive."""
        return self.buffer_full + self.refused + self.invalid + self.closed


@dataclass(frozen=True)
class Answer:
    """Holds capture's answer to one request."""

    status: int
    body: bytes = b""
    retry_after_s: float = 0.0


class Transport(Protocol):
    """Carries one request to capture."""

    def post(self, body: bytes) -> Answer:
        """Send one batch; raise `OSError` when there is no answer."""

    def close(self) -> None:
        """Close the connection."""


class HttpTransport:
    """Keeps one HTTP connection alive, for one thread; it follows no redirects and reads no proxy settings."""

    def __init__(self, url: str, application: str, key: str | None = None, timeout_s: float = 10.0) -> None:
        """Prepare the transport without connecting.

        Raises:
            ValueError: `url` is no http(s) URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"capture's url is {url!r}; valid: http://HOST:PORT or https://HOST, for instance http://127.0.0.1:8700"
            )
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/v1/{quote(application, safe='')}/events"
        self._headers = {"Content-Type": "application/cloudevents-batch+json", "User-Agent": "flywheel-client/1"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout_s = timeout_s
        self._connection: HTTPConnection | None = None

    def post(self, body: bytes) -> Answer:
        """Send one batch.

        Raises:
            OSError: no answer; the connection is given up.
        """
        from http.client import HTTPException

        was_used = self._connection is not None
        try:
            return self._exchange(body)
        except (OSError, HTTPException) as error:
            self.close()
            # A server may close an idle connection at any time; that says nothing about a new one.
            if not was_used:
                raise OSError(str(error) or type(error).__name__) from error
        try:
            return self._exchange(body)
        except (OSError, HTTPException) as error:
            self.close()
            raise OSError(str(error) or type(error).__name__) from error

    def close(self) -> None:
        """Close the connection; the next `post` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, body: bytes) -> Answer:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        content = response.read(_ANSWER_BYTES)
        if not response.isclosed():
            self.close()
        return Answer(response.status, content, _seconds(response.headers.get("Retry-After", "")))

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        if self._is_tls:
            import ssl

            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout_s)


class Delivery:
    """Holds the buffer, and the thread that empties it; safe to use from any thread, and again in a forked child."""

    def __init__(
        self,
        transport: Transport,
        limits: DeliveryLimits,
        jitter: Callable[[float], float] | None = None,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._jitter = jitter or _full_jitter
        self._last_warning = float("-inf")
        self._start_empty()
        # A forked worker shares neither the thread nor, safely, the lock; the parent delivers the waiting events.
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=_restart(weakref.ref(self)))

    def _start_empty(self) -> None:
        self._work = threading.Condition()
        self._buffer: deque[tuple[Event, int]] = deque()
        self._buffered_characters = 0
        self._in_flight = 0
        self._counts = DeliveryCounts()
        self._thread: threading.Thread | None = None
        self._is_hurried = False
        self._closing_at: float | None = None
        self._is_abandoned = False

    def offer(self, event: Event, characters: int) -> bool:
        """Take the event, or drop and count it; return at once.

        Args:
            event: a CloudEvent whose `data` holds JSON values; must not change afterwards.
            characters: roughly how much text it holds.
        """
        limits = self._limits
        with self._work:
            if self._closing_at is not None:
                self._count(closed=1)
                return False
            is_full = len(self._buffer) >= limits.buffer_events
            if is_full or (self._buffer and self._buffered_characters + characters > limits.buffer_characters):
                self._count(buffer_full=1)
                return False
            self._buffer.append((event, characters))
            self._buffered_characters += characters
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flywheel-client", daemon=True)
                self._thread.start()
            elif len(self._buffer) in (1, limits.batch_events):
                self._work.notify_all()
            return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered so far was answered; False when that takes longer."""
        with self._work:
            self._is_hurried = True
            self._work.notify_all()
            is_empty = self._work.wait_for(lambda: not self._buffer and not self._in_flight, timeout_s)
            self._is_hurried = False
            return is_empty

    def close(self, timeout_s: float) -> None:
        """Deliver the waiting events for at most this long, count the rest as dropped, and take nothing more."""
        with self._work:
            if self._closing_at is None:
                self._closing_at = time.monotonic() + timeout_s
            self._work.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        with self._work:
            left = len(self._buffer) + self._in_flight
            self._buffer.clear()
            self._is_abandoned = True
            if left:
                self._in_flight = 0
                self._count(closed=left)
                log.warning("flywheel: %d events could not be delivered before the client was closed", left)

    def counts(self) -> DeliveryCounts:
        """Return the counts of the events so far."""
        with self._work:
            return replace(self._counts, waiting=len(self._buffer) + self._in_flight)

    # The background thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._deliver(batch)
            except Exception as error:
                # The thread must survive unexpected errors. The log leaves out the message, which may quote an event.
                self._settle(len(batch), invalid=len(batch))
                self._warn("a batch was dropped: %s", type(error).__name__)
        self._transport.close()

    def _next_batch(self) -> list[bytes]:
        """Return the encoded events of the next request; empty when the client is closed and nothing waits."""
        while True:
            events = self._take()
            if not events:
                return []
            batch = []
            for event in events:
                # This releases the interpreter's lock: encoding a whole batch would delay the product by 5 ms.
                time.sleep(0)
                try:
                    line = json.dumps(event, separators=(",", ":"), allow_nan=False).encode("ascii")
                except (TypeError, ValueError, RecursionError) as error:
                    self._settle(1, invalid=1)
                    self._warn("an event is no JSON value: %s", type(error).__name__)
                    continue
                if len(line) > self._limits.event_bytes:
                    self._settle(1, invalid=1)
                    self._warn("an event has %d bytes, more than one may have", len(line))
                    continue
                batch.append(line)
            if batch:
                return batch

    def _take(self) -> list[Event]:
        limits = self._limits
        with self._work:
            self._work.wait_for(lambda: self._buffer or self._closing_at is not None)
            self._work.wait_for(
                lambda: len(self._buffer) >= limits.batch_events or self._is_hurried or self._closing_at is not None,
                limits.linger_s,
            )
            taken: list[Event] = []
            if self._is_out_of_time():
                return taken  # `close` counts the buffer and what is still in flight
            characters_taken = 0
            while self._buffer and len(taken) < limits.batch_events:
                event, characters = self._buffer[0]
                if taken and characters_taken + characters > limits.batch_bytes:
                    break
                self._buffer.popleft()
                self._buffered_characters -= characters
                characters_taken += characters
                taken.append(event)
            self._in_flight = len(taken)
            return taken

    def _deliver(self, batch: Sequence[bytes]) -> None:
        attempt = 0
        while True:
            answer = self._post(batch)
            if answer is not None and answer.status not in RETRYABLE:
                self._conclude(batch, answer)
                return
            pause_s = answer.retry_after_s if answer is not None else 0.0
            pause_s += self._jitter(
                min(self._limits.longest_pause_s, self._limits.first_pause_s * 2 ** min(attempt, 16))
            )
            attempt += 1
            with self._work:
                self._count(retries=1)
                until = time.monotonic() + pause_s
                while (left_s := self._seconds_left(until)) > 0:
                    self._work.wait(left_s)
                if self._is_out_of_time():
                    return  # `close` counts what is in flight

    def _post(self, batch: Sequence[bytes]) -> Answer | None:
        try:
            answer = self._transport.post(b"[" + b",".join(batch) + b"]")
        except OSError as error:
            self._warn("capture does not answer (%s); events wait and are sent again", error)
            return None
        if answer.status in RETRYABLE:
            self._warn("capture answered %d; events wait and are sent again", answer.status)
        return answer

    def _conclude(self, batch: Sequence[bytes], answer: Answer) -> None:
        if answer.status == 413 and len(batch) > 1:
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            self._deliver(batch[middle:])
            return
        refused = _refused(answer, len(batch))
        self._settle(len(batch), accepted=len(batch) - len(refused), refused=len(refused))
        if refused:
            self._warn("capture refused %d events (status %d): %s", len(refused), answer.status, refused[0])

    def _seconds_left(self, until: float) -> float:
        end = until if self._closing_at is None else min(until, self._closing_at)
        return end - time.monotonic()

    def _is_out_of_time(self) -> bool:
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _settle(self, events: int, **counted: int) -> None:
        with self._work:
            if self._is_abandoned:
                return  # `close` has counted these events already
            self._in_flight -= events
            self._count(**counted)
            self._work.notify_all()

    def _count(self, **more: int) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})

    def _warn(self, message: str, *details: object) -> None:
        now = time.monotonic()
        if now - self._last_warning >= _SECONDS_BETWEEN_WARNINGS:
            self._last_warning = now
            log.warning("flywheel: " + message, *details)


def _restart(reference: weakref.ref[Delivery]) -> Callable[[], None]:
    def restart() -> None:
        delivery = reference()
        if delivery is not None:
            delivery._transport.close()
            delivery._start_empty()

    return restart


def _full_jitter(most_s: float) -> float:
    from random import uniform

    return uniform(0.0, most_s)


def _refused(answer: Answer, events: int) -> list[str]:
    """List one sentence per event of the request that capture will never take."""
    body = _json_object(answer.body)
    results = body.get("results")
    if isinstance(results, list):
        refused = [result for result in results if isinstance(result, dict) and result.get("status") == "refused"]
        return [str(result.get("error", ""))[:300] for result in refused]
    if answer.status // 100 == 2:
        return []
    return [str(body.get("error", ""))[:300]] * events


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(retry_after: str) -> float:
    """Read a `Retry-After` header as seconds from now; 0 when it cannot be read."""
    from email.utils import parsedate_to_datetime

    value = retry_after.strip()
    if value.isdecimal():
        return float(min(int(value[:9]), 3600))
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), 3600.0)
    except (TypeError, ValueError):
        return 0.0
