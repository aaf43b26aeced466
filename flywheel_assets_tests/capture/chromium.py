"""A headless Chromium, driven over the DevTools protocol: just what the browser tests need."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium on the path (chromium, chromium-browser or google-chrome)"
_DEADLINE_S = 30.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    *("--window-size=900,1100", "about:blank"),
)


def eventually(found: Callable[[], Any], what: str) -> Any:
    """The first truthy answer of `found`; fails loudly when none comes."""
    deadline = time.monotonic() + _DEADLINE_S
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what} did not happen within {_DEADLINE_S:.0f} s"
        time.sleep(0.02)
    return result


class Tab:
    """One page. Keys and clicks go in as a person's would, so that the browser makes the events of a person's."""

    def __init__(self, browser: "Chromium", target: str, socket: ClientConnection) -> None:
        self.browser = browser
        self.target = target
        self.socket = socket
        self.numbers = count(1)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=_DEADLINE_S))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        return eventually(lambda: self.evaluate(expression), expression)

    def focus_at_end(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({selector!r}).focus()")
        self.key("End", ["moveToEndOfDocument"])

    def type(self, text: str) -> None:
        for character in text:
            self.send("Input.dispatchKeyEvent", type="char", text=character)

    def key(self, key: str, commands: list[str]) -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, commands=commands)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def select_all_and_copy(self) -> None:
        self.key("a", ["selectAll"])
        self.key("c", ["copy"])

    def click(self, selector: str) -> None:
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """As a person closes a tab; returns when it is gone."""
        self.socket.send(json.dumps({"id": next(self.numbers), "method": "Page.close"}))
        eventually(lambda: self.target not in self.browser.targets(), "the tab's end")


class Chromium:
    """A running browser with a profile of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def targets(self) -> list[str]:
        return [target["id"] for target in httpx.get(f"{self.address}/json/list", timeout=_DEADLINE_S).json()]

    @contextmanager
    def tab(self, url: str) -> Iterator[Tab]:
        """A new tab, closed in the end if nobody did."""
        target = httpx.put(f"{self.address}/json/new?{url}", timeout=_DEADLINE_S).json()
        with connect(target["webSocketDebuggerUrl"], max_size=None, compression=None) as socket:
            tab = Tab(self, target["id"], socket)
            yield tab
            if target["id"] in self.targets():
                tab.close()


@contextmanager
def running_chromium(profile: Path) -> Iterator[Chromium]:
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, f"--user-data-dir={profile}", *_FLAGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port_file = profile / "DevToolsActivePort"
        eventually(lambda: process.poll() is None and port_file.exists() and port_file.read_text(), "Chromium's start")
        yield Chromium(f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
