"""The client's background delivery against scripted answers: what is retried, what is dropped, what is counted."""

import http.server
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pytest

from flywheel_client.delivery import Answer, Delivery, DeliveryLimits, HttpTransport

QUICK = DeliveryLimits(linger_s=0.0, first_pause_s=0.001, longest_pause_s=0.002)


class Script:
    """A transport that gives the next of its answers (the last one again and again) and remembers what it was sent."""

    def __init__(self, answers: Sequence[Answer | OSError] = (Answer(202),)) -> None:
        self.answers = list(answers)
        self.batches: list[list[dict[str, Any]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def post(self, body: bytes) -> Answer:
        self.may_answer.wait(20)
        self.batches.append(json.loads(body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        pass


def event(name: object = "1", **data: Any) -> dict[str, Any]:
    return {"id": str(name), "data": data}


def sent_ids(script: Script) -> list[list[str]]:
    return [[sent["id"] for sent in batch] for batch in script.batches]


def test_events_arrive_in_order_and_share_requests() -> None:
    script = Script()
    script.may_answer.clear()
    delivery = Delivery(script, DeliveryLimits(linger_s=60.0, batch_events=4))
    for number in range(9):
        assert delivery.offer(event(number), 10)
    script.may_answer.set()
    assert delivery.flush(20)
    assert list(chain.from_iterable(sent_ids(script))) == [str(number) for number in range(9)]
    assert [len(batch) for batch in script.batches] == [4, 4, 1]
    assert delivery.counts().accepted == 9


@pytest.mark.parametrize(
    "failure", [Answer(429), Answer(503), Answer(502), Answer(504), Answer(408), OSError("connection refused")]
)
def test_what_may_succeed_later_is_sent_again(failure: Answer | OSError) -> None:
    script = Script([failure, failure, Answer(202)])
    delivery = Delivery(script, QUICK)
    delivery.offer(event(), 10)
    assert delivery.flush(20)
    assert sent_ids(script) == [["1"], ["1"], ["1"]]
    counts = delivery.counts()
    assert (counts.accepted, counts.retries, counts.dropped) == (1, 2, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 500, 301])
def test_what_will_never_succeed_is_sent_once_and_counted(status: int) -> None:
    script = Script([Answer(status, b'{"error":"no"}')])
    delivery = Delivery(script, QUICK)
    delivery.offer(event(), 10)
    assert delivery.flush(20)
    assert len(script.batches) == 1
    assert delivery.counts().refused == delivery.counts().dropped == 1


def test_single_refused_events_of_a_request_are_counted() -> None:
    results = [{"id": "0", "status": "accepted"}, {"id": "1", "status": "refused", "error": "bad"}]
    answer = Answer(202, json.dumps({"accepted": 1, "results": results}).encode())
    delivery = Delivery(Script([answer]), DeliveryLimits(linger_s=60.0, batch_events=2))
    delivery.offer(event(0), 10)
    delivery.offer(event(1), 10)
    assert delivery.flush(20)
    assert (delivery.counts().accepted, delivery.counts().refused) == (1, 1)


def test_a_request_that_is_too_large_is_halved_until_it_fits() -> None:
    class Small(Script):
        def post(self, body: bytes) -> Answer:
            super().post(body)
            return Answer(413) if len(self.batches[-1]) > 2 else Answer(202)

    script = Small()
    script.may_answer.clear()
    delivery = Delivery(script, DeliveryLimits(linger_s=60.0, batch_events=7))
    for number in range(7):
        delivery.offer(event(number), 10)
    script.may_answer.set()
    assert delivery.flush(20)
    assert delivery.counts().accepted == 7
    delivered = [batch for batch in sent_ids(script) if len(batch) <= 2]
    assert list(chain.from_iterable(delivered)) == [str(number) for number in range(7)]


def test_a_pause_is_as_long_as_capture_asks_plus_jitter() -> None:
    asked: list[float] = []

    def jitter(most_s: float) -> float:
        asked.append(most_s)
        return 0.0

    limits = DeliveryLimits(linger_s=0.0, first_pause_s=1.0, longest_pause_s=3.0)
    delivery = Delivery(Script([Answer(503)] * 4 + [Answer(202)]), limits, jitter)
    delivery.offer(event(), 10)
    assert delivery.flush(20)
    assert asked == [1.0, 2.0, 3.0, 3.0]

    delivery = Delivery(Script([Answer(503, retry_after_s=30.0), Answer(202)]), limits, jitter)
    delivery.offer(event(), 10)
    assert not delivery.flush(0.2), "it did not wait as long as it was asked to"
    delivery.close(0.0)
    assert delivery.counts().closed == 1


@pytest.mark.parametrize("limits", [DeliveryLimits(buffer_events=3), DeliveryLimits(buffer_characters=30)])
def test_a_full_buffer_drops_and_counts_and_never_waits(limits: DeliveryLimits) -> None:
    script = Script()
    script.may_answer.clear()
    delivery = Delivery(script, limits)
    taken = [delivery.offer(event(number), 10) for number in range(20)]
    counts = delivery.counts()
    assert taken.count(False) == counts.buffer_full == counts.dropped > 0
    assert counts.waiting == taken.count(True) <= 3 + 3  # some may have left the buffer for a request
    script.may_answer.set()
    assert delivery.flush(20)
    assert delivery.counts().accepted == taken.count(True)


def test_one_event_larger_than_the_buffer_passes_when_nothing_waits() -> None:
    delivery = Delivery(Script(), DeliveryLimits(linger_s=0.0, buffer_characters=10))
    assert delivery.offer(event(), 1000)
    assert delivery.flush(20)


def test_what_is_no_json_or_too_large_is_dropped_and_its_neighbours_arrive() -> None:
    script = Script()
    delivery = Delivery(script, DeliveryLimits(linger_s=60.0, batch_events=6, event_bytes=1000))
    loop: list[Any] = []
    loop.append(loop)
    for number, bad in enumerate([object(), float("nan"), loop, "x" * 2000, {1, 2}]):
        delivery.offer(event(number, value=bad), 10)
    delivery.offer(event("good"), 10)
    assert delivery.flush(20)
    assert sent_ids(script) == [["good"]]
    assert (delivery.counts().invalid, delivery.counts().accepted) == (5, 1)


def test_closing_delivers_what_waits_and_then_takes_nothing() -> None:
    script = Script()
    delivery = Delivery(script, DeliveryLimits(linger_s=60.0))
    for number in range(5):
        delivery.offer(event(number), 10)
    delivery.close(20.0)
    assert not delivery.offer(event(), 10)
    counts = delivery.counts()
    assert (counts.accepted, counts.closed, counts.waiting) == (5, 1, 0)


def test_closing_gives_up_in_time_and_counts_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery(Script([OSError("connection refused")]), QUICK)
    for number in range(5):
        delivery.offer(event(number, text="private"), 10)
    with caplog.at_level(logging.WARNING):
        delivery.close(0.2)
    counts = delivery.counts()
    assert (counts.accepted, counts.closed, counts.waiting) == (0, 5, 0)
    assert "5 events could not be delivered" in caplog.text
    assert "private" not in caplog.text


def test_an_answer_after_giving_up_is_not_counted_twice() -> None:
    script = Script()
    script.may_answer.clear()
    delivery = Delivery(script, QUICK)
    delivery.offer(event(), 10)
    delivery.close(0.05)
    thread = delivery._thread
    assert thread is not None
    script.may_answer.set()
    thread.join(20)
    assert (delivery.counts().closed, delivery.counts().accepted) == (1, 0)


def test_a_forked_child_delivers_its_own_events_and_not_its_parents() -> None:
    """A pre-forking server's workers once inherited a buffer without its thread: nothing they logged arrived."""
    script = Script()
    script.may_answer.clear()
    delivery = Delivery(script, QUICK)
    delivery.offer(event("parent"), 10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        script.may_answer = threading.Event()
        script.may_answer.set()
        script.batches.clear()
        delivery.offer(event("child"), 10)
        delivery.flush(20)
        os.write(writer, json.dumps(sent_ids(script)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(reader, 1000)) == [["child"]]
    os.close(reader)
    os.close(writer)
    script.may_answer.set()
    assert delivery.flush(20)
    assert sent_ids(script) == [["parent"]]


class Capture(http.server.BaseHTTPRequestHandler):
    """Answers what the test put into `server.answers` and remembers requests; may hang up after each answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append((self.path, dict(self.headers), json.loads(body)))
        status, headers = server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        if server.hangs_up:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Capture)
    server.answers, server.requests, server.hangs_up = [], [], False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_carry_the_key_and_the_path(server: Any) -> None:
    server.answers = [(202, {})]
    transport = HttpTransport(f"http://127.0.0.1:{server.server_port}/behind/", "assistant", "fwk_secret")
    assert transport.post(b"[1]").status == 202
    transport.close()
    [(path, headers, body)] = server.requests
    assert (path, body) == ("/behind/v1/assistant/events", [1])
    assert headers["Authorization"] == "Bearer fwk_secret"
    assert headers["Content-Type"] == "application/cloudevents-batch+json"


def test_a_connection_that_was_closed_while_idle_is_opened_again(server: Any) -> None:
    server.answers = [(202, {})] * 3
    server.hangs_up = True
    transport = HttpTransport(f"http://127.0.0.1:{server.server_port}", "assistant")
    assert [transport.post(b"[]").status for _ in range(3)] == [202, 202, 202]
    transport.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("999999999999", 3600.0), ("soon", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-3", 0.0)],
)
def test_retry_after_is_read(server: Any, header: str, seconds: float) -> None:
    server.answers = [(503, {"Retry-After": header})]
    transport = HttpTransport(f"http://127.0.0.1:{server.server_port}", "assistant")
    assert transport.post(b"[]").retry_after_s == seconds
    transport.close()


def test_no_server_is_an_error_of_the_connection() -> None:
    transport = HttpTransport("http://127.0.0.1:1", "assistant", timeout_s=2.0)
    with pytest.raises(OSError, match="refused"):
        transport.post(b"[]")


@pytest.mark.parametrize("url", ["127.0.0.1:8700", "ftp://host", "http://", ""])
def test_an_unusable_url_is_refused_with_a_valid_one(url: str) -> None:
    with pytest.raises(ValueError, match="valid: http"):
        HttpTransport(url, "assistant")
