import errno
import json
import logging
import os
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from flywheel_assets.capture.endpoints import CaptureLimits
from flywheel_assets.capture.log.segments import SegmentLimits
from flywheel_assets.capture.service import RunningCapture, create_app, running_capture, serve
from flywheel_assets.errors import QueueFullError, SettingsError
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.samples import (
    BATCH,
    JSON,
    NDJSON,
    Clock,
    MemoryLog,
    edit,
    feedback_event,
    landed,
    open_segments,
    prediction_event,
    received_days,
)

EVENTS = "/v1/assistant/events"
EDITS = "/v1/assistant/edits"
LIMITS = CaptureLimits(event_bytes=2_000, request_bytes=50_000, batch_events=20)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCapture]:
    root = tmp_path_factory.mktemp("landing")
    with running_capture(root, ["assistant", "copilot"], limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def http(capture: RunningCapture) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=capture.url, timeout=20) as client:
        yield client


def statuses(answer: httpx.Response) -> list[str]:
    return [result["status"] for result in answer.json()["results"]]


def test_an_edit_goes_from_http_to_a_published_segment(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"], Clock()) as running:
        answer = httpx.post(running.url + EDITS, json=edit(user_id="ann"))
        assert answer.status_code == 202
        assert answer.json()["accepted"] == 1
        assert landed(tmp_path, "feedback") == []
        running.seal()
        (feedback,) = landed(tmp_path, "feedback")
        (prediction,) = landed(tmp_path, "prediction")
    assert feedback["final_text"] == "Like this."
    assert feedback["prediction_id"] == prediction["prediction_id"] == answer.json()["results"][0]["id"]
    assert received_days(tmp_path, "feedback") == ["2026-03-02"]


def test_leaving_the_service_seals_what_was_acknowledged(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"], segment_limits=SegmentLimits(segment_age_s=3600)) as running:
        httpx.post(running.url + EDITS, json=edit())
    assert len(landed(tmp_path, "feedback")) == 1
    assert open_segments(tmp_path) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cloudevents+json", json.dumps(prediction_event())),
        ("application/cloudevents+json; charset=UTF-8", json.dumps(feedback_event())),
        ("application/cloudevents-batch+json", json.dumps([prediction_event(), feedback_event()])),
        ("application/x-ndjson", json.dumps(prediction_event()) + "\r\n\n" + json.dumps(feedback_event())),
        ("application/json", json.dumps(prediction_event())),
        ("application/json", " " + json.dumps([prediction_event()])),
    ],
)
def test_every_form_of_cloudevents(http: httpx.Client, content_type: str, body: str) -> None:
    answer = http.post(EVENTS, content=body, headers={"content-type": content_type})
    assert answer.status_code == 202, answer.text
    assert set(statuses(answer)) == {"accepted"}
    assert {result["id"] for result in answer.json()["results"]} <= {"p-1", "f-1"}


@pytest.mark.parametrize(
    ("headers", "join"), [(JSON, lambda parts: b"[" + b",".join(parts) + b"]"), (NDJSON, b"\n".join)]
)
@pytest.mark.parametrize(
    "bad",
    [
        b'{"prompt":"\\ud800","original_llm_output":"a","final_user_edit":"b"}',
        b'{"prompt":"\xff","original_llm_output":"a","final_user_edit":"b"}',
        b'{"prompt":"p","original_llm_output":"a","final_user_edit":"b","edited_by":"ann"}',
        b'{"prompt":"p","original_llm_output":"a"}',
        b'{"prompt":7,"original_llm_output":"a","final_user_edit":"b"}',
        b'{"prompt":"p","original_llm_output":"' + b"a" * 2_000 + b'","final_user_edit":"b"}',
        b"null",
        b"nul",
    ],
)
def test_one_bad_element_costs_only_itself(http: httpx.Client, headers: dict[str, str], join: Any, bad: bytes) -> None:
    good = [json.dumps(edit(id=f"good-{number}")).encode() for number in range(2)]
    answer = http.post(EDITS, content=join([good[0], bad, good[1]]), headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 2
    first, refused, last = answer.json()["results"]
    assert (first["id"], last["id"]) == ("good-0", "good-1")
    assert refused["status"] == "refused"
    assert refused["error"]


def test_a_refused_event_is_named_by_its_id(http: httpx.Client) -> None:
    answer = http.post(EVENTS, json=[prediction_event(id="p-9", source="reviewer")], headers=BATCH)
    assert answer.status_code == 400
    assert answer.json()["accepted"] == 0
    assert answer.json()["results"][0]["id"] == "p-9"
    assert "reserved" in answer.json()["results"][0]["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "says"),
    [
        ("POST", "/v1/unknown/edits", JSON, b"{}", 404, "unknown application 'unknown'; known: assistant, copilot"),
        ("POST", "/v1/support/edits", JSON, b"{}", 404, "Capture takes a new one after a restart"),
        ("POST", "/v1/..%2Fx/edits", JSON, b"{}", 404, ""),
        ("POST", "/v1/%ff%00/edits", JSON, b"{}", 404, ""),
        ("GET", EDITS, {}, b"", 405, "Method Not Allowed"),
        ("POST", EDITS, {}, b"{}", 415, "valid: application/json, application/x-ndjson"),
        ("POST", EDITS, {"content-type": "application/json; charset=latin-1"}, b"{}", 415, "in UTF-8"),
        ("POST", EDITS, JSON | {"content-encoding": "br"}, b"{}", 415, "valid: identity, gzip or zstd once"),
        ("POST", EDITS, JSON, b"", 400, "holds no event"),
        ("POST", EDITS, JSON, b"[]", 400, "holds no event"),
        ("POST", EDITS, NDJSON, b"\n \n", 400, "holds no event"),
        ("POST", EVENTS, BATCH, b"{}", 400, "expected a JSON array"),
        ("POST", EVENTS, BATCH, b"[{}", 400, "never ends"),
        ("POST", EVENTS, BATCH, b"[" * 20_000, 400, "too deep to find its elements"),
        ("POST", EDITS, NDJSON, b"{}\n" * 21, 413, "more than 20 events in one request; valid: at most 20"),
        ("POST", EDITS, JSON, b"x" * 50_001, 413, "larger than 50000 bytes"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes, status: int, says: str
) -> None:
    answer = http.request(method, path, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]


def test_a_body_without_a_length_is_capped_while_it_streams(http: httpx.Client) -> None:
    """The rest is read and thrown away: hanging up instead would hide the 413, and the client would try again."""
    answer = http.post(EDITS, content=(b"x" * 1_000 for _ in range(1_000)), headers=JSON)
    assert answer.status_code == 413
    assert http.post(EDITS, json=edit()).status_code == 202


def test_a_client_that_goes_away_leaves_the_service_well(capture: RunningCapture, http: httpx.Client) -> None:
    host, port = capture.url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port))
    connection.putrequest("POST", EDITS)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "1000")
    connection.endheaders(b'{"prompt":')
    connection.close()
    assert http.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("text", ["", "\0", "\u202eright to left", "👩‍👩‍👧", "\x1b[31mred\r\nSet-Cookie: a=b"])
