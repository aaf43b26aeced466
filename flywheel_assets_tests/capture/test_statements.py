"""What capture answers to revisions, retractions and conversations, and what then lies in landing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.events.texts import identify_statement
from flywheel_assets.capture.operations.telemetry import Telemetry
from flywheel_assets.capture.service import create_app
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import QueueFullError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.capture.samples import NDJSON, Clock, MemoryLog, edit, feedback_event, prediction_event

EVENTS = "/v1/assistant/events"
EDITS = "/v1/assistant/edits"
FEEDBACK = "/v1/assistant/feedback"
CONTRACT = ScoreContract(features={"hour": FeatureType.NUMBER}, mapping=FieldMapping(key="k", score="s", label="l"))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def client(log: MemoryLog) -> Iterator[TestClient]:
    with TestClient(create_app(log, {"assistant": None, "fraud": CONTRACT}, clock=Clock())) as running:
        yield running


def results_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 202, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def landed(log: MemoryLog, kind: EventKind = EventKind.FEEDBACK) -> list[dict[str, Any]]:
    return [json.loads(row.line) for row in log.rows if row.kind is kind]


def post(client: TestClient, path: str, *elements: Any) -> list[dict[str, Any]]:
    body = "\n".join(json.dumps(element) for element in elements)
    return results_of(client.post(path, content=body, headers=NDJSON))


def test_an_autosave_lands_each_text_and_is_answered_superseded(client: TestClient, log: MemoryLog) -> None:
    """The half-written text was gold, and the final one was answered 202 and dropped."""
    half, whole = edit(id="m-1", final_user_edit="Like th"), edit(id="m-1")
    first, second = post(client, EDITS, half, whole)
    assert first == {"id": "m-1", "status": "accepted"}
    assert (second["id"], second["status"]) == ("m-1", "superseded")
    assert "it counts in the place of what was acknowledged under this id before" in second["detail"]
    rows = landed(log)
    assert [row["final_text"] for row in rows] == ["Like th", "Like this."]
    assert len({row["statement_id"] for row in rows}) == 1
    assert rows[0]["received_at"] < rows[1]["received_at"]
    assert post(client, EDITS, whole) == [{"id": "m-1", "status": "accepted"}]
    [returned] = post(client, EDITS, half)
    assert "what came under this id since then counts" in returned["detail"]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({}, {}, None),
        ({}, {"data": {"signal": "copy"}}, "counts in the place of"),
        ({"data": {"revision": 3}}, {"data": {"revision": 2}}, "it does not count"),
        ({"data": {"revision": 2}}, {"data": {"revision": 3}}, "counts in the place of"),
        ({"data": {"revision": 0}}, {"data": {"revision": 0}}, None),
        ({"time": "2026-03-02T11:00:00Z"}, {"time": "2026-03-02T10:00:00Z"}, "it does not count"),
        ({"time": "2026-03-02T10:00:00Z"}, {"time": "2026-03-02T11:00:00Z"}, "counts in the place of"),
        ({"data": {"revision": 1}}, {"time": "2026-03-02T11:00:00Z"}, "it does not count"),
        ({}, {"source": "other-app"}, None),
        ({}, {"id": "f-2"}, None),
    ],
)
def test_the_answer_says_which_revision_counts(
    client: TestClient, first: dict[str, Any], second: dict[str, Any], says: str | None
) -> None:
    post(client, EVENTS, feedback_event(**first))
    [result] = post(client, EVENTS, feedback_event(**second))
    assert result["status"] == ("accepted" if says is None else "superseded")
    assert says is None or says in result["detail"]


def test_a_revision_is_never_simply_accepted(client: TestClient) -> None:
    """Another process may have taken the earlier ones."""
    for _ in range(2):
        [result] = post(client, EVENTS, feedback_event(data={"revision": 1}))
        assert result["status"] == "superseded"
        assert "revision 1 of its id: the highest `revision` counts" in result["detail"]


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (prediction_event(), "accepted"),
        (prediction_event(data={"output": "Other."}), "superseded"),
        (prediction_event(data={"prediction_id": "p-2"}), "superseded"),
        (prediction_event(id="e-2", data={"prediction_id": "x", "output": "Other."}), "accepted"),
        (feedback_event(id="p-1"), "accepted"),
    ],
)
def test_of_a_prediction_the_first_text_counts(client: TestClient, second: dict[str, Any], status: str) -> None:
    post(client, EVENTS, prediction_event())
    [result] = post(client, EVENTS, second)
    assert result["status"] == status
    assert status == "accepted" or "the first one counts" in result["detail"]


def test_other_text_under_a_prediction_id_of_another_event_is_said_so(client: TestClient) -> None:
    first, second = (
        prediction_event(id=name, data={"prediction_id": "x", "output": output})
        for name, output in (("e-1", "Thus."), ("e-2", "So."))
    )
    assert [result["status"] for result in post(client, EVENTS, first, second)] == ["accepted", "superseded"]


def test_what_could_not_be_written_is_not_remembered() -> None:
    log = MemoryLog(QueueFullError("full"))
    with TestClient(create_app(log, ["assistant"], clock=Clock())) as client:
        assert client.post(EDITS, json=edit(id="m-1", final_user_edit="Like th")).status_code == 503
        log.refusal = None
        assert post(client, EDITS, edit(id="m-1")) == [{"id": "m-1", "status": "accepted"}]


def test_repeats_and_revisions_are_counted() -> None:
    telemetry = Telemetry()
    with TestClient(create_app(MemoryLog(), ["assistant"], clock=Clock(), telemetry=telemetry)) as client:
        post(client, EDITS, edit(id="m-1"), edit(id="m-1"), edit(id="m-1", final_user_edit="No."))
    rendered = telemetry.render().decode()
    assert 'flywheel_capture_accepted_total{application="assistant"} 3.0' in rendered
    assert 'flywheel_capture_duplicates_total{application="assistant"} 1.0' in rendered
    assert 'flywheel_capture_superseded_total{application="assistant"} 1.0' in rendered


@pytest.mark.parametrize(
    ("path", "source", "client_id"),
    [
        ("/m-1", "edits-api", "m-1"),
        ("/f-1?source=app", "app", "f-1"),
        ("/a/b%20c?source=app", "app", "a/b c"),
        (
            "/a%0Ab%0A?source=app",
            "app",
            "a\nb\n",
        ),  # it was 404: Starlette's `path` ends at a line feed
    ],
)
def test_delete_takes_back_one_statement(
    client: TestClient, log: MemoryLog, path: str, source: str, client_id: str
) -> None:
    assert results_of(client.delete(FEEDBACK + path)) == [{"id": client_id, "status": "accepted"}]
    [row] = landed(log)
    assert (row["signal"], row["prediction_id"], row["source"]) == ("retract", "", source)
    assert row["retracts"] == identify_statement("assistant", source, client_id)
    assert row["statement_id"] != row["retracts"]


def test_delete_names_what_the_edit_and_the_event_landed_as(client: TestClient, log: MemoryLog) -> None:
    post(client, EDITS, edit(id="m-1"))
    post(client, EVENTS, feedback_event())
    client.delete(f"{FEEDBACK}/m-1")
    client.delete(f"{FEEDBACK}/f-1", params={"source": "app"})
    edited, accepted, *retracted = landed(log)
    assert [row["retracts"] for row in retracted] == [edited["statement_id"], accepted["statement_id"]]


def test_an_id_that_is_used_again_can_be_taken_back_again() -> None:
    clock, log = Clock(), MemoryLog()
    with TestClient(create_app(log, ["assistant"], clock=clock)) as client:
        client.delete(f"{FEEDBACK}/m-1")
        clock.now = clock.now.replace(hour=13)
        client.delete(f"{FEEDBACK}/m-1")
    assert len({row["event_id"] for row in landed(log)}) == 2


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/unknown/feedback/m-1", 404, "unknown application 'unknown'; known: assistant, fraud"),
        (f"{FEEDBACK}/m-1?source=reviewer", 400, "source 'reviewer' is reserved"),
        (f"{FEEDBACK}/m-1?source=import:x.jsonl", 400, "source 'import:x.jsonl' is reserved"),
        (f"{FEEDBACK}/m-1?source=", 400, "`source` has 0 characters; valid: 1 to 1024"),
        (f"{FEEDBACK}/{'x' * 1025}", 400, "`id` has 1025 characters"),
        ("/v1/fraud/feedback/m-1", 400, "send the right label to /v1/fraud/labels"),
    ],
)
def test_what_cannot_be_taken_back(client: TestClient, log: MemoryLog, path: str, status: int, says: str) -> None:
    answer = client.delete(path)
    assert answer.status_code == status
    assert says in answer.text
    assert log.rows == []


def test_delete_needs_a_key_that_may_write_and_its_own_preflight(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "keys.json"
    writer, reader, site = (
        create_key(file, request, clock()).secret
        for request in (
            KeyRequest("assistant", "backend"),
            KeyRequest("assistant", "people", scopes=(Scope.REVIEW,)),
            KeyRequest("assistant", "site", origins=("https://app.example",)),
        )
    )
    keys = KeyStore(file)
    page = {"origin": "https://app.example"}
    with TestClient(create_app(MemoryLog(), ["assistant"], clock=clock, access=Access(keys, clock=clock))) as client:
        path = f"{FEEDBACK}/m-1"
        sent = {
            name: client.delete(path, headers=headers)
            for name, headers in {
                "none": {},
                "reader": {"authorization": f"Bearer {reader}"},
                "writer": {"authorization": f"Bearer {writer}"},
                "signed": {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,AA=="},
            }.items()
        }
        from_page = client.delete(path, headers=page, params={"key": site})
        preflight = client.options(path, headers={**page, "access-control-request-method": "DELETE"})
    assert {name: answer.status_code for name, answer in sent.items()} == {
        "none": 401,
        "reader": 403,
        "writer": 202,
        "signed": 401,
    }
    assert from_page.status_code == 202
    assert from_page.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-methods"] == "DELETE"


# The situations in which conversations of real products were refused, or accepted and then ended a training.
LIGHTS = [
    {"role": "user", "content": "Turn on the living room lights."},
    {
        "role": "assistant",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "control_light", "arguments": {"room": "living room", "state": "on"}},
            }
        ],
    },
    {"role": "tool", "name": "control_light", "content": "The lights in the living room are now on."},
]
PICTURE = [
    {"type": "text", "text": "What is in this picture?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
]


@pytest.mark.parametrize(
    ("prompt", "stored"),
    [
        (LIGHTS, LIGHTS),
        ([{"role": "user", "content": PICTURE}], [{"role": "user", "content": PICTURE}]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "What is the sky?"}]}],
            [{"role": "user", "content": "What is the sky?"}],
        ),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],) * 2,
        ([{"role": "user", "content": "Start"}, {"role": "assistant", "content": "Sure, "}],) * 2,
    ],
)
def test_conversations_that_are_taken(client: TestClient, log: MemoryLog, prompt: Any, stored: Any) -> None:
    assert post(client, EDITS, edit(id="1", prompt=prompt)) == [{"id": "1", "status": "accepted"}]
    assert json.loads(landed(log)[0]["prompt"]) == stored


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (None, "Expected `str | array`, got `null` - at `$.prompt`"),
        ([{"role": "human", "content": "Hi"}], "Invalid enum value 'human' - at `$.prompt[0].role`; valid: system, "),
        ([{"role": "", "content": ""}], "valid: system, developer, user, assistant, tool"),
        ([{"role": "system", "content": "Be kind."}], "no message of role 'user'; a prompt needs one (valid roles: "),
        ([{"role": "tool", "content": "42"}], "no message of role 'user'"),
    ],
)
def test_conversations_that_no_model_could_answer(client: TestClient, log: MemoryLog, prompt: Any, says: str) -> None:
    answer = client.post(EDITS, json=edit(id="1", prompt=prompt))
    assert answer.status_code == 400
    [result] = answer.json()["results"]
    assert (result["id"], result["status"]) == ("1", "refused")
    assert says in result["error"]
    assert log.rows == []


def test_a_lone_surrogate_is_refused_as_before(client: TestClient) -> None:
    body = '{"prompt":"p","original_llm_output":"hello big world","final_user_edit":"hello big world \\ud83d"}'
    answer = client.post(EDITS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert r"lone surrogate \ud83d" in answer.json()["results"][0]["error"]


@pytest.mark.parametrize(
    ("events", "signals"),
    [
        (("accept", "comment"), ["accept", "comment"]),
        (("accept", "regenerate"), ["accept", "regenerate"]),
        (("thumb", "thumb"), ["thumb", "thumb"]),
    ],
)
def test_a_change_of_mind_keeps_its_order(
    client: TestClient, log: MemoryLog, events: tuple[str, str], signals: list[str]
) -> None:
    """Statements of one request were received at one moment, and which of them came last was left to a hash."""
    more = {"comment": {"comment": "This is wrong"}, "thumb": {"value": -1}}
    sent = [
        feedback_event(id=f"c{number}", data={"signal": signal, "user_id": "a", **more.get(signal, {})})
        for number, signal in enumerate(events)
    ]
    assert [result["status"] for result in post(client, EVENTS, *sent)] == ["accepted", "accepted"]
    rows = sorted(landed(log), key=lambda row: (row["occurred_at"], row["received_at"]))
    assert [row["signal"] for row in rows] == signals
    assert rows[0]["occurred_at"] < rows[1]["occurred_at"]
