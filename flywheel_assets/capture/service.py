"""The capture service: takes events over HTTP and answers only after they are durable.

How one edit walks through: `POST /v1/assistant/edits` → `intake.Intake` reads the body up to its cap → `framing` cuts
it into elements → `events.decode_edit` turns each into a prediction row and a feedback row, or into an error of its
own → `EventLog.append` queues the rows; the writer thread of `segments.SegmentLog` writes and fsyncs them together with
whatever else waits → the future resolves → 202 with one result per element. Some seconds later the segment is sealed
and renamed into `landing/assistant/feedback/received_date=…/`, where the lake finds it.

Keys, signatures, rate limits and brokers are not here yet: the service listens on loopback only, and whatever makes
events durable stands behind the `EventLog` protocol.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flywheel_assets.capture.intake import CaptureLimits, EventLog, Intake, http_problem
from flywheel_assets.capture.segments import Clock, SegmentLimits, SegmentLog, system_clock
from flywheel_assets.errors import CaptureUnavailableError, SettingsError
from flywheel_assets.settings import Settings

_START_TIMEOUT_S = 30.0


def create_app(
    event_log: EventLog,
    applications: Sequence[str],
    limits: CaptureLimits | None = None,
    clock: Clock = system_clock,
) -> Starlette:
    """The ASGI application; it starts the event log with the server and stops it after the last request."""
    intake = Intake(event_log, frozenset(applications), limits or CaptureLimits(), clock)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(event_log.start)
        try:
            yield
        finally:
            await asyncio.to_thread(event_log.stop)

    return Starlette(
        routes=[
            Route("/v1/{application}/events", intake.events, methods=["POST"]),
            Route("/v1/{application}/edits", intake.edits, methods=["POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: http_problem},
    )


@dataclass(frozen=True)
class RunningCapture:
    """A capture service in a thread of this process."""

    url: str
    event_log: SegmentLog

    def seal(self) -> None:
        """Publish what was acknowledged so far, for instance before an injected clock goes on to the next day."""
        self.event_log.seal()


def serve(
    settings: Settings,
    applications: Sequence[str],
    clock: Clock = system_clock,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run the service until SIGINT or SIGTERM.

    Open requests are answered and segments sealed first; then the signal takes its usual effect on the process.

    Args:
        settings: where to listen, the landing zone and the limits.
        applications: names of the applications that may send.
        clock: what time it is, UTC.
        on_ready: called with the service's URL when it listens.

    Raises:
        SettingsError: the address reaches beyond this machine, or cannot be listened on.
    """
    segment_limits = SegmentLimits(
        segment_bytes=settings.capture_segment_bytes,
        segment_age_s=settings.capture_segment_age_s,
        queue_events=settings.capture_queue_events,
    )
    limits = CaptureLimits(
        event_bytes=settings.capture_event_bytes,
        request_bytes=settings.capture_request_bytes,
        batch_events=settings.capture_batch_events,
    )
    event_log = SegmentLog(settings.resolved_landing_dir(), segment_limits, clock)
    with _listening_socket(settings.capture_host, settings.capture_port) as listener:
        if on_ready is not None:
            on_ready(_url(listener))
        _server(create_app(event_log, applications, limits, clock)).run(sockets=[listener])


@contextlib.contextmanager
def running_capture(
    landing_root: Path,
    applications: Sequence[str],
    clock: Clock = system_clock,
    limits: CaptureLimits | None = None,
    segment_limits: SegmentLimits | None = None,
) -> Iterator[RunningCapture]:
    """The real service on a free loopback port, in a thread; leaving the block answers, seals and stops it.

    Raises:
        CaptureUnavailableError: it did not start.
    """
    event_log = SegmentLog(landing_root, segment_limits, clock)
    server = _server(create_app(event_log, applications, limits, clock))
    with _listening_socket("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="capture", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield RunningCapture(_url(listener), event_log)
        finally:
            server.should_exit = True
            thread.join()


def _server(app: Starlette) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            # Access logs would cost as much as the request; the process decides where its logs go.
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    waited_s = 0.0
    while not server.started:
        thread.join(0.01)
        waited_s += 0.01
        if not thread.is_alive() or waited_s > _START_TIMEOUT_S:
            raise CaptureUnavailableError("the capture service did not start; its log says why")


def _listening_socket(host: str, port: int) -> socket.socket:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise SettingsError(
            f"FLYWHEEL_CAPTURE_HOST is {host!r}; valid: 127.0.0.1, ::1 or localhost. This version has no keys, so it "
            "must not be reachable from other machines; put an authenticating proxy on this machine in front of it"
        )
    listener = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(address), port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; set FLYWHEEL_CAPTURE_PORT to a free port, or to 0"
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _healthz(_: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")
