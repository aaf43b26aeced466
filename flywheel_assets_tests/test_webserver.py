"""Dagster's webserver behind its guard: pages of other origins launch nothing, and the UI works."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.types import ASGIApp
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flywheel_assets.capture.service import open_socket
from flywheel_assets.devservices import _list_services, stop_processes
from flywheel_assets.webserver import PageGuard
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, running_chromium
from flywheel_assets_tests.command_line import ROOT

MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "gpu", limit: 77) }'
JSON = {"content-type": "application/json"}


@contextmanager
def serving(application: ASGIApp) -> Iterator[str]:
    """A real server in a thread; yields its host and port."""
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
    with open_socket("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving_page(html: str) -> Iterator[int]:
    """A page of another origin; yields its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture(scope="module")
def dagster_ui(instance: dg.DagsterInstance) -> Iterator[ASGIApp]:
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        yield create_app_from_workspace_process_context(context)


@pytest.fixture(scope="module")
def address(dagster_ui: ASGIApp) -> Iterator[str]:
    with serving(PageGuard(dagster_ui, only_this_machine=True)) as address:
        yield address


def has_executed(instance: dg.DagsterInstance) -> bool:
    """Whether the mutation was executed; undoes it."""
    keys = instance.event_log_storage.get_concurrency_keys()
    found = "gpu" in keys
    if found:
        instance.event_log_storage.delete_concurrency_limit("gpu")
    return found


FOREIGN_PAGE = """<title>a page of another origin</title>
<img src="http://ADDRESS/graphql?query=QUERY">
<iframe src="http://ADDRESS/graphql?query=QUERY"></iframe>
<form id="form" method="post" enctype="text/plain" target="_blank" action="http://ADDRESS/graphql?query=QUERY"></form>
<script>
const address = "http://ADDRESS/graphql";
const tries = ["text/plain", "text/plain; application/json", "application/x-www-form-urlencoded"].flatMap(type => [
  fetch(address + "?query=QUERY", {method: "POST", mode: "no-cors", body: "x", headers: {"content-type": type}}),
  fetch(address, {method: "POST", mode: "no-cors", body: JSON.stringify({query: decodeURIComponent("QUERY")}),
    headers: {"content-type": type}}),
]);
tries.push(fetch(address + "?query=QUERY", {mode: "no-cors"}));
tries.push(new Promise(done => { document.querySelector("img").onerror = done; }));
tries.push(new Promise(done => {
  const socket = new WebSocket("ws://ADDRESS/graphql", "graphql-ws");
  socket.onopen = () => { window.opened = true; done(); };
  socket.onclose = done;
}));
Promise.allSettled(tries).then(() => { window.finished = true; });
</script>"""


def build_foreign_page(address: str) -> str:
    return FOREIGN_PAGE.replace("ADDRESS", address).replace("QUERY", str(httpx.QueryParams({"q": MUTATION}))[2:])


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
def test_a_page_of_another_origin_executes_nothing(
    instance: dg.DagsterInstance, address: str, host: str, tmp_path: Path
) -> None:
    """A picture's address in any page on the web launched the maintenance of the person who looked at it."""
    with (
        serving_page(build_foreign_page(address)) as port,
        running_chromium(tmp_path / "profile") as browser,
        browser.tab(f"http://{host}:{port}/") as tab,
    ):
        tab.wait_for("window.finished === true")
        assert not has_executed(instance)
        assert tab.evaluate("window.opened") is None


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_ui_works_behind_the_guard(instance: dg.DagsterInstance, address: str, tmp_path: Path) -> None:
    with running_chromium(tmp_path / "profile") as browser, browser.tab(f"http://{address}/runs") as tab:
        tab.wait_for("document.body?.innerText.includes('No runs')")
        answer = tab.evaluate(
            "fetch('/graphql', {method: 'POST', headers: {'content-type': 'application/json'}, "
            f"body: JSON.stringify({{query: {MUTATION!r}}})}}).then(answer => answer.status)"
        )
        assert answer == 200
        assert has_executed(instance)
        acknowledged = tab.evaluate(
            "new Promise(done => { const socket = new WebSocket('ws://' + location.host + '/graphql', 'graphql-ws');"
            " socket.onopen = () => socket.send(JSON.stringify({type: 'connection_init', payload: {}}));"
            " socket.onmessage = message => done(JSON.parse(message.data).type); socket.onclose = () => done('closed');"
            " })"
        )
        assert acknowledged == "connection_ack"


