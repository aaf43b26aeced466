"""Brokers in processes of their own, which can fall silent and come back: moto's SQS, librdkafka's mock cluster."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-west-1"}
_KAFKA = (
    "import ctypes, signal\n"
    "from confluent_kafka import cimpl\n"
    "kafka = ctypes.CDLL(cimpl.__file__)\n"
    "for maker in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_mock_cluster_new):\n"
    "    maker.restype = ctypes.c_void_p\n"
    "kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p\n"
    "settings = ctypes.c_void_p(kafka.rd_kafka_conf_new())\n"
    "kafka.rd_kafka_conf_set(settings, b'log_level', b'2', None, 0)\n"
    "client = ctypes.c_void_p(kafka.rd_kafka_new(0, settings, None, 0))\n"
    "cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(client, 3))\n"
    "kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)\n"
    "print(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)\n"
    "signal.pause()\n"
)
"""The mock cluster by its C interface, because only there a new group need not wait 3 s for further members."""
_KAFKA_PROPERTIES = {"session.timeout.ms": 2_000, "heartbeat.interval.ms": 500}
"""A group that had members before waits for them for a session less one second, whether they left or died."""


def eventually(found: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
    deadline = time.monotonic() + deadline_s
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what} did not happen within {deadline_s:.0f} s"
        time.sleep(0.05)
    return result


@dataclass
class BrokerProcess:
    """One broker; `queue(name)` makes a queue or topic and gives its FLYWHEEL_QUEUE."""

    process: "subprocess.Popen[str]"
    queue: Callable[[str], str]
    put: Callable[[str, bytes], None]
    """Sends a message that this project did not make."""
    properties: Mapping[str, int] = field(default_factory=dict)
    """For FLYWHEEL_QUEUE_PROPERTIES_FILE."""

    def fall_silent(self) -> None:
        """Connections hang and new ones are never answered: harder on clients than a refusal."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def come_back(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def sqs_process() -> Iterator[BrokerProcess]:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server", exc_type=ImportError)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        eventually(lambda: process.poll() is None and _answers(port), "moto's start")
        session = boto3.session.Session("testing", "testing", region_name="eu-west-1")
        client = session.client("sqs", endpoint_url=f"http://127.0.0.1:{port}")

        def queue(name: str) -> str:
            url = client.create_queue(QueueName=name)["QueueUrl"]
            account = url.split("/")[-2]
            return f"sqs://127.0.0.1:{port}/{account}/{name}?tls=false&region=eu-west-1&visibility_s=2"

        def put(name: str, body: bytes) -> None:
            client.send_message(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=body.decode())

        yield BrokerProcess(process, queue, put)
        client.close()
    finally:
        _end(process)


@contextmanager
def kafka_process() -> Iterator[BrokerProcess]:
    kafka = pytest.importorskip("confluent_kafka")
    process = subprocess.Popen(
        [sys.executable, "-c", _KAFKA], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        hosts = process.stdout.readline().strip()

        def queue(name: str) -> str:
            # The mock cluster knows no CreateTopics; whoever asks about a topic makes it, unless it says otherwise.
            kafka.Producer({"bootstrap.servers": hosts}).list_topics(name, timeout=20)
            return f"kafka://{hosts}/{name}?group={name}"

        def put(name: str, body: bytes) -> None:
            producer = kafka.Producer({"bootstrap.servers": hosts})
            producer.produce(name, body)
            assert producer.flush(20) == 0

        yield BrokerProcess(process, queue, put, _KAFKA_PROPERTIES)
    finally:
        _end(process)


BROKERS = {"sqs": sqs_process, "kafka": kafka_process}


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()  # a stopped process takes no other signal
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
