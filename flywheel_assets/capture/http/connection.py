"""Bounds the cost of a connection until its request reaches the service.

uvicorn reads headers without any limit of size or time. A proxy in front has such limits; the service keeps its own, so
that a client on the same network cannot hold its memory or its connections for nothing.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_S = 20.0


class BoundedConnection(HttpToolsProtocol):
    """Bounds the size and the time of a connection's request line and headers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_reading_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that never sends anything ends too."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes that come before the headers are complete."""
        if self._is_reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged after parsing: most heads are complete at once, and a body may follow in the same packet.
        if self._is_reading_head and self._head_bytes and not self.transport.is_closing():
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request line and headers have more than {HEAD_BYTES} bytes.")
            elif self._head_timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        """Remember who is really at the other end: a header about a client replaces the client's address later."""
        super().on_message_begin()
        self.scope["state"]["peer"] = self.client[0] if self.client else None

    def on_headers_complete(self) -> None:
        """Stop the timer; from here on the service itself bounds the request."""
        self._is_reading_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Start to count the head of the next request."""
        self._is_reading_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
