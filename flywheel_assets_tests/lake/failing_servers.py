"""Servers that fail when told to: an S3 that drops chosen requests, and a wire to Postgres that loses answers.

What fails is said by an `Outage`: which requests, from which one on, how many. Nothing is drawn by lot, so that a test
can walk through every request of an operation.
"""

import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import AwsStandardS3RetryStrategy

EVER = 2**31
_BLOCK = 1 << 16


class OneAttempt(AwsStandardS3RetryStrategy):
    """Arrow's client without its own retries, which would hide a single failure."""

    def __init__(self) -> None:
        super().__init__(max_attempts=1)


class Fault(StrEnum):
    """What becomes of a request."""

    SLOW_DOWN = "503 SlowDown"
    LOST_REQUEST = "cut before it was handled"
    LOST_ANSWER = "handled, then cut before the answer"
    TORN_ANSWER = "cut in the middle of the answer"
    SILENCE = "accepted and never answered"


@dataclass
class Outage:
    """Some of the requests fail."""

    fault: Fault
    of: str = ""
    """Which may: an expression for `METHOD /bucket/key?query`, or for the SQL on its way to Postgres."""
    after: int = 0
    """How many of these get through before."""
    times: int = EVER
    """How many fail then."""
    met: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def hits(self, request: str) -> bool:
        if not re.search(self.of, request):
            return False
        self.met += 1
        if self.met <= self.after or self.failed >= self.times:
            return False
        self.failed += 1
        return True


class Failing:
    """Something that lets everything pass until it is told otherwise."""

    def __init__(self) -> None:
        self.outage: Outage | None = None
        self.requests: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def failing(self, outage: Outage) -> Iterator[Outage]:
        """Fail for as long as the block runs."""
        self._over.clear()
        self.outage = outage
        try:
            yield outage
        finally:
            self.outage = None
            # Whoever is kept waiting in silence need not wait on.
            self._over.set()

    def fault_of(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            outage = self.outage
            return outage.fault if outage is not None and outage.hits(request) else None


class FailingS3(Failing):
    """moto's S3 behind a WSGI middleware: requests are parsed already when it is decided what becomes of them."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        super().__init__()
        self._application = DomainDispatcherApplication(create_backend_app)
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._listen()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        match self.fault_of(request):
            case None:
                answer: Iterable[bytes] = self._application(environ, start_response)
                return answer
            case Fault.SLOW_DOWN:
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
            case Fault.LOST_REQUEST:
                return self._hang_up(environ)
            case Fault.LOST_ANSWER:
                for _ in self._application(environ, lambda *_: None):
                    pass
                return self._hang_up(environ)
            case Fault.TORN_ANSWER:
                return self._torn(environ, start_response)
            case _:
                self._over.wait(60)
                return self._hang_up(environ)

    def _torn(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        whole = b"".join(self._application(environ, start_response))
        yield whole[: len(whole) // 2]
        self._hang_up(environ)

    def _hang_up(self, environ: dict[str, Any]) -> Iterable[bytes]:
        with suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError

    def _listen(self) -> None:
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import make_server

        class Quiet(MotoRequestHandler):  # type: ignore[misc]  # moto has no types for it
            def log_request(self, *_: object) -> None:
                """Thousands of requests, which `requests` lists."""

        self._listener.listen(128)
        self._server = make_server(
            "127.0.0.1", self.port, self, threaded=True, request_handler=Quiet, fd=self._listener.fileno()
        )
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._listener.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse all connections for as long as the block runs, and cut those that there are."""
        self.stop()
        # Bound again without listening: nobody else gets the port meanwhile.
        self._listener = _bound(self.port)
        try:
            with self.failing(Outage(Fault.LOST_REQUEST)):
                yield
        finally:
            self._listen()

    def client(self, attempts: int = 1) -> Any:
        """A client of boto3 that sees single failures, unless it may try again."""
        boto3 = pytest.importorskip("boto3")
        from botocore.config import Config

        retries = {"mode": "standard", "total_max_attempts": attempts}
        config = Config(connect_timeout=5, read_timeout=5, retries=retries)
        return boto3.session.Session().client("s3", endpoint_url=self.endpoint, config=config)

    def storage(self) -> dict[str, str]:
        """For a lake whose Arrow sees single failures."""
        strategy = f"{OneAttempt.__module__}.{OneAttempt.__qualname__}"
        return {"s3.endpoint": self.endpoint, "s3.region": "us-east-1", "s3.retry-strategy-impl": strategy}

    def new_bucket(self) -> str:
        name = f"outages-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def failing_s3() -> Iterator[FailingS3]:
    """A running server; sets the credentials that every AWS client finds."""
    pytest.importorskip("moto.server", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = FailingS3()
        try:
            yield server
        finally:
            server.stop()


class Wire(Failing):
    """A TCP port of loopback that leads to a server's Unix socket, and loses what it is told to."""

    def __init__(self, upstream: Path) -> None:
        super().__init__()
        self._upstream = upstream
        self._listener = _bound(0)
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake who waits in `accept`.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._upstream))
            except OSError:
                near.close()
                far.close()
                continue
            _Connection(self, near, far).start()


class _Connection:
    """One client's connection through a wire."""

    def __init__(self, wire: Wire, near: socket.socket, far: socket.socket) -> None:
        self._wire, self._near, self._far = wire, near, far
        self._answer_is_lost = False

    def start(self) -> None:
        for pump in (self._forth, self._back):
            threading.Thread(target=pump, daemon=True).start()

    def _forth(self) -> None:
        for block in _blocks(self._near):
            fault = self._wire.fault_of(block.decode("latin-1"))
            if fault is Fault.LOST_REQUEST:
                break
            if fault is Fault.SILENCE:
                self._wire._over.wait(60)
                break
            self._answer_is_lost = self._answer_is_lost or fault is Fault.LOST_ANSWER
            with suppress(OSError):
                self._far.sendall(block)
        self._hang_up()

    def _back(self) -> None:
        for block in _blocks(self._far):
            if self._answer_is_lost:
                break
            with suppress(OSError):
                self._near.sendall(block)
        self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._near, self._far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _blocks(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError), source:
        while block := source.recv(_BLOCK):
            yield block


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener
