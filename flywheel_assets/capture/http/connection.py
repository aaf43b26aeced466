"""Bounds the cost of connections: until a request reaches the service, while they are idle, and after an answer.

uvicorn reads headers without any limit of size or time, keeps any number of connections, and throws away what follows
an early answer for as long as it comes. A proxy in front has such limits; the service keeps its own, so that a client
on the same network cannot hold its memory or its connections for nothing.

Where an address has too many connections, or all have together, those that have been idle for longest are closed. None
is refused: clients that reuse connections open new ones. One with a request in progress stays; the memory for bodies
bounds those.
"""

import asyncio
import resource
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import count
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flywheel_assets.capture.http.admission import group_address

HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_S = 20.0
REST_TIMEOUT_S = 20.0
"""Time for the rest of a body that was answered before its end: hanging up at once would hide the answer."""
MOST_OF_ONE_ADDRESS = 256
_MOST = 8_192
_OTHER_FILES = 256  # segments, sockets of a broker, and what else the process has open
_CLOSED_AT_ONCE = 16  # a sixteenth of what is allowed: so that they are searched rarely


class Connections:
    """Counts the open connections of one process by address, and closes idle ones where there are too many."""

    def __init__(
        self,
        trusted_proxies: Sequence[str] = (),
        most_of_one_address: int = MOST_OF_ONE_ADDRESS,
        most: int | None = None,
    ) -> None:
        """Bound the number.

        Args:
            trusted_proxies: addresses and networks of proxies: many clients' requests come over their connections, so
                that only the number of all bounds them.
            most_of_one_address: connections of one other address.
            most: connections in all; None: as many as the process may have open, at most 8,192.
        """
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._trusted = parse_networks(trusted_proxies)
        self._most_of_one = most_of_one_address
        self._most = most or max(_OTHER_FILES, min(_MOST, files - _OTHER_FILES))
        self._by_address: defaultdict[str, set[BoundedConnection]] = defaultdict(set)
        self._all: set[BoundedConnection] = set()
        self._uses = count()

    def add(self, connection: "BoundedConnection", host: str) -> str:
        """Count a new connection; return the address under which it is counted."""
        address = "" if self._is_trusted(host) else group_address(host)
        others = self._by_address[address]
        if address and len(others) >= self._most_of_one:
            _close_idle(others, self._most_of_one)
        if len(self._all) >= self._most:
            _close_idle(self._all, self._most)
        others.add(connection)
        self._all.add(connection)
        self.mark_used(connection)
        return address

    def mark_used(self, connection: "BoundedConnection") -> None:
        """Note that a connection is the last one used."""
        connection.used = next(self._uses)

    def remove(self, connection: "BoundedConnection", address: str) -> None:
        """Count a connection no longer."""
        self._all.discard(connection)
        others = self._by_address[address]
        others.discard(connection)
        if not others:
            del self._by_address[address]

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:  # a Unix socket has no address
            return True
        return any(address in network for network in self._trusted)


def _close_idle(connections: "Iterable[BoundedConnection]", most: int) -> None:
    idle = sorted((each for each in connections if each.is_idle), key=lambda each: each.used)
    for each in idle[: max(1, most // _CLOSED_AT_ONCE)]:
        each.transport.close()


def parse_networks(texts: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks; a `*` is every address.

    Raises:
        ValueError: one is neither; the message names it.
    """
    every = ("0.0.0.0/0", "::/0")
    return tuple(ip_network(each) for text in texts for each in (every if text == "*" else (text,)))


class BoundedConnection(HttpToolsProtocol):
    """Bounds a connection's request line and headers, the rest of answered bodies, and the number of connections."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.used = 0
        """Grows with every request of any connection."""
        self._counted = connections
        self._address = ""
        self._is_half_closed = False
        self._head_bytes = 0
        self._is_reading_head = True
        self._is_reading = False
        """Whether a request has begun and its body has not ended."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that never sends anything ends too."""
        super().connection_made(transport)
        self._address = self._counted.add(self, self.client[0] if self.client else "")
        self._start_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        self._counted.remove(self, self._address)
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Return whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep a connection open whose client sends no more and waits for its answer.

        `shutdown(SHUT_WR)` after a request, as `nc -N` and some HTTP clients do, looks like the end of the connection;
        it is one only where nothing is left to answer.
        """
        self._is_half_closed = not self.is_idle and not self._is_reading
        return self._is_half_closed or None

    def on_response_complete(self) -> None:
        """Close after the last answer to a client that sends no more; bound the rest of a body answered early."""
        super().on_response_complete()
        if self.transport.is_closing() or not self.is_idle:
            return
        if self._is_half_closed:
            self.transport.close()
        elif self._is_reading:
            self._start_timer(REST_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """Count the bytes that come before the headers are complete."""
        if self._is_reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged after parsing: most heads are complete at once, and a body may follow in the same packet.
        if self._is_reading_head and self._head_bytes and not self.transport.is_closing():
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request line and headers have more than {HEAD_BYTES} bytes.")
            elif self._timer is None:
                self._start_timer(HEAD_TIMEOUT_S)

    def on_message_begin(self) -> None:
        """Remember who is really at the other end: a header about a client replaces the client's address later."""
        super().on_message_begin()
        self.scope["state"]["peer"] = self.client[0] if self.client else None

    def on_headers_complete(self) -> None:
        """Stop the timer; from here on the service itself bounds the request."""
        self._is_reading_head = False
        self._is_reading = True
        self._counted.mark_used(self)
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Start to count the head of the next request."""
        self._is_reading_head = True
        self._is_reading = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_message_complete()

    def _start_timer(self, timeout_s: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(timeout_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
