"""What operators see: health, readiness, metrics, logs, and the document that describes the service."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flywheel_assets.capture.endpoints import ENDPOINTS, RECORDS_PATH, TRACES_PATH, CaptureLimits
from flywheel_assets.capture.log.segments import SegmentLimits
from flywheel_assets.capture.operations.telemetry import JsonLines, RefusalLog, log_json_lines
from flywheel_assets.capture.service import create_app, running_capture
from flywheel_assets.errors import LogWriteError
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.samples import JSON, MemoryLog, Seconds, edit

EDITS = "/v1/assistant/edits"
LIMITS = CaptureLimits(event_bytes=20_000, request_bytes=100_000, batch_events=50)


def metrics(text: str) -> dict[str, float]:
    """Every sample by its name and label values."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    with (
        running_capture(tmp_path, ["assistant"], limits=LIMITS) as running,
        httpx.Client(base_url=running.url) as http,
    ):
        http.post(EDITS, json=[edit(id="1"), edit(id="2"), edit(prompt=7)])
        http.post(EDITS, json=edit(id="1"))
        http.post(EDITS, content=b"x", headers={"content-type": "text/plain"})
        http.post("/v1/nobody/edits", json=edit())
        running.seal()
        answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = metrics(answer.text)
    expected = {
        "flywheel_capture_received_total assistant": 4,
        "flywheel_capture_accepted_total assistant": 3,
        "flywheel_capture_duplicates_total assistant": 1,
        "flywheel_capture_refused_events_total invalid_event": 1,
        "flywheel_capture_refused_requests_total content_type": 1,
        "flywheel_capture_refused_requests_total unknown_application": 1,
        "flywheel_capture_refused_requests_total rate_limited": 0,
        "flywheel_capture_fsync_seconds_count": 4,  # two groups, each with a file of predictions and one of feedback
        "flywheel_capture_sealed_segments_total": 2,
        "flywheel_capture_in_progress_bytes": 0,
    }
    assert {name: found[name] for name in expected} == expected
    landed_bytes = sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl"))
    assert found["flywheel_capture_written_bytes_total"] == landed_bytes
    assert found["flywheel_capture_received_bytes_total"] > 0


def test_the_configured_service_reports_its_queue(tmp_path: Path) -> None:
    from flywheel_assets.capture import service

    apps = []
    original = service.create_app

    def remember(*arguments: Any) -> Any:
        apps.append(original(*arguments))
        return apps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "create_app", remember)
        patch.setattr(service, "_build_server", lambda *_: type("Server", (), {"run": lambda self, sockets: None})())
        service.serve(Settings(home=tmp_path, capture_port=0), ["assistant"])
    with TestClient(apps[0]) as http:
        found = metrics(http.get("/metrics").text)
    assert found["flywheel_capture_queued_events"] == 0
    assert found["flywheel_capture_unpublished_segments"] == 0


def test_readiness_follows_the_log_and_health_does_not() -> None:
    log = MemoryLog()
    with TestClient(create_app(log, ["assistant"])) as http:
        assert http.get("/readyz").json() == {"status": "ready"}
        log.refusal = LogWriteError("the disk is full")
        unready = http.get("/readyz")
        assert (unready.status_code, unready.json()) == (503, {"error": "the disk is full"})
        assert int(unready.headers["retry-after"]) >= 1
        assert http.get("/healthz").status_code == 200


# Logs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the process would write to its log, as JSON lines."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log_json_lines(stream, logging.DEBUG)
    try:
        yield stream
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)


def test_every_line_is_one_json_object_and_quotes_nobody(tmp_path: Path, lines: io.StringIO) -> None:
    """Also where a library raises on what it was given: its message may quote that, so only its type is kept."""
    with running_capture(tmp_path, ["assistant"], segment_limits=SegmentLimits(segment_age_s=0.1)) as running:
        for body in (b'{"prompt":"PAYLOAD"', b'{"prompt":"PAYLOAD","original_llm_output":7}', b"\xffPAYLOAD"):
            httpx.post(running.url + EDITS, content=body, headers=JSON | {"x-secret": "PAYLOAD"})
        httpx.post(running.url + EDITS, json=edit(prompt="PAYLOAD", id="PAYLOAD"))
        httpx.post(f"{running.url}/v1/PAYLOAD/edits?key=PAYLOAD", headers={"authorization": "Bearer PAYLOAD"})
    try:
        raise ValueError("cannot read PAYLOAD")
    except ValueError:
        logging.getLogger("library").exception("failed")
    written = lines.getvalue()
    # httpx, the client of this test, logs the addresses that it asks for.
    entries = [entry for entry in map(json.loads, written.splitlines()) if not entry["logger"].startswith("http")]
    assert "PAYLOAD" not in json.dumps(entries)
    assert entries[-1]["error"] == "ValueError"
    assert "test_endpoints.py" in entries[-1]["raised_at"][0]
    assert any(entry["message"] == "requests refused" for entry in entries)


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[31mred", "\ud800", '"}\n{"level":"error"', "\u2028", "\0"])
def test_no_text_can_forge_a_line(text: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "file", 1, "said %s", (text,), None)
    line = JsonLines().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said {text}"


def test_refusals_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    seconds = Seconds()
    log = RefusalLog(seconds)
    for _ in range(1_000):
        log.note("unauthorized")
    seconds.now += 10.0
    log.note("too_large")
    log.flush()
    refused = [record.fields["refused"] for record in caplog.records]  # type: ignore[attr-defined]
    assert refused == [{"unauthorized": 1}, {"unauthorized": 999, "too_large": 1}]


def test_settings_show_no_password() -> None:
    settings = Settings(catalog_uri="postgresql://ann:PASSWORD@db/x", mlflow_uri="http://ann:PASSWORD@mlflow")
    assert "PASSWORD" not in repr(settings) + str(settings)


# The document --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with TestClient(create_app(MemoryLog(), ["assistant", "fraud"])) as http:
        described: dict[str, Any] = http.get("/openapi.json").json()
    return described


def test_the_document_is_valid_openapi_3_1_and_names_every_route(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1.")
    posted = {f"/v1/{{application}}/{endpoint.name}" for endpoint in ENDPOINTS}
    retraction = "/v1/{application}/feedback/{feedback_id}"
    assert set(document["paths"]) == posted | {TRACES_PATH, RECORDS_PATH, retraction, "/healthz", "/readyz", "/metrics"}
    (parameter,) = document["paths"]["/v1/{application}/edits"]["parameters"]
    assert parameter["schema"]["enum"] == ["assistant", "fraud"]


def test_the_document_comes_from_the_types(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["Edit"]["required"]) == {"prompt", "original_llm_output", "final_user_edit"}
    assert schemas["Edit"]["additionalProperties"] is False
    assert "thumb" in schemas["Signal"]["enum"]
