"""The event log on a broker, against a broker that the test plays."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flywheel_assets.capture.brokers import open_consumer, open_producer
from flywheel_assets.capture.brokers.broker import read_broker_address
from flywheel_assets.capture.brokers.log import BrokerLimits, BrokerLog
from flywheel_assets.capture.brokers.messages import unpack_message
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.service import create_app, serve
from flywheel_assets.errors import BrokerUnavailableError, LogWriteError, QueueFullError, SettingsError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.broker_processes import eventually
from flywheel_assets_tests.capture.samples import edit

PAYLOAD_BYTES = 16 * 1024


class Broker:
    """A producer whose answers the test decides."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.is_down = False
        self.refuses: Callable[[bytes], bool] = lambda message: False
        self.checks = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_busy = threading.Event()
        self.is_closed = False

    def check(self) -> None:
        self.checks += 1
        if self.is_down:
            raise BrokerUnavailableError("the broker is away")

    def publish(self, messages: Sequence[bytes]) -> list[str | None]:
        self.is_busy.set()
        self.may_answer.wait(20)
        if self.is_down:
            return ["the broker is away"] * len(messages)
        problems = ["refused" if self.refuses(message) else None for message in messages]
        self.messages += [message for message, problem in zip(messages, problems, strict=True) if problem is None]
        return problems

    def close(self) -> None:
        self.is_closed = True

    def texts(self) -> list[bytes]:
        return [row.line.strip() for message in self.messages for row in unpack_message(message).rows]


@contextmanager
def log_on(broker: Broker, limits: BrokerLimits | None = None) -> Iterator[BrokerLog]:
    with BrokerLog(lambda: broker, PAYLOAD_BYTES, limits or BrokerLimits(check_s=0.02)) as log:
        yield log


def row(name: object, size: int = 0) -> LandedRow:
    return LandedRow(EventKind.FEEDBACK, b'"%s%s"\n' % (str(name).encode(), b"x" * size))


def test_requests_that_wait_together_share_messages() -> None:
    broker = Broker()
    broker.may_answer.clear()
    with log_on(broker) as log:
        first = log.submit("assistant", [row("first")])
        broker.is_busy.wait(20)
        others = [log.submit("assistant", [row(number)]) for number in range(50)]
        others.append(log.submit("copilot", [row("copilot")]))
        assert not first.done()
        broker.may_answer.set()
        for future in (first, *others):
            future.result(20)
    assert len(broker.messages) == 3  # the first, fifty, and the other application's
    assert broker.is_closed


