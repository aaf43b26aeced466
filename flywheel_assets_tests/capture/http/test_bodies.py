"""What a hostile or broken sender can do with a body or a connection: nothing that costs more than a bounded answer."""

import asyncio
import contextlib
import gzip
import json
import re
import resource
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import zstandard
from starlette.requests import Request

from flywheel_assets.capture.endpoints import CaptureLimits
from flywheel_assets.capture.http import connection
from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.capture.http.bodies import BodyReader, MemoryBudget
from flywheel_assets.capture.service import RunningCapture, running_capture
from flywheel_assets_tests.capture.samples import JSON, NDJSON, edit

EDITS = "/v1/assistant/edits"
LIMIT = 50_000
GZIP = JSON | {"content-encoding": "gzip"}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCapture]:
    limits = CaptureLimits(event_bytes=LIMIT, request_bytes=LIMIT, batch_events=1_000)
    with running_capture(tmp_path_factory.mktemp("landing"), ["assistant"], limits=limits) as running:
        yield running


@pytest.fixture(scope="module")
def http(capture: RunningCapture) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=capture.url, timeout=20) as client:
        yield client


def padded(size: int) -> bytes:
    """One valid edit of exactly this many bytes."""
    empty = json.dumps(edit(prompt="")).encode()
    return json.dumps(edit(prompt="x" * (size - len(empty)))).encode()


# Compression ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(1_000, 202), (LIMIT, 202), (LIMIT + 1, 413), (100 * LIMIT, 413)])
def test_gzip_is_inflated_up_to_the_limit(http: httpx.Client, size: int, status: int) -> None:
    body = gzip.compress(padded(size))
    assert len(body) < LIMIT
    assert http.post(EDITS, content=body, headers=GZIP).status_code == status


def test_64_kilobytes_of_a_bomb_are_inflated_no_further_than_the_limit(http: httpx.Client) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    assert 60_000 < len(bomb) < 70_000
    answer = http.post(EDITS, content=iter([bomb]), headers=GZIP)
    assert answer.status_code == 413
    assert http.post(EDITS, json=edit()).status_code == 202


@pytest.mark.parametrize(
    ("body", "encoding", "status", "says"),
    [
        (b"{}", "gzip", 400, "content-encoding is gzip, but the body is not"),
        (zlib.compress(b"{}"), "gzip", 400, "but the body is not"),
        (gzip.compress(b"{}" * 5_000)[:-9], "gzip", 400, "ends in the middle"),
        (b"", "gzip", 400, "ends in the middle"),
        (gzip.compress(b"{}") + b"more", "gzip", 400, "unexpected bytes after the end"),
        (gzip.compress(b"{}") + gzip.compress(b"{}"), "gzip", 400, "unexpected bytes after the end"),
        (gzip.compress(gzip.compress(b"{}")), "gzip, gzip", 415, "valid: identity, gzip or zstd once"),
        (gzip.compress(gzip.compress(b"{}")), "gzip", 400, "not"),
        (zlib.compress(b"{}"), "deflate", 415, "valid: identity, gzip or zstd once"),
    ],
)
def test_what_claims_to_be_gzip(http: httpx.Client, body: bytes, encoding: str, status: int, says: str) -> None:
    answer = http.post(EDITS, content=body, headers=JSON | {"content-encoding": encoding})
    assert answer.status_code == status
    assert says in answer.text


# Size, depth, names --------------------------------------------------------------------------------------------------


ZSTD = JSON | {"content-encoding": "zstd"}


def test_a_zstd_bomb_is_unpacked_no_further_than_the_limit() -> None:
    """Four bytes of zstd may become 128 KiB: 40 KB would become a gigabyte."""
    bomb = zstandard.compress(bytes(256 * 2**20))
    assert len(bomb) < 30_000
    budget = MemoryBudget(2**30)

    async def read() -> None:
        with budget.open_share() as share:
            await BodyReader(LIMIT).read(build_request(bomb, "zstd"), share)

    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="larger than 50000 bytes"):
            asyncio.run(read())
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("window_log", "status"), [(20, 202), (23, 202), (24, 400), (27, 400)])
def test_a_window_of_zstd_is_bounded(http: httpx.Client, window_log: int, status: int) -> None:
    """A frame that declares a window of 128 MiB would make the decoder take it, whatever the body's size."""
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, write_content_size=0)
    frame = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    body = frame.compress(padded(1_000)) + frame.flush()
    answer = http.post(EDITS, content=body, headers=ZSTD)
    assert answer.status_code == status, answer.text


def build_request(body: bytes, encoding: str) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-encoding", encoding.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive)


