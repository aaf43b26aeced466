"""An address is printed when something answers there."""

import io
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from rich.console import Console

from flywheel_assets.capture.service import running_capture
from flywheel_assets.errors import SettingsError
from flywheel_assets.startup.readiness import Awaited, is_answering, print_ready, wait_until_ready


class Starting(BaseHTTPRequestHandler):
    """A service that answers 503 some times before it is ready."""

    refusals = 0

    def do_GET(self) -> None:
        type(self).refusals -= 1
        self.send_response(503 if type(self).refusals >= 0 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()


def test_a_service_that_refuses_does_not_answer_yet(address: str) -> None:
    Starting.refusals = 2
    assert not is_answering(address)
    ready: list[str] = []
    wait_until_ready([Awaited("slow", address)], lambda: None, lambda each, _: ready.append(each.name))
    assert ready == ["slow"]


def test_nobody_waits_for_a_service_that_has_ended(address: str) -> None:
    Starting.refusals = 10**6

    def check_alive() -> None:
        raise SettingsError("slow ended with 1")

    with pytest.raises(SettingsError, match="slow ended with 1"):
        wait_until_ready([Awaited("slow", address)], check_alive, lambda *_: None)


def test_nothing_listens_there() -> None:
    assert not is_answering("http://127.0.0.1:1/health")


def test_the_block_says_three_things_and_the_first_can_be_pasted(tmp_path_factory: pytest.TempPathFactory) -> None:
    import httpx

    with running_capture(tmp_path_factory.mktemp("landing"), ["assistant"]) as capture:
        written = io.StringIO()
        print_ready(Console(file=written, width=60), [("capture", capture.url)], capture.url, "assistant")
        block = written.getvalue()
        assert block.count("\n  1. ") == block.count("\n  2. ") == block.count("\n  3. ") == 1
        assert "flywheel turn --now -a assistant\n" in block
        assert block.endswith("a new application is taken after a restart\n")
        command = next(line for line in block.splitlines() if "curl" in line)
        words = shlex.split(command[command.index("curl") :])
        answer = httpx.post(
            words[2], content=words[words.index("-d") + 1], headers={"content-type": "application/json"}
        )
        assert answer.status_code == 202
        assert msgspec.json.decode(answer.content)