def test_only_requests_of_a_refused_message_fail() -> None:
    """Equal rows of two requests once told the second's failure to the first only."""
    broker = Broker()
    broker.refuses = lambda message: any(b"bad" in row.line for row in unpack_message(message).rows)
    broker.may_answer.clear()
    with log_on(broker) as log:
        log.submit("assistant", [row("first")])
        broker.is_busy.wait(20)
        shared = row("filling", PAYLOAD_BYTES // 2)
        futures = [log.submit("assistant", rows) for rows in ([shared], [row("bad"), shared], [shared])]
        broker.may_answer.set()
        results = [future.exception(20) for future in futures]
    assert [type(result) for result in results] == [LogWriteError, LogWriteError, type(None)]


def test_a_failing_broker_is_not_waited_for_and_asked_until_it_answers() -> None:
    broker = Broker()
    with log_on(broker) as log:
        log.submit("assistant", [row("before")]).result(20)
        broker.is_down = True
        with pytest.raises(LogWriteError, match="away; nothing was acknowledged"):
            log.submit("assistant", [row("during")]).result(20)
        assert log.find_problem() == "the broker is away"
        with pytest.raises(LogWriteError, match="away"):
            log.submit("assistant", [row("refused at once")])
        broker.is_down = False
        eventually(lambda: log.find_problem() is None, "recovery")
        log.submit("assistant", [row("after")]).result(20)
    assert broker.texts() == [b'"before"', b'"after"']


def test_a_failure_fails_everything_that_waited_with_it() -> None:
    """Each group would otherwise wait for the broker's whole timeout, one after the other."""
    broker = Broker()
    broker.may_answer.clear()
    with log_on(broker, BrokerLimits(check_s=60.0)) as log:
        log.submit("assistant", [row("in work")])
        broker.is_busy.wait(20)
        broker.is_down = True
        waiting = [log.submit("assistant", [row(number, 5_000_000)]) for number in range(4)]
        broker.may_answer.set()
        assert all(isinstance(future.exception(20), LogWriteError) for future in waiting)
        assert log.queued_events == 0


def test_a_full_queue_refuses_and_takes_nothing() -> None:
    broker = Broker()
    broker.may_answer.clear()
    with log_on(broker, BrokerLimits(queue_events=2)) as log:
        futures = [log.submit("assistant", [row("in work")])]
        broker.is_busy.wait(20)
        futures += [log.submit("assistant", [row(name)]) for name in ("a", "b")]
        with pytest.raises(QueueFullError, match="2 events"):
            log.submit("assistant", [row("c")])
        broker.may_answer.set()
        for future in futures:
            future.result(20)
    assert len(broker.texts()) == 3


def test_a_surprise_fails_its_requests_and_the_sender_lives_on() -> None:
    broker = Broker()

    def surprise(_: bytes) -> bool:
        raise ZeroDivisionError

    broker.refuses = surprise
    with log_on(broker) as log:
        with pytest.raises(LogWriteError, match="ZeroDivisionError"):
            log.submit("assistant", [row("a")]).result(20)
        broker.refuses = lambda message: False
        eventually(lambda: log.find_problem() is None, "recovery")
        log.submit("assistant", [row("b")]).result(20)


def test_stopping_sends_what_waits_and_takes_nothing_more() -> None:
    broker = Broker()
    broker.may_answer.clear()
    with log_on(broker) as log:
        future = log.submit("assistant", [row("a")])
        broker.may_answer.set()
    future.result(0)
    assert broker.texts() == [b'"a"']
    with pytest.raises(LogWriteError, match="closed"):
        asyncio.run(log.append("assistant", [row("b")]))
    assert log.find_problem() == "the event log is closed"


def test_capture_starts_while_the_broker_is_away_and_says_so() -> None:
    broker = Broker()
    broker.is_down = True
    with TestClient(
        create_app(BrokerLog(lambda: broker, PAYLOAD_BYTES, BrokerLimits(check_s=0.02)), ["assistant"])
    ) as http:
        answer = http.post("/v1/assistant/edits", json=edit())
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert http.get("/readyz").status_code == 503
        broker.is_down = False
        eventually(lambda: http.get("/readyz").status_code == 200, "recovery")
        assert http.post("/v1/assistant/edits", json=edit()).status_code == 202
    assert len(broker.texts()) == 2


@pytest.mark.parametrize(
    ("queue", "shown"),
    [
        ("sqs://sqs.eu-west-1.amazonaws.com/123/events", "sqs://sqs.eu-west-1.amazonaws.com/123/events"),
        ("kafka://a:9092,b:9092/events?group=x", "kafka://a:9092,b:9092/events"),
    ],
)
def test_addresses_are_read(queue: str, shown: str) -> None:
    assert str(read_broker_address(Settings(queue=queue))) == shown


def test_local_is_no_broker() -> None:
    assert read_broker_address(Settings()) is None


@pytest.mark.parametrize(
    "queue",
    [
        "",
        "Local",
        "redis://host/q",
        "sqs://host/queue-without-account",
        "sqs:///123/events",
        "kafka://host:9092",
        "kafka://host:9092/a/b",
        "kafka://user:secret@host:9092/topic",
        "sqs://host/1/q?regoin=x",
        "sqs://host/1/q?message_bytes=12",
        "sqs://host/1/q?message_bytes=1e9",
        "kafka://host/t?region=x",
    ],
)
def test_an_address_that_means_nothing_is_refused_without_its_secrets(queue: str) -> None:
    with pytest.raises(SettingsError, match="FLYWHEEL_QUEUE") as refusal:
        read_broker_address(Settings(queue=queue))
    assert "secret" not in str(refusal.value)


def test_kafka_properties_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kafka.json"
    file.write_text('{"sasl.password": "secret", "retries": 3}')
    address = read_broker_address(Settings(queue="kafka://host/t", queue_properties_file=file))
    assert address is not None
    assert address.properties == {"sasl.password": "secret", "retries": 3}
    for content in ("[]", "{", '{"a": {}}'):
        file.write_text(content)
        with pytest.raises(SettingsError, match=r"kafka\.json must hold one JSON object"):
            read_broker_address(Settings(queue="kafka://host/t", queue_properties_file=file))
    with pytest.raises(SettingsError, match="No such file"):
        read_broker_address(Settings(queue="kafka://host/t", queue_properties_file=tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="for Kafka"):
        read_broker_address(Settings(queue="sqs://host/1/q", queue_properties_file=file))


@pytest.mark.parametrize(
    ("queue", "module", "extra"),
    [("sqs://host/1/q?region=x", "boto3", "sqs"), ("kafka://host:1/t", "confluent_kafka", "kafka")],
)
def test_a_missing_package_is_named_with_its_extra(
    queue: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    address = read_broker_address(Settings(queue=queue))
    assert address is not None
    with pytest.raises(SettingsError, match=rf"extra `{extra}`"):
        open_consumer(address)
    with pytest.raises(SettingsError, match=rf"extra `{extra}`"):
        open_producer(address).check()


def test_a_service_with_an_unusable_queue_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FLYWHEEL_QUEUE"):
        serve(Settings(home=tmp_path, queue="redis://x/y", capture_port=0), ["assistant"])


@pytest.mark.long
def test_there_is_nothing_to_drain_without_a_broker(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "flywheel_assets.cli", "drain"],
        env=os.environ | {"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_QUEUE": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert "nothing to drain" in shown.stderr