def test_texts_land_verbatim(tmp_path: Path, text: str) -> None:
    with running_capture(tmp_path, ["assistant"]) as running:
        assert httpx.post(running.url + EDITS, json=edit(prompt=text, final_user_edit=text)).status_code == 202
    (feedback,) = landed(tmp_path, "feedback")
    assert (feedback["prompt"], feedback["final_text"]) == (text, text)


def test_a_megabyte_of_text_lands(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as running:
        assert httpx.post(running.url + EDITS, json=edit(final_user_edit="é" * 2**20)).status_code == 202
    assert landed(tmp_path, "feedback")[0]["final_text"] == "é" * 2**20


def test_a_retry_is_a_success_with_the_same_event_id(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as running:
        answers = [httpx.post(running.url + EDITS, json=edit()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({row["event_id"] for row in landed(tmp_path, "feedback")}) == 1


def test_a_full_queue_is_503_with_retry_after() -> None:
    log = MemoryLog(QueueFullError("20000 events wait for the disk"))
    with TestClient(create_app(log, ["assistant"])) as client:
        answer = client.post(EDITS, json=edit())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json() == {"error": "20000 events wait for the disk"}


def test_the_log_starts_and_stops_with_the_application() -> None:
    log = MemoryLog()
    with TestClient(create_app(log, ["assistant"])) as client:
        assert client.post(EDITS, json=edit()).status_code == 202
        assert log.calls == ["start"]
    assert log.calls == ["start", "stop"]
    assert len(log.rows) == 2


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_is_503_and_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def failing(_: int) -> None:
        raise OSError(error, os.strerror(error))

    with running_capture(tmp_path, ["assistant"]) as running:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", failing)
            answer = httpx.post(running.url + EDITS, json=edit(id="lost"))
        assert answer.status_code == 503
        assert "nothing was acknowledged" in answer.json()["error"]
        assert httpx.post(running.url + EDITS, json=edit(id="kept")).status_code == 202
    assert [row["prediction_id"] for row in landed(tmp_path, "feedback")] == ["kept"]


def test_no_payload_reaches_the_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running_capture(tmp_path, ["assistant"]) as running:
        body = b'{"prompt":"SECRET-PROMPT","original_llm_output":7,"final_user_edit":"SECRET-EDIT"}'
        answer = httpx.post(running.url + EDITS, content=body, headers=JSON)
        httpx.post(running.url + EDITS, json=edit(prompt="SECRET-PROMPT"))
    assert answer.status_code == 400
    assert "SECRET" not in answer.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_without_a_key_the_service_refuses_to_be_reachable_from_elsewhere(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="FLYWHEEL_CAPTURE_HOST"):
        serve(Settings(home=tmp_path, capture_host=host, capture_port=0), ["assistant"])


def test_a_taken_port_is_a_settings_error(tmp_path: Path, capture: RunningCapture) -> None:
    port = int(capture.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match="FLYWHEEL_CAPTURE_PORT"):
        serve(Settings(home=tmp_path, capture_port=port), ["assistant"])
