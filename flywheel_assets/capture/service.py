"""Serves capture: takes events over HTTP and answers only after they are durable.

The way of one edit: `POST /v1/assistant/edits` → `access.Access` decides whether its sender may →
`bodies.BodyReader` reads it up to its cap → `bodies` cuts it into elements → `texts.decode_edit` turns each into a
prediction row and a feedback row, or into an error of its own → `EventLog.append` queues the rows; the writer thread of
`segments.SegmentLog` writes and fsyncs them together with whatever else waits → the future resolves → 202 with one
result per element. Some seconds later the segment is sealed and renamed into
`landing/assistant/feedback/received_date=…/`, where the lake finds it.

The log behind the `EventLog` protocol makes events durable: this machine's disk, or a broker.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from flywheel_assets.capture.auth.access import Access, is_loopback
from flywheel_assets.capture.auth.keys import KeyStore
from flywheel_assets.capture.brokers import open_producer
from flywheel_assets.capture.brokers.broker import BrokerAddress, read_broker_address
from flywheel_assets.capture.brokers.log import BrokerLimits, BrokerLog
from flywheel_assets.capture.brokers.messages import compute_largest_event_bytes
from flywheel_assets.capture.bulk import HistoryPlace, RecordsReceiver
from flywheel_assets.capture.clock import Clock, open_clock, read_clock
from flywheel_assets.capture.endpoints import (
    ENDPOINTS,
    RECORDS_PATH,
    RETRACTION_PATH,
    TRACES_PATH,
    CaptureLimits,
    EventLog,
)
from flywheel_assets.capture.http.admission import Admission
from flywheel_assets.capture.http.answers import RefusedError, answer_http_error, answer_refusal
from flywheel_assets.capture.http.bodies import BodyReader
from flywheel_assets.capture.http.connection import BoundedConnection, Connections
from flywheel_assets.capture.intake import Intake, Receiver
from flywheel_assets.capture.log.segments import SegmentLimits, SegmentLog
from flywheel_assets.capture.log.shipping import ShippedLog, open_shipper
from flywheel_assets.capture.operations.endpoints import Operations, answer_browser_script
from flywheel_assets.capture.operations.telemetry import Telemetry
from flywheel_assets.capture.otlp import TraceReceiver
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import CaptureUnavailableError, SettingsError
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.settings import Settings

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1")

Applications = Sequence[str] | Mapping[str, ScoreContract | None]
Pages = Callable[[EventLog, Access], Sequence[BaseRoute]]
"""Makes the routes that another room serves on this service, over its event log and its keys."""


def create_app(
    event_log: EventLog,
    applications: Applications,
    limits: CaptureLimits | None = None,
    clock: Clock = read_clock,
    access: Access | None = None,
    telemetry: Telemetry | None = None,
    pages: Pages | None = None,
    history: HistoryPlace | None = None,
) -> Starlette:
    """Build the ASGI application. It starts the event log with the server and stops it after the last request.

    Args:
        event_log: makes events durable.
        applications: names of the applications that may send; classifiers with their declared fields.
        limits: how much one request may bring.
        clock: what time it is, UTC.
        access: decides who may send; without it every sender may.
        telemetry: the counters; give the same object as to `event_log`.
        pages: more routes to serve here, for instance those of `review.pages.build_review_pages`.
        history: where history lands that comes in requests; without it such requests are refused.
    """
    limits = limits or CaptureLimits()
    access = access or Access(clock=clock)
    telemetry = telemetry or Telemetry()
    admission = Admission(limits.in_progress_bytes, BodyReader(limits.request_bytes))
    telemetry.watch(
        "in_progress_bytes", "Bytes of bodies of requests in progress.", lambda: admission.budget.held_bytes
    )
    # One thread: decoding holds the interpreter's lock, so that a second one would only take turns with it.
    decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
    intake = Intake(
        event_log=event_log,
        applications=applications if isinstance(applications, Mapping) else dict.fromkeys(applications),
        limits=limits,
        clock=clock,
        access=access,
        telemetry=telemetry,
        admission=admission,
        decoder=decoder,
    )
    operations = Operations.build(event_log, telemetry, access, ENDPOINTS, list(applications))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(event_log.start)
        try:
            yield
        finally:
            await asyncio.to_thread(event_log.stop)
            decoder.shutdown()
            telemetry.refusals.flush()

    receivers = {endpoint.name: intake.build_receiver(endpoint) for endpoint in ENDPOINTS}
    app = _Capture(
        receivers,
        routes=[
            *(
                Route(f"/v1/{{application}}/{name}", receiver, methods=["POST", "OPTIONS"])
                for name, receiver in receivers.items()
            ),
            Route(TRACES_PATH, TraceReceiver(intake).answer_request, methods=["POST", "OPTIONS"]),
            Route(RECORDS_PATH, RecordsReceiver(intake, history).answer_request, methods=["POST", "OPTIONS"]),
            Route(RETRACTION_PATH, intake.answer_retraction, methods=["DELETE", "OPTIONS"]),
            Route("/flywheel.js", answer_browser_script, methods=["GET"]),
            Route("/healthz", operations.answer_healthz, methods=["GET"]),
            Route("/readyz", operations.answer_readyz, methods=["GET"]),
            Route("/metrics", operations.answer_metrics, methods=["GET"]),
            Route("/openapi.json", operations.answer_openapi, methods=["GET"]),
            *(pages(event_log, access) if pages else ()),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: answer_http_error, RefusedError: answer_refusal},
    )
    app.state.access = access  # `access.require_scope` finds it here
    return app


class _AnythingConvertor(PathConvertor):
    """Matches the rest of an address, line feeds too: Starlette's own `path` answered 404 for an id with one."""

    regex = "(?s:.*)"


