"""Bounds what a connection may cost before its request is complete enough for the service to see it.

uvicorn reads headers without any limit of size or time. A proxy in front has such limits; the service keeps its own, so
that a client on the same network cannot hold its memory or its connections for nothing.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_S = 20.0


class BoundedConnection(HttpToolsProtocol):
    """One connection whose request line and headers must come within a size and a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_reading_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that never says anything ends too."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        if self._is_reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged after parsing: most heads are complete at once, and a body may follow in the same packet.
        if self._is_reading_head and self._head_bytes and not self.transport.is_closing():
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request line and headers have more than {HEAD_BYTES} bytes.")
            elif self._head_timer is None:
                self._start_timer()

    def on_headers_complete(self) -> None:
        """From here on the service itself bounds the request."""
        self._is_reading_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Whatever comes next is the head of another request."""
        self._is_reading_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
