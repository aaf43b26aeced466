"""What callers without a right to it may cost the service, looked at from outside of a real process."""

import contextlib
import gzip
import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.auth._signatures import sign_request
from flywheel_assets.capture.auth.access import Access, Rates
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, create_key
from flywheel_assets.capture.service import running_capture
from flywheel_assets_tests.capture.http.admission_process import CaptureProcess, running_process
from flywheel_assets_tests.capture.samples import NOON, Clock, Seconds, edit

EDITS = "/v1/assistant/edits"
MIB = 2**20
SURROGATE = b'{"prompt":"\\ud800"}'


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptureProcess]:
    with running_process(tmp_path_factory.mktemp("admission") / "home") as process:
        warm = httpx.post(process.url + EDITS, json=edit(), headers=process.build_headers("backend"))
        assert warm.status_code == 202, warm.text
        yield process


_addresses = (f"127.0.1.{number}" for number in count(1))


@pytest.fixture
def source() -> str:
    """An address of this machine that no other test has."""
    return next(_addresses)


@pytest.fixture
def http(capture: CaptureProcess, source: str) -> Iterator[httpx.Client]:
    with capture.open_client(source) as client:
        yield client


# Elements ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[" + b"1," * 16_000_000 + b"1]", "application/json"),
        (b"[" + b"{}," * 11_000_000 + b"{}]", "application/json"),
        (b"[" + SURROGATE + b",{}" * 11_000_000 + b"]", "application/json"),
        (b"[" * 33_000_000, "application/json"),
        (b"1\n" * 16_000_000, "application/x-ndjson"),
        (b'{"prompt":"' + b" " * 33_000_000, "application/json"),
    ],
    ids=["numbers", "objects", "surrogate", "brackets", "lines", "one event"],
)
def test_32_kilobytes_of_a_public_key_cost_little_memory(
    capture: CaptureProcess, http: httpx.Client, body: bytes, content_type: str
) -> None:
    """They cost 2.4 GB in 2026-11, and after a bound on the elements still the 33 MB of the body, twice."""
    packed = gzip.compress(body, 9)
    assert len(packed) < 33 * 1024
    headers = capture.build_headers("page") | {"content-encoding": "gzip", "content-type": content_type}
    capture.reset_peak()
    before = capture.read_peak_bytes()
    answer = http.post(EDITS, content=packed, headers=headers)
    assert answer.status_code in (400, 413), answer.text
    assert capture.read_peak_bytes() - before < 24 * MIB


@pytest.mark.parametrize(
    "body",
    [
        b"[" + SURROGATE + b",[" + b"{}," * 1_300_000 + b"1]]",
        b"[" + SURROGATE + b",[" + b'"",' * 1_300_000 + b"1]]",
        b"[" + b"[" * 4_000_000,
        b'["' + b'\\"' * 2_000_000,
    ],
    ids=["objects", "texts", "brackets", "quotes"],
)
def test_a_bad_body_costs_the_decoder_a_time_that_grows_with_its_bytes(
    capture: CaptureProcess, http: httpx.Client, body: bytes
) -> None:
    """33 MB of them took 21 CPU seconds. A machine ten times as slow as ours passes this."""
    headers = capture.build_headers("page") | {"content-encoding": "gzip"}
    before = capture.read_cpu_s()
    answer = http.post(EDITS, content=gzip.compress(body), headers=headers)
    assert answer.status_code in (400, 413), answer.text
    assert capture.read_cpu_s() - before < 2.0


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"1," * 16_000_000 + b"1]}]}]}",
        b'{"resourceSpans":[' + b"{}," * 10_000_000 + b"{}]}",
        b'{"resourceSpans":[{"resource":{"attributes":[' + b"{}," * 10_000_000 + b"{}]}}]}",
    ],
    ids=["spans", "resources", "attributes"],
)
def test_spans_are_counted_before_they_exist(capture: CaptureProcess, http: httpx.Client, body: bytes) -> None:
    """OTLP's JSON had the same weakness as arrays of events: 32 KB of gzip became 1.1 GB of spans."""
    headers = capture.build_headers("backend") | {"content-encoding": "gzip"}
    capture.reset_peak()
    before = capture.read_peak_bytes()
    answer = http.post("/v1/assistant/otlp/v1/traces", content=gzip.compress(body), headers=headers)
    assert answer.status_code in (400, 413), answer.text
    assert capture.read_peak_bytes() - before < 3 * 32 * MIB


def test_a_body_that_is_refused_while_it_streams_is_charged_to_its_key(
    capture: CaptureProcess, http: httpx.Client
) -> None:
    bomb = gzip.compress(b"[" + b"1," * 1_000_000 + b"1]")
    headers = capture.build_headers("slow_page") | {"content-encoding": "gzip"}
    assert http.post(EDITS, content=bomb, headers=headers).status_code == 413
    assert http.post(EDITS, content=bomb, headers=headers).status_code == 429
    assert http.post(EDITS, json=edit(), headers=capture.build_headers("page")).status_code == 202