register_url_convertor("anything", _AnythingConvertor())


class _Capture(Starlette):
    """Extends Starlette with a short way for posts: its layers would cost a sixth of a single event."""

    def __init__(self, receivers: Mapping[str, Receiver], **options: Any) -> None:
        super().__init__(**options)
        self._receivers = receivers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a post to its receiver, and everything else to the routes, which know the same receivers."""
        if scope["type"] == "http" and scope["method"] == "POST":
            match scope["path"].split("/"):
                case ["", "v1", application, name] if application and name in self._receivers:
                    scope["path_params"] = {"application": application}
                    await self._receivers[name](scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


@dataclass(frozen=True)
class RunningCapture:
    """Holds a capture service that runs in a thread of this process."""

    url: str
    event_log: SegmentLog

    def seal(self) -> None:
        """Publish all acknowledged events, for instance before an injected clock moves to the next day."""
        self.event_log.seal()


def serve(
    settings: Settings,
    applications: Applications,
    clock: Clock = read_clock,
    on_ready: Callable[[str], None] | None = None,
    pages: Pages | None = None,
    ship_to: ObjectLanding | None = None,
    history: HistoryPlace | None = None,
) -> None:
    """Run the service until SIGINT or SIGTERM.

    Open requests are answered and segments sealed first; then the signal takes its usual effect on the process.

    Args:
        settings: where to listen, the landing zone, the keys and the limits.
        applications: names of the applications that may send; classifiers with their declared fields.
        clock: what time it is, UTC.
        on_ready: called with the service's URL when it listens.
        pages: more routes to serve here.
        ship_to: the landing zone on S3, as `Stores(settings).shipping()` opens it.
        history: where history lands that comes in requests.

    Raises:
        SettingsError: the address reaches beyond this machine and there is no key, the keys cannot be read, or the
            address cannot be listened on, or the queue cannot be used; or landing is on S3 and `ship_to` is missing;
            or the clock cannot be right.
    """
    proxies = settings.list_trusted_proxies()
    connections = _open_connections(proxies)
    steady = open_clock(settings.resolve_landing_dir(), accepts_any=settings.capture_any_clock, wall=clock)
    access = open_access(settings, steady)
    telemetry = Telemetry()
    telemetry.watch("clock_off_seconds", "Seconds by which the machine's clock has jumped.", lambda: steady.off_s)
    address = read_broker_address(settings)
    event_bytes = settings.capture_event_bytes
    event_log: EventLog
    if address is None:
        event_log = _open_local_log(settings, ship_to, steady, telemetry)
    else:
        event_log = _open_broker_log(address, settings, telemetry)
        event_bytes = min(event_bytes, compute_largest_event_bytes(address.payload_bytes))
    limits = CaptureLimits(
        event_bytes=event_bytes,
        request_bytes=settings.capture_request_bytes,
        batch_events=settings.capture_batch_events,
        in_progress_bytes=settings.capture_in_progress_bytes,
    )
    with open_socket(settings.capture_host, settings.capture_port) as listener:
        if on_ready is not None:
            on_ready(_build_url(listener))
        service = create_app(event_log, applications, limits, steady, access, telemetry, pages, history)
        _build_server(service, proxies, connections).run(sockets=[listener])


def _open_connections(proxies: Sequence[str]) -> Connections:
    try:
        return Connections(proxies)
    except ValueError as error:
        raise SettingsError(
            f"FLYWHEEL_CAPTURE_TRUSTED_PROXIES: {error}; valid: addresses and networks with commas between them, for "
            "instance 127.0.0.1,10.0.0.0/8, or * for every address"
        ) from None


def open_access(settings: Settings, clock: Clock = read_clock) -> Access:
    """Open the access that the settings describe: by keys, or for everybody on loopback where there is no key.

    Raises:
        SettingsError: there is no key and the address reaches beyond this machine, or the keys cannot be read.
    """
    path = settings.resolve_capture_keys_file()
    access = Access(KeyStore(path), settings.capture_events_per_s, clock)
    if access.is_open and not is_loopback(settings.capture_host):
        raise SettingsError(
            f"FLYWHEEL_CAPTURE_HOST is {settings.capture_host!r}, which may be reached from other machines, and there "
            f"is no key in {path}: create one with `flywheel keys create`, or listen on 127.0.0.1, ::1 or localhost"
        )
    if access.is_open:
        log.warning("no keys in %s: everybody on this machine may send, pages of other hosts may not", path)
    return access


def _open_local_log(
    settings: Settings, ship_to: ObjectLanding | None, clock: Clock, telemetry: Telemetry
) -> SegmentLog | ShippedLog:
    segment_log = SegmentLog(settings.resolve_landing_dir(), build_segment_limits(settings), clock, telemetry)
    telemetry.watch("queued_events", "Events that wait for the disk.", lambda: segment_log.queued_events)
    telemetry.watch(
        "unpublished_segments", "Segments that could not be published yet.", lambda: segment_log.unpublished_segments
    )
    shipper = open_shipper(settings, ship_to, clock)
    if shipper is None:
        return segment_log
    telemetry.watch(
        "unshipped_segments", "Sealed segments that S3 does not have yet.", lambda: len(shipper.list_unshipped())
    )
    return ShippedLog(segment_log, shipper)


def _open_broker_log(address: BrokerAddress, settings: Settings, telemetry: Telemetry) -> BrokerLog:
    limits = BrokerLimits(queue_events=settings.capture_queue_events)
    broker_log = BrokerLog(partial(open_producer, address), address.payload_bytes, limits)
    telemetry.watch("queued_events", "Events that wait for the broker.", lambda: broker_log.queued_events)
    return broker_log


def build_segment_limits(settings: Settings) -> SegmentLimits:
    """Build the limits of segments from the settings: when they are sealed, and how much may wait."""
    return SegmentLimits(
        segment_bytes=settings.capture_segment_bytes,
        segment_age_s=settings.capture_segment_age_s,
        queue_events=settings.capture_queue_events,
        min_free_bytes=settings.capture_min_free_bytes,
    )


@contextlib.contextmanager
def running_capture(
    landing_root: Path,
    applications: Applications,
    clock: Clock = read_clock,
    limits: CaptureLimits | None = None,
    segment_limits: SegmentLimits | None = None,
    access: Access | None = None,
    pages: Pages | None = None,
    history: HistoryPlace | None = None,
) -> Iterator[RunningCapture]:
    """Run the real service on a free loopback port, in a thread; stop it at the end of the block.

    Leaving the block answers open requests and seals the segments first.

    Raises:
        CaptureUnavailableError: it did not start.
    """
    telemetry = Telemetry()
    event_log = SegmentLog(landing_root, segment_limits, clock, telemetry)
    app = create_app(event_log, applications, limits, clock, access, telemetry, pages, history)
    server = _build_server(app, _LOOPBACK, Connections(_LOOPBACK))
    with open_socket("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="capture", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield RunningCapture(_build_url(listener), event_log)
        finally:
            server.should_exit = True
            thread.join()


def _build_server(app: Starlette, proxies: Sequence[str], connections: Connections) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=partial(BoundedConnection, connections=connections),  # type: ignore[arg-type]
            forwarded_allow_ips=list(proxies),
            ws="none",
            lifespan="on",
            # Access logs would cost as much as the request. The process decides where its logs go.
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


def open_socket(host: str, port: int) -> socket.socket:
    """Open a socket that takes connections at this address.

    Raises:
        SettingsError: it is not an address of this machine, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        raise SettingsError(
            f"FLYWHEEL_CAPTURE_HOST is {host!r}; valid: a name or an address of this machine, for instance 127.0.0.1"
        ) from None
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on FLYWHEEL_CAPTURE_HOST {host} port {port}: {error.strerror}; set FLYWHEEL_CAPTURE_PORT "
            "to a free port, or to 0"
        ) from None
    return listener


def _build_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