def test_a_length_that_lies_does_not_help(capture: RunningCapture) -> None:
    too_long = _raw(capture, b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                             b"Content-Length: 99999999999\r\n\r\n" % EDITS.encode())  # fmt: skip
    assert too_long.startswith(b"HTTP/1.1 413 ")
    both = _raw(capture, b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % EDITS.encode())  # fmt: skip
    assert both.startswith(b"HTTP/1.1 400 "), "two lengths: a proxy in front may see another request than we do"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"prompt":[', b'[{"a":['])
def test_deep_nesting_is_refused_at_once(http: httpx.Client, opening: bytes) -> None:
    body = opening * (LIMIT // len(opening))
    began = time.process_time()
    for headers in (JSON, NDJSON):
        assert http.post(EDITS, content=body, headers=headers).status_code == 400
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x", "a\0b", "/etc/passwd", "x" * 10_240, "\r\nSet-Cookie: a=b", "%2e%2e"]
)
def test_ids_are_never_part_of_a_path(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("ids")
    with running_capture(root / "landing", ["assistant"]) as running:
        answer = httpx.post(running.url + EDITS, json=edit(id=name, user_id="../x", thread_id="/y"))
        assert answer.status_code == (202 if len(name) <= 1024 else 400)
        assert "set-cookie" not in answer.headers
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    ours = (
        r"landing/assistant/(prediction|feedback)/received_date=\d{4}-\d\d-\d\d/\d{8}T\d{12}Z-[0-9a-f]{8}-\d{6}\.jsonl"
    )
    assert all(re.fullmatch(ours, file) for file in files), files


@pytest.mark.parametrize(
    "path", ["/v1/../../etc/passwd/edits", "/v1/%2e%2e/edits", "/v1/assistant%00/edits", "/v1//edits"]
)
def test_an_application_is_a_name_that_we_know(http: httpx.Client, path: str) -> None:
    assert http.post(path, json=edit()).status_code == 404


# Slow senders --------------------------------------------------------------------------------------------------------


def _request(chunks: AsyncIterator[bytes]) -> Request:
    async def receive() -> dict[str, object]:
        try:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_a_body_that_trickles_in_is_given_up() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async def read() -> bytes:
        with MemoryBudget(2**20).open_share() as share:
            return await BodyReader(2**20, timeout_s=0.1).read(_request(trickle()), share)

    with pytest.raises(RefusedError) as refused:
        asyncio.run(read())
    assert refused.value.reason is Refusal.TIMEOUT
    assert refused.value.build_response().status_code == 408


def test_a_share_of_the_memory_is_given_back_whatever_happens() -> None:
    budget = MemoryBudget(100_000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 10_000

    async def read() -> bytes:
        with budget.open_share() as share:
            return await BodyReader(2**20).read(_request(chunks()), share)

    with pytest.raises(RefusedError) as refused:
        asyncio.run(read())
    assert refused.value.reason is Refusal.OVERLOADED
    assert budget.held_bytes == 0


# Connections ---------------------------------------------------------------------------------------------------------


def _raw(capture: RunningCapture, sent: bytes, timeout_s: float = 10.0) -> bytes:
    """What comes back until the service closes the connection or says nothing more for a moment."""
    host, port = capture.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as client:
        received = b""
        try:
            client.sendall(sent)
            client.settimeout(0.5)
            while chunk := client.recv(65_536):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass
        return received


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 200_000,
        b"GET /" + b"x" * 200_000,
    ],
)
def test_headers_are_bounded(capture: RunningCapture, head: bytes) -> None:
    assert _raw(capture, head).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(capture.url + "/healthz").status_code == 200


def test_a_large_body_is_not_taken_for_headers(capture: RunningCapture) -> None:
    body = padded(LIMIT)
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    request = head % (EDITS.encode(), len(body)) + body
    assert _raw(capture, request + request).count(b"HTTP/1.1 202 ") == 2


def test_a_silent_connection_is_closed(capture: RunningCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.2)
    host, port = capture.url.removeprefix("http://").split(":")
    for said in (b"", b"GET /healthz HTTP/1.1\r\nx:"):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(said)
            assert client.recv(1) == b""
    with httpx.Client(base_url=capture.url) as http:
        assert http.get("/healthz").status_code == 200
        time.sleep(0.3)
        assert http.get("/healthz").status_code == 200, "a connection that is kept alive is idle, not slow"


def test_the_rest_of_an_answered_body_is_not_read_for_ever(
    capture: RunningCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REST_TIMEOUT_S", 0.2)
    host, port = capture.url.removeprefix("http://").split(":")
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head % EDITS.encode())
        assert client.recv(65_536).startswith(b"HTTP/1.1 415 ")
        with contextlib.suppress(ConnectionError):
            while True:  # the next kilobyte is refused once the connection is closed
                client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"\0" * 100, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http(capture: RunningCapture, sent: bytes) -> None:
    assert _raw(capture, sent)[:13] in (b"HTTP/1.1 400 ", b"")
    assert httpx.get(capture.url + "/healthz").status_code == 200


def test_a_thousand_silent_connections_do_not_stop_the_others(capture: RunningCapture) -> None:
    host, port = capture.url.removeprefix("http://").split(":")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(1_000, (allowed - 200) // 3)
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(count)]
    try:
        assert httpx.post(capture.url + EDITS, json=edit()).status_code == 202
    finally:
        for client in silent:
            client.close()