@pytest.mark.parametrize(
    ("path", "changed", "body", "status"),
    [
        (EDITS, {"content-type": "text/plain"}, b"{}", 415),
        (EDITS, {"origin": "https://elsewhere.example"}, b"{}", 403),
        ("/v1/copilot/edits", {}, b"{}", 403),
        (EDITS, {}, b"", 400),
        (EDITS, {}, b"{}", 400),
        ("/v1/assistant/otlp/v1/traces", {}, b"[", 400),
    ],
    ids=["type", "origin", "application", "empty", "event", "spans"],
)
def test_every_refusal_is_charged_to_its_key(
    tmp_path: Path, path: str, changed: dict[str, str], body: bytes, status: int
) -> None:
    keys = tmp_path / "keys.json"
    created = create_key(keys, KeyRequest("assistant", "x", events_per_s=1.0), NOON)
    access = Access(KeyStore(keys), clock=Clock(), rates=Rates(Seconds()))
    headers = {"content-type": "application/json", "authorization": f"Bearer {created.secret}"} | changed
    with running_capture(tmp_path / "landing", ["assistant", "copilot"], clock=Clock(), access=access) as running:
        found = [httpx.post(running.url + path, content=body, headers=headers).status_code for _ in range(11)]
    assert found == [status] * 10 + [429]


def test_a_large_event_counts_for_its_bytes(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    created = create_key(keys, KeyRequest("assistant", "x", events_per_s=10.0), NOON)
    access = Access(KeyStore(keys), clock=Clock(), rates=Rates(Seconds()))
    headers = {"authorization": f"Bearer {created.secret}"}
    with running_capture(tmp_path / "landing", ["assistant"], clock=Clock(), access=access) as running:
        large = edit(prompt="x" * 2 * MIB)
        assert httpx.post(running.url + EDITS, json=large, headers=headers).status_code == 202
        assert httpx.post(running.url + EDITS, json=edit(), headers=headers).status_code == 429


# Strangers -----------------------------------------------------------------------------------------------------------


def _build_signed_head(length: str) -> bytes:
    return (
        f"POST {EDITS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\nwebhook-id: m-1\r\n"
        f"webhook-timestamp: {int(time.time())}\r\nwebhook-signature: v1,AAAA\r\n\r\n"
    ).encode()


def test_bodies_of_strangers_leave_room_for_everybody_else(
    capture: CaptureProcess, http: httpx.Client, source: str
) -> None:
    """Four bodies of 31 MiB under a made-up signature and 300 open requests: 503 for all, for a minute."""
    chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    with contextlib.ExitStack() as held:
        for _ in range(4):
            sender = held.enter_context(capture.connect(source))
            sender.settimeout(0.5)
            sender.sendall(_build_signed_head("transfer-encoding: chunked"))
            with contextlib.suppress(OSError):  # the service may stop to read it
                sender.sendall(chunk * (31 * 16))
        for _ in range(300):
            held.enter_context(capture.connect(source)).sendall(_build_signed_head("content-length: 1000"))
        for name in ("backend", "page"):
            answer = http.post(EDITS, json=edit(), headers=capture.build_headers(name))
            assert answer.status_code == 202, answer.text
        large = b"[" + json.dumps(edit(prompt="x" * MIB)).encode() + b" " * 20 * MIB + b"]"
        answer = http.post(EDITS, content=large, headers=capture.build_headers("backend"))
        assert answer.status_code == 202, answer.text


def test_a_signed_body_of_a_known_sender_is_taken(capture: CaptureProcess, http: httpx.Client) -> None:
    body = json.dumps(edit(prompt="x" * MIB)).encode()
    now = int(time.time())
    signature = sign_request(capture.secrets["crm"], "m-7", now, body)
    headers = {"webhook-id": "m-7", "webhook-timestamp": str(now), "webhook-signature": signature}
    answer = http.post(EDITS, content=body, headers=headers | {"content-type": "application/json"})
    assert answer.status_code == 202, answer.text


def test_an_address_that_only_guesses_waits_and_keys_from_it_do_not(
    capture: CaptureProcess, http: httpx.Client, source: str
) -> None:
    request = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
    with capture.connect(source) as guesser:
        answers = b""
        for _ in range(3):
            guesser.sendall(request.encode() * 1_000)
            while answers.count(b"HTTP/1.1 ") < 1_000 and (chunk := guesser.recv(2**16)):
                answers += chunk
            if b"HTTP/1.1 429 " in answers:
                break
            answers = b""
    assert b"HTTP/1.1 429 " in answers
    assert http.post(EDITS, json=edit(), headers=capture.build_headers("backend")).status_code == 202


# Connections ---------------------------------------------------------------------------------------------------------


def test_an_address_keeps_no_more_than_its_number_of_idle_connections(
    capture: CaptureProcess, http: httpx.Client, source: str
) -> None:
    """They are closed by their number and not only after 20 s; the oldest first, and none with a request on it."""
    request = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {capture.secrets['backend']}\r\n"
    body = json.dumps(edit()).encode()
    head = f"{request}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as held:
        busy = held.enter_context(capture.connect(source))
        busy.sendall(head)
        idle = [held.enter_context(capture.connect(source)) for _ in range(400)]
        assert idle[0].recv(1) == b""
        busy.sendall(body)
        assert busy.recv(2**16).startswith(b"HTTP/1.1 202 ")
        assert http.post(EDITS, json=edit(), headers=capture.build_headers("backend")).status_code == 202


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_has_said_all_gets_its_answers(capture: CaptureProcess, requests: int) -> None:
    """`shutdown(SHUT_WR)` after a request, as `nc -N` does: the connection was closed without an answer."""
    body = json.dumps(edit()).encode()
    head = (
        f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {capture.secrets['backend']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    with capture.connect() as client:
        client.sendall((head + body) * requests)
        client.shutdown(1)
        answers = b""
        while chunk := client.recv(2**16):
            answers += chunk
    assert answers.count(b"HTTP/1.1 202 ") == requests


def test_a_client_that_ends_in_the_middle_is_let_go(capture: CaptureProcess) -> None:
    with capture.connect() as client:
        client.sendall(f"POST {EDITS} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n".encode())
        client.shutdown(1)
        assert client.recv(1) == b""
