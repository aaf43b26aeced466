"""What a webhook is told, over real HTTP: when, once, and without texts or addresses."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.alerts import build_alert_sensors, post_alert
from flywheel_assets.defs.failures import FAILURE_TAG
from flywheel_assets.defs.resources import Stores
from flywheel_assets.errors import AlertError, SettingsError
from flywheel_assets.lake.daily import breaker
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.builders import NOON, day, make_feedback
from flywheel_assets_tests.lake.raid import LIMITS, RAID
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder


@dataclass
class Webhook:
    """What was posted to it; answers with `status`."""

    url: str = ""
    status: int = 200
    bodies: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Webhook]:
    hook = Webhook()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    hook.url = f"http://127.0.0.1:{server.server_port}/services/T0/SECRET"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


def bench_in(home: Path) -> Workbench:
    bench = Workbench(home, limits=LIMITS)
    bench.lake = Stores(home=str(home)).lake("assistant")
    return bench


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    bench = bench_in(tmp_path_factory.mktemp("raided"))
    for offset, rows in enumerate((5, 5, RAID)):
        bench.land(EventKind.FEEDBACK, day(offset), [make_feedback() for _ in range(rows)])
    days = [day(offset) for offset in range(3)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    return PreparedFolder(bench.root)


@pytest.fixture
def raided(prepared: PreparedFolder) -> Workbench:
    return bench_in(prepared.restored())


def tick(webhook: str | None, home: Path, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    sensor = build_alert_sensors(APPLICATION, webhook)[1]
    with dg.build_sensor_context(cursor=cursor, resources={"stores": Stores(home=str(home))}) as context:
        found = sensor(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def test_without_a_webhook_both_sensors_are_off_and_say_so(tmp_path: Path) -> None:
    sensors = build_alert_sensors(APPLICATION, None)
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}
    assert "FLYWHEEL_ALERT_WEBHOOK is not set" in str(tick(None, tmp_path).skip_message)


def test_a_tripped_day_is_told_once(raided: Workbench, hook: Webhook) -> None:
    first = tick(hook.url, raided.root)
    tick(hook.url, raided.root, first.cursor)
    [body] = map(json.loads, hook.bodies)
    assert body["days"] == {str(day(2)): ["burst 2.05 > 2"]}
    assert body["text"] == (
        f"assistant: 1 days kept out of gold. {day(2)}: burst 2.05 > 2. "
        "See `flywheel breaker list --application assistant`."
    )


def test_a_day_that_was_let_in_and_trips_again_is_news(raided: Workbench, hook: Webhook) -> None:
    first = tick(hook.url, raided.root)
    breaker.reset_day(raided.lake, day(2), who="ada", reason="the launch", now=NOON)
    raided.curate([day(2)])
    second = tick(hook.url, raided.root, first.cursor)
    assert second.cursor == "[]"
    assert len(hook.bodies) == 1


def test_an_alert_that_was_not_taken_is_sent_again_and_its_address_is_told_to_nobody(
    raided: Workbench, hook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = 500
    caplog.set_level(logging.INFO)
    with pytest.raises(AlertError, match=r"status 500") as caught:
        tick(hook.url, raided.root)
    assert caught.value.__context__ is None
    assert "SECRET" not in f"{caught.value} {caplog.text}"
    hook.status = 200
    tick(hook.url, raided.root)
    assert len(hook.bodies) == 2


def test_a_failed_run_is_told_without_what_it_said(hook: Webhook) -> None:
    @dg.op
    def failing(context: dg.OpExecutionContext) -> None:
        context.instance.add_run_tags(context.run_id, {FAILURE_TAG: "permanent"})
        raise ValueError("the user wrote: attack at dawn")

    @dg.job
    def nightly() -> None:
        failing()

    with dg.DagsterInstance.ephemeral() as instance:
        result = nightly.execute_in_process(
            instance=instance, raise_on_error=False, tags={"dagster/partition": "dpo_gold_v3"}
        )
        run = instance.get_run_by_id(result.run_id)
        [failure] = [event for event in result.all_events if event.is_failure and not event.is_step_failure]
        context = dg.build_run_status_sensor_context("run_failure_alert", failure, instance, run)
        build_alert_sensors(APPLICATION, hook.url)[0](context.for_run_failure())
    [body] = map(json.loads, hook.bodies)
    assert body["text"] == (f"assistant: run {result.run_id[:8]} of nightly failed (permanent), partition dpo_gold_v3")
    assert "dawn" not in hook.bodies[0]


def test_an_address_that_is_no_web_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="no http or https URL") as caught:
        post_alert("file:///etc/passwd", {})
    assert "passwd" not in str(caught.value)


def test_a_webhook_that_is_not_there() -> None:
    with listening() as gone:
        pass
    with pytest.raises(AlertError, match="did not take an alert"):
        post_alert(gone.url, {"text": "x"})
