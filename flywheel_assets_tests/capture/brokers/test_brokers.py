"""One behaviour suite over every broker, each in a process of its own: append, drain, outage, SIGKILL."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.brokers import open_consumer, open_producer
from flywheel_assets.capture.brokers.broker import BrokerAddress, read_broker_address
from flywheel_assets.capture.brokers.drain import DrainCounts, drain_broker
from flywheel_assets.capture.brokers.log import BrokerLimits, BrokerLog
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.errors import LogWriteError, SettingsError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.broker_processes import BROKERS, CREDENTIALS, BrokerProcess, eventually
from flywheel_assets_tests.capture.samples import edit, landed
from flywheel_client import DeliveryLimits, FlywheelClient

_names = (f"events-{number}" for number in itertools.count())
SERVICE = (
    "from flywheel_assets.capture.service import serve\n"
    "from flywheel_assets.settings import read_settings\n"
    "serve(read_settings(), ['assistant'], on_ready=lambda url: print(url, flush=True))\n"
)


@pytest.fixture(scope="module", params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerProcess]:
    with pytest.MonkeyPatch.context() as patch, BROKERS[request.param]() as process:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield process


class Queue:
    """A queue or topic of its own, and what may stand at its two ends."""

    def __init__(self, broker: BrokerProcess, home: Path) -> None:
        self.broker = broker
        self.home = home
        self.name = next(_names)
        self.url = broker.queue(self.name)
        self.root = home / "landing"
        properties = home / "properties.json" if broker.properties else None
        if properties is not None:
            properties.write_text(json.dumps(broker.properties))
        address = read_broker_address(Settings(queue=self.url, queue_properties_file=properties))
        assert address is not None
        self.address: BrokerAddress = address

    def log(self) -> BrokerLog:
        limits = BrokerLimits(check_s=0.1)
        return BrokerLog(lambda: open_producer(self.address), self.address.payload_bytes, limits)

    def drain(self, segment_log: SegmentLog | None = None, wait_s: float = 1.0) -> DrainCounts:
        """What there is, until there is no more."""
        with SegmentLog(self.root) as own_log:
            return drain_broker(
                lambda: open_consumer(self.address),
                segment_log or own_log,
                self.root,
                threading.Event(),
                until_empty=True,
                wait_s=wait_s,
            )

    def process(self, *command: str) -> "subprocess.Popen[str]":
        environment = os.environ | {"FLYWHEEL_QUEUE": self.url, "FLYWHEEL_HOME": str(self.home)}
        environment["FLYWHEEL_CAPTURE_PORT"] = "0"
        return subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


@pytest.fixture
def queue(broker: BrokerProcess, tmp_path: Path) -> Queue:
    return Queue(broker, tmp_path)


def row(name: object, kind: EventKind = EventKind.FEEDBACK, text: str = "") -> LandedRow:
    return LandedRow(kind, f'{{"event_id":"{name}","text":"{text}"}}\n'.encode())


def event_ids(root: Path, kind: str = "feedback", application: str = "assistant") -> list[str]:
    return [found["event_id"] for found in landed(root, kind, application)]


def test_what_was_acknowledged_lands_byte_for_byte(queue: Queue) -> None:
    lines = [row("a", text="Übung 🙂 \\u0000 \\ud83d\\ude42 ]]>"), row("b", EventKind.PREDICTION, text='\\"quoted\\"')]
    with queue.log() as log:
        log.submit("assistant", lines).result(20)
        log.submit("copilot", [row("c")]).result(20)
        assert log.find_problem() is None
    counts = queue.drain()
    assert (counts.rows, counts.unreadable, counts.interruptions) == (3, 0, 0)
    for kind, line in (("feedback", lines[0]), ("prediction", lines[1])):
        [segment] = (queue.root / "assistant" / kind).glob("received_date=*/*.jsonl")
        assert segment.read_bytes() == line.line
    assert event_ids(queue.root, application="copilot") == ["c"]


@pytest.mark.long
def test_a_large_request_is_split_and_small_ones_share_messages(queue: Queue) -> None:
    rows = [row(number, text=os.urandom(2_000).hex()) for number in range(300)]  # 1.2 MB that hardly compress
    with queue.log() as log:
        small: list[Future[None]] = [log.submit("assistant", [row(f"small-{number}")]) for number in range(500)]
        log.submit("assistant", rows).result(30)
        for future in small:
            future.result(30)
    counts = queue.drain()
    assert counts.rows == 800
    assert counts.messages < 100
    assert set(event_ids(queue.root)) == {*map(str, range(300)), *(f"small-{number}" for number in range(500))}


def test_the_largest_row_fits_and_was_not_compressible(queue: Queue) -> None:
    from flywheel_assets.capture.brokers.messages import compute_raw_bytes

    largest = compute_raw_bytes(queue.address.payload_bytes)
    noise = os.urandom(largest)
    line = bytes(33 + byte % 90 for byte in noise).replace(b"\\", b"/").replace(b'"', b"'")
    body = b'{"event_id":"big","text":"' + line[: largest - 40] + b'"}\n'
    with queue.log() as log:
        log.submit("assistant", [LandedRow(EventKind.FEEDBACK, body)]).result(30)
    queue.drain()
    assert event_ids(queue.root) == ["big"]


@pytest.mark.long
def test_an_unreadable_message_is_kept_and_holds_nobody_up(queue: Queue) -> None:
    queue.broker.put(queue.name, b"not one of ours")
    with queue.log() as log:
        log.submit("assistant", [row("after")]).result(20)
    assert queue.drain().unreadable == 1
    assert event_ids(queue.root) == ["after"]
    [kept] = (queue.root / "_unreadable").iterdir()
    assert kept.read_bytes() == b"not one of ours"
    assert queue.drain() == DrainCounts()


@pytest.mark.slow
def test_what_the_disk_refused_comes_again(queue: Queue) -> None:
    class FullOnce(SegmentLog):
        refusals = 1

        def submit(self, application: str, rows: object) -> "Future[None]":
            if self.refusals:
                self.refusals -= 1
                raise LogWriteError("the disk refused the events")
            return super().submit(application, rows)  # type: ignore[arg-type]

    with queue.log() as log:
        log.submit("assistant", [row("a")]).result(20)
    with FullOnce(queue.root) as segment_log:
        counts = queue.drain(segment_log, wait_s=4.0)  # SQS shows what was not settled again after 2 s
    assert counts.interruptions == 1
    assert event_ids(queue.root) == ["a"]


@pytest.mark.slow
def test_a_silent_broker_costs_nothing_that_was_acknowledged(queue: Queue) -> None:
    """Capture refuses with 503 and says when to come again, its client waits, the drain waits; then all goes on."""
    service, drainer = queue.process("-c", SERVICE), queue.process("-m", "flywheel_assets.cli", "drain")
    try:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        limits = DeliveryLimits(linger_s=0.0, first_pause_s=0.2, longest_pause_s=1.0)
        with httpx.Client(base_url=url, timeout=60) as http, FlywheelClient(url, "assistant", limits=limits) as client:
            assert http.post("/v1/assistant/edits", json=edit(id="before")).status_code == 202
            queue.broker.fall_silent()
            try:
                refused = http.post("/v1/assistant/edits", json=edit(id="during"))
                assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
                assert http.get("/readyz").status_code == 503
                assert http.get("/healthz").status_code == 200
                client.label("patient", "sent during the outage")
                assert not client.flush(1.0)
            finally:
                queue.broker.come_back()
            eventually(lambda: http.get("/readyz").status_code == 200, "capture's recovery")
            assert http.post("/v1/assistant/edits", json=edit(id="after")).status_code == 202
            assert client.flush(60)
            assert client.counts().delivery.dropped == 0
        eventually(lambda: _durable(queue.root) >= {"before", "after", "patient"}, "the drain's recovery")
    finally:
        for process in (service, drainer):
            process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()
    assert {found["prediction_id"] for found in landed(queue.root, "feedback")} >= {"before", "after", "patient"}


@pytest.mark.slow
def test_a_drain_that_is_killed_again_and_again_loses_nothing(queue: Queue) -> None:
    expected: set[str] = set()
    with queue.log() as log:
        for turn in range(4):
            names = [f"{turn}-{number}" for number in range(50)]
            for name in names:  # one after the other: each is a message of its own
                log.submit("assistant", [row(name)]).result(20)
            expected |= set(names)
            before = len(_durable(queue.root, "event_id"))
            with queue.process("-m", "flywheel_assets.cli", "drain") as drainer:
                eventually(lambda: len(_durable(queue.root, "event_id")) > before, "some progress")  # noqa: B023
                os.kill(drainer.pid, signal.SIGKILL)
    for _ in range(5):
        if set(event_ids(queue.root)) >= expected:
            break
        queue.drain(wait_s=4.0)
    assert set(event_ids(queue.root)) == expected


def _durable(root: Path, field: str = "prediction_id") -> set[str]:
    """What is durable, published or not; a line that is being written has no end yet and counts not."""
    found = set()
    for path in root.glob("assistant/feedback/*/*.jsonl"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # it was published in this moment, and is found there the next time
            continue
        found |= {json.loads(line)[field] for line in content.splitlines(keepends=True) if line.endswith(b"\n")}
    return found


def test_a_queue_that_does_not_exist_stops_capture_and_drain_at_their_start(queue: Queue) -> None:
    address = read_broker_address(Settings(queue=queue.url.replace(queue.name, "nowhere")))
    assert address is not None
    with pytest.raises(SettingsError, match="nowhere"):
        BrokerLog(lambda: open_producer(address), address.payload_bytes).start()
    with SegmentLog(queue.root) as log, pytest.raises(SettingsError, match="nowhere"):
        drain_broker(lambda: open_consumer(address), log, queue.root, threading.Event(), wait_s=10.0)