def test_without_the_guard_a_picture_executes_a_mutation(instance: dg.DagsterInstance, dagster_ui: ASGIApp) -> None:
    """The reason for the guard. When this fails, Dagster has closed it, and the guard may go."""
    with serving(dagster_ui) as address:
        site = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "image", "sec-fetch-mode": "no-cors"}
        assert httpx.get(f"http://{address}/graphql", params={"query": MUTATION}, headers=site).status_code == 200
        assert has_executed(instance)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/server_info", {}, 200),
        ("POST", "/graphql", JSON, 200),
        ("POST", "/graphql", {"content-type": "application/json; charset=utf-8"}, 200),
        ("GET", "/server_info", {"host": "attacker.example"}, 403),
        ("POST", "/graphql", {**JSON, "host": "attacker.example"}, 403),
        ("POST", "/graphql", {**JSON, "origin": "http://attacker.example"}, 403),
        ("POST", "/graphql", {**JSON, "origin": "null"}, 403),
        ("POST", "/graphql", {**JSON, "sec-fetch-site": "same-site"}, 403),
        ("POST", "/graphql", {"content-type": "text/plain; application/json"}, 415),
        ("POST", "/graphql", {}, 415),
        ("GET", "/graphql?query=%7Bversion%7D", {}, 403),
        ("GET", "/graphql/?query=%7Bversion%7D", {}, 403),
        ("GET", "/graphql", {"accept": "text/html", "sec-fetch-site": "none"}, 200),
        ("GET", "/logs/a/b.out", {"sec-fetch-site": "cross-site", "sec-fetch-dest": "script"}, 403),
        ("GET", "/server_info", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_each_request(address: str, method: str, path: str, headers: dict[str, str], status: int) -> None:
    content = b'{"query": "{ version }"}' if method == "POST" else None
    answer = httpx.request(method, f"http://{address}{path}", headers=headers, content=content)
    assert answer.status_code == status, answer.text


def test_a_link_from_elsewhere_leads_to_the_ui_and_no_frame_does(address: str) -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = httpx.get(f"http://{address}/server_info", headers=followed)
    assert (answer.status_code, answer.headers["x-frame-options"]) == (200, "SAMEORIGIN")
    assert httpx.get(f"http://{address}/", headers={**followed, "sec-fetch-dest": "iframe"}).status_code == 403
    assert httpx.get(f"http://{address}/graphql", headers=followed).status_code == 403


def test_a_socket_of_another_origin_is_refused(address: str) -> None:
    options: dict[str, Any] = {"subprotocols": ["graphql-ws"]}
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://{address}/graphql", origin="http://attacker.example", **options)
    with connect(f"ws://{address}/graphql", origin=f"http://{address}", **options) as socket:
        socket.send('{"type": "connection_init", "payload": {}}')
        assert "connection_ack" in str(socket.recv(timeout=10))


_NIGHTLY = """
import dagster as dg

@dg.job
def nightly():
    pass

defs = dg.Definitions(jobs=[nightly])
"""


@pytest.mark.slow
def test_the_webserver_that_dev_starts_is_guarded(tmp_path: Path) -> None:
    """`flywheel dev` runs exactly this; a new Dagster that starts its webserver in another way would undo the guard."""
    (tmp_path / "nightly.py").write_text(_NIGHTLY)
    with open_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    dev = next(service for service in _list_services(port, 0) if service.name == "dagster")
    assert dev.command[:5] == [sys.executable, "-m", "flywheel_assets.webserver", "dev", "-w"]
    command = [*dev.command[:4], "-f", "nightly.py", *dev.command[6:]]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        asked = {"query": "{ version }"}
        deadline = time.monotonic() + 180
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json=asked)
                break
            except httpx.TransportError:
                time.sleep(0.5)
        assert answer.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/graphql", params=asked).status_code == 403
    finally:
        stop_processes([process])
