"""Queues requests for a disk or a broker, bounded by events and bytes, taken in groups."""

from collections import deque
from math import inf
from typing import Generic, Protocol, TypeVar

from flywheel_assets.errors import QueueFullError


class Settled(Protocol):
    """Describes the part of a future that a backlog uses."""

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether a caller still waits; it cannot cancel any more after that."""


class Waiting(Protocol):
    """Describes the rows of one request."""

    @property
    def events(self) -> int:
        """Return the number of rows."""

    @property
    def size_bytes(self) -> int:
        """Return the bytes of their lines."""

    @property
    def written(self) -> Settled:
        """Resolves when the rows are durable."""


W = TypeVar("W", bound=Waiting)


class Backlog(Generic[W]):
    """Holds a bounded queue of requests.

    The caller holds the lock that its thread waits on; reading counts needs none.
    """

    def __init__(self, awaited: str, most_events: int, most_bytes: int) -> None:
        """Start empty.

        Args:
            awaited: names the disk or the broker in the error's text.
            most_events: rows of all requests together.
            most_bytes: of their lines.
        """
        self._awaited = awaited
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._requests: deque[W] = deque()
        self.events = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._requests)

    def put(self, request: W) -> None:
        """Let a request wait; one that is larger than the whole backlog passes when nothing else waits.

        Raises:
            QueueFullError: too much waits already.
        """
        events, size_bytes = self.events + request.events, self.size_bytes + request.size_bytes
        if self._requests and (events > self._most_events or size_bytes > self._most_bytes):
            raise QueueFullError(
                f"{self.events} events ({self.size_bytes} bytes) wait for the {self._awaited}; the queue holds "
                f"{self._most_events} events and {self._most_bytes} bytes"
            )
        self._requests.append(request)
        self.events, self.size_bytes = events, size_bytes

    def take(self, group_bytes: float = inf) -> list[W]:
        """Take the oldest requests that a caller still waits for, up to `group_bytes`; the last may exceed it."""
        group: list[W] = []
        taken = 0
        while self._requests and taken < group_bytes:
            request = self._requests.popleft()
            self.events -= request.events
            self.size_bytes -= request.size_bytes
            if request.written.set_running_or_notify_cancel():
                group.append(request)
                taken += request.size_bytes
        return group
