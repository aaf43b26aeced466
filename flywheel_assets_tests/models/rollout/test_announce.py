"""Telling the serving side: real commands and a real HTTP server on loopback."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flywheel_assets.capture.auth._signatures import SignedHeaders
from flywheel_assets.capture.auth.keys import WebhookSecret
from flywheel_assets.errors import RolloutError, SettingsError
from flywheel_assets.models.rollout.announce import announce_champion

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT = {
    "id": "rollout_1",
    "application": "assistant",
    "version": "dpo_gold_v1",
    "champion_before": None,
    "adapter": "/näme",
}


class Receiver(HTTPServer):
    """Answers as it is told and keeps what it got."""

    answer = 200
    delay_s = 0.0
    later: list[int]
    """The answers after the first one, each given once."""
    raw: list[tuple[dict[str, str], bytes]]
    received: list[tuple[str, str | None, dict[str, object]]]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.raw.append(({name.lower(): text for name, text in self.headers.items()}, body))
        self.server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
        time.sleep(self.server.delay_s)
        if len(self.server.raw) > 1 and self.server.later:
            self.server.answer = self.server.later.pop(0)
        self.send_response(self.server.answer)
        if self.server.answer == 307:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(("127.0.0.1", 0), Handler) as server:
        server.received, server.raw, server.later = [], [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.server_port}/v1/load"


def tell(
    command: tuple[str, ...] = (), webhook: str | None = None, timeout_s: float = 10.0, secret: str | None = None
) -> tuple[str, ...]:
    return announce_champion(
        EVENT, command=command, webhook=webhook, timeout_s=timeout_s, secret=secret, pauses_s=(0.0, 0.0)
    )


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *arguments)


def test_nothing_configured_is_nothing_done() -> None:
    assert tell() == ()


def test_the_command_gets_the_event_as_its_input(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    argument = str(tmp_path / "got $HOME; exit 1")  # no shell looks at it
    assert tell(python(code, argument)) == (f"ran {sys.executable}",)
    assert json.loads(Path(argument).read_text()) == EVENT


def test_a_command_that_does_not_read_its_input_is_fine() -> None:
    assert tell(python("")) == (f"ran {sys.executable}",)


def test_a_failing_command_is_reported_with_the_end_of_its_complaint() -> None:
    code = "import sys; sys.stderr.buffer.write(b'x' * 9000 + b'\\xff no such adapter\\n'); sys.exit(3)"
    with pytest.raises(RolloutError, match=r"ended with 3: x+\ufffd no such adapter$") as caught:
        tell(python(code))
    assert len(str(caught.value)) < 700
    assert caught.value.is_transient


def test_a_command_that_hangs_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(RolloutError, match=r"could not run.*timed out after"):
        tell(python("import time; time.sleep(60)"), timeout_s=0.3)
    assert time.monotonic() - started < 30


def test_a_command_that_does_not_exist_is_reported() -> None:
    with pytest.raises(RolloutError, match="'no-such-command' could not run"):
        tell(("no-such-command",))


def test_the_webhook_gets_the_event_as_json(receiver: Receiver) -> None:
    assert tell(webhook=url(receiver)) == ("posted to 127.0.0.1",)
    assert receiver.received == [("/v1/load", "application/json", EVENT)]


def test_both_are_told_the_command_first(receiver: Receiver) -> None:
    assert tell(python(""), url(receiver)) == (f"ran {sys.executable}", "posted to 127.0.0.1")
    with pytest.raises(RolloutError):
        tell(python("raise SystemExit(1)"), url(receiver))
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("answer", "attempts"), [(307, 1), (404, 1), (429, 3), (500, 3)])
def test_any_other_answer_is_a_failure_and_tried_again_only_where_that_may_help(
    receiver: Receiver, answer: int, attempts: int
) -> None:
    receiver.answer = answer
    with pytest.raises(RolloutError, match=str(answer)):
        tell(webhook=url(receiver))
    assert len(receiver.received) == attempts


def test_every_attempt_is_signed_for_itself_under_one_id(receiver: Receiver) -> None:
    """Capture's own door, which takes Standard Webhooks from others, reads what we send."""
    receiver.answer, receiver.later = 503, [500, 200]
    assert tell(webhook=url(receiver), secret=SECRET) == ("posted to 127.0.0.1",)
    assert [headers["webhook-id"] for headers, _ in receiver.raw] == ["rollout_1"] * 3
    known = [WebhookSecret("hook", "assistant", "ops", SECRET, datetime.now(UTC))]
    for headers, body in receiver.raw:
        assert SignedHeaders.read(headers, datetime.now(UTC)).find_signer(body, known) is known[0]
        assert json.loads(body) == EVENT


def test_without_a_secret_the_post_has_an_id_and_no_signature(receiver: Receiver) -> None:
    tell(webhook=url(receiver))
    ((headers, _),) = receiver.raw
    assert headers["webhook-id"] == "rollout_1"
    assert "webhook-signature" not in headers


@pytest.mark.parametrize("secret", ["hunter2", "whsec_hunter2", "whsec_" + "A" * 8, "A" * 32])
def test_a_secret_that_is_none_is_refused_without_showing_it(receiver: Receiver, secret: str) -> None:
    with pytest.raises(SettingsError, match="python -c") as refused:
        tell(webhook=url(receiver), secret=secret)
    assert secret not in str(refused.value).replace("whsec_' +", "")
    assert receiver.raw == []


def test_a_webhook_that_does_not_answer_in_time_is_a_failure(receiver: Receiver) -> None:
    receiver.delay_s = 0.6
    with pytest.raises(RolloutError, match=r"webhook at 127\.0\.0\.1 failed: ReadTimeout"):
        tell(webhook=url(receiver), timeout_s=0.2)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "not a url", "ftp://127.0.0.1/", "http://[::1"])
def test_an_address_that_nobody_answers_is_a_failure(address: str) -> None:
    with pytest.raises(RolloutError, match=r"webhook at .* failed"):
        tell(webhook=address)


def test_a_webhooks_password_is_told_to_nobody(receiver: Receiver) -> None:
    secret = f"http://user:hunter2@127.0.0.1:{receiver.server_port}/v1/hunter2?key=hunter2"
    assert tell(webhook=secret) == ("posted to 127.0.0.1",)
    receiver.answer = 500
    with pytest.raises(RolloutError, match=r"at 127.0.0.1 answered 500") as refused:
        tell(webhook=secret)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__
