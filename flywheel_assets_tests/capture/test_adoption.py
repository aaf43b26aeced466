"""The few lines that adopting takes, as the README and the guide show them: each is run as it is written."""

import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flywheel_assets.capture.service import RunningCapture, running_capture
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, eventually, running_chromium
from flywheel_assets_tests.capture.samples import landed

ROOT = Path(__file__).parents[2]
SHOWN_URL = "http://127.0.0.1:8700"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Blocks that send something to capture."""
    pages = [ROOT / "README.md", ROOT / "docs" / "clients.md"]
    found = [match[2] for page in pages for match in FENCE.finditer(page.read_text()) if match[1] == language]
    return [block for block in found if SHOWN_URL in block]


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[RunningCapture]:
    with running_capture(tmp_path / "landing", ["assistant"]) as running:
        yield running


def only_edit(capture: RunningCapture, root: Path) -> tuple[str, str]:
    def rows() -> list[dict[str, str]]:
        capture.seal()
        return landed(root / "landing", "feedback")

    [row] = eventually(rows, "the landing of the edit")
    assert row["signal"] == "edit"
    return row["original_output"], row["final_text"]


def test_python_as_it_is_shown(capture: RunningCapture, tmp_path: Path) -> None:
    [shown] = blocks("python")
    code = shown.replace(SHOWN_URL, capture.url)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)
    assert only_edit(capture, tmp_path) == ("Dear Ada, no.", "Dear Ada, unfortunately not.")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the path")
@pytest.mark.parametrize("number", range(2))
def test_curl_as_it_is_shown(number: int, capture: RunningCapture, tmp_path: Path) -> None:
    # A classifier's label is posted as it is shown in test_docs.py.
    shown = [block for block in blocks("sh") if "/v1/assistant/" in block]
    assert len(shown) == 2
    command = re.match(r"curl.*?\}'$", shown[number], flags=re.DOTALL | re.MULTILINE)
    assert command is not None
    script = command[0].replace(SHOWN_URL, capture.url)
    answer = subprocess.run(["bash", "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert '"accepted":1' in answer.stdout
    original, final = only_edit(capture, tmp_path)
    assert original != final


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_a_page_as_it_is_shown(capture: RunningCapture, tmp_path: Path) -> None:
    [shown] = blocks("html")
    page = shown.replace(SHOWN_URL, capture.url)
    if "<textarea" not in page:
        page = "<textarea>Dear Ada, no.</textarea>" + page
    with _served(page) as url, running_chromium(tmp_path / "profile") as browser, browser.tab(url) as tab:
        tab.wait_for("window.flywheel && document.readyState === 'complete'")
        tab.focus_at_end("textarea")
        tab.type(" Sorry")
    assert only_edit(capture, tmp_path) == ("Dear Ada, no.", "Dear Ada, no. Sorry")


@contextmanager
def _served(page: str) -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
