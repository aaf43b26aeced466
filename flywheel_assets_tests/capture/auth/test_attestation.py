"""What a key vouches for: the door writes it into feedback, whatever the event claims."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from flywheel_assets.capture.auth._signatures import sign_request
from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.events.attestation import TOKEN_LASTS
from flywheel_assets.capture.service import create_app
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.capture.samples import JSON, NOON, Clock, MemoryLog, edit, feedback_event
from flywheel_client import sign_user

PAGE = "https://app.example"
VECTORS = Path(__file__).parents[3] / "clients" / "user_token_vectors.json"
AT = int(NOON.timestamp())


@dataclass
class Door:
    """A service with keys, and what lands behind it."""

    http: TestClient
    log: MemoryLog
    clock: Clock
    keys: dict[str, str]

    def send(self, key: str, event: dict[str, Any], path: str = "edits") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[key]}"} | ({"origin": PAGE} if key == "web" else {})
        return self.http.post(f"/v1/assistant/{path}", json=event, headers=headers)

    def landed(self) -> list[tuple[str | None, bool | None]]:
        rows = [json.loads(row.line) for row in self.log.rows if row.kind is EventKind.FEEDBACK]
        return [(row.get("attested_source"), row.get("is_attested")) for row in rows]

    def token(self, user_id: str, signed_at_s: int = AT) -> str:
        return sign_user(self.keys["hook"], user_id, signed_at_s)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    path = tmp_path / "keys.json"
    wanted = {
        "backend": KeyRequest("assistant", "backend", sources=["tenant-1", "tenant-2"]),
        "relay": KeyRequest("assistant", "relay", users_are_claimed=True),
        "web": KeyRequest("assistant", "web page", origins=[PAGE]),
        "hook": KeyRequest("assistant", "crm", is_webhook=True),
        "other": KeyRequest("copilot", "crm", is_webhook=True),
    }
    keys = {name: create_key(path, request, NOON).secret for name, request in wanted.items()}
    log, clock = MemoryLog(), Clock()
    app = create_app(log, ["assistant", "copilot"], clock=clock, access=Access(KeyStore(path), clock=clock))
    with TestClient(app) as http:
        yield Door(http, log, clock, keys)


def test_the_source_is_the_key_s_and_never_the_event_s(door: Door) -> None:
    """400 anonymous edits named 40 made-up sources: each had a share of its own, and the honest source lost rows."""
    for number in range(3):
        assert door.send("web", feedback_event(id=f"f-{number}", source=f"made-up-{number}"), "events").is_success
    assert door.landed() == [("web page", False)] * 3


def test_a_key_may_name_the_sources_that_it_was_given(door: Door) -> None:
    for source in ("tenant-1", "tenant-2", "tenant-3"):
        door.send("backend", feedback_event(id=source, source=source), "events")
    assert door.landed() == [("tenant-1", True), ("tenant-2", True), ("backend", True)]


def test_a_server_vouches_for_its_users_and_a_page_does_not(door: Door) -> None:
    for key in ("backend", "relay", "web"):
        assert door.send(key, edit(user_id="ada")).status_code == 202
    assert door.landed() == [("backend", True), ("relay", False), ("web page", False)]


def test_a_signed_webhook_vouches_for_its_users(door: Door) -> None:
    body = json.dumps(edit(user_id="ada")).encode()
    headers = {"webhook-id": "m", "webhook-timestamp": str(AT)}
    headers["webhook-signature"] = sign_request(door.keys["hook"], "m", AT, body)
    assert door.http.post("/v1/assistant/edits", content=body, headers=JSON | headers).status_code == 202
    assert door.landed() == [("crm", True)]


def test_without_keys_nothing_is_attested_and_nothing_is_called_a_claim() -> None:
    """Only this machine reaches such a service: its rows count as they did before keys vouched."""
    log = MemoryLog()
    with TestClient(create_app(log, ["assistant"])) as http:
        http.post("/v1/assistant/edits", json=edit(user_id="ada"))
    assert "attested" not in log.rows[-1].line.decode()


# Tokens --------------------------------------------------------------------------------------------------------------


def test_the_vectors_for_other_languages_hold() -> None:
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        assert sign_user(vector["secret"], vector["user_id"], vector["signed_at_s"]) == vector["token"]


def test_a_page_that_sends_its_user_s_token_is_that_user(door: Door) -> None:
    for path, event in (
        ("edits", edit(user_id="ada", user_token=door.token("ada"))),
        ("events", feedback_event(data={"user_id": "ada", "user_token": door.token("ada")})),
    ):
        assert door.send("web", event, path).status_code == 202
    assert door.landed() == [("web page", True)] * 2
    assert all("token" not in row.line.decode() for row in door.log.rows)


@pytest.mark.parametrize(
    ("user_id", "token", "says"),
    [
        ("bob", lambda door: door.token("ada"), "not signed for user 'bob'"),
        ("ada", lambda door: sign_user(door.keys["other"], "ada", AT), "not signed for user 'ada'"),
        ("ada", lambda door: door.token("ada").replace("v1.", "v2."), "no token"),
        ("ada", lambda door: door.token("ada").replace(str(AT), str(AT + 9)), "not signed"),
        (None, lambda door: door.token("ada"), "without the `user_id`"),
    ],
)
def test_a_wrong_token_is_refused_with_its_cause(door: Door, user_id: str | None, token: Any, says: str) -> None:
    answer = door.send("web", edit(user_id=user_id, user_token=token(door)))
    assert answer.status_code == 400
    assert says in answer.json()["results"][0]["error"]
    assert door.landed() == []


@pytest.mark.parametrize(("age_s", "vouches"), [(-300, True), (-301, False), (86_400, True), (86_401, False)])
def test_an_old_token_vouches_no_more_and_loses_nothing(door: Door, age_s: int, vouches: bool) -> None:
    assert timedelta(days=1) == TOKEN_LASTS
    assert door.send("web", edit(user_id="ada", user_token=door.token("ada", AT - age_s))).status_code == 202
    assert door.landed() == [("web page", vouches)]


def test_a_retry_with_a_newer_token_is_the_same_edit(door: Door) -> None:
    first = door.send("web", edit(user_id="ada", user_token=door.token("ada"))).json()
    again = door.send("web", edit(user_id="ada", user_token=door.token("ada", AT + 60))).json()
    assert first["results"][0]["id"] == again["results"][0]["id"]
    one, other = (json.loads(row.line) for row in door.log.rows if row.kind is EventKind.FEEDBACK)
    assert one["event_id"] == other["event_id"]


def test_a_browser_key_cannot_be_made_to_vouch(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="never vouches"):
        create_key(tmp_path / "k", KeyRequest("assistant", "w", origins=[PAGE], users_are_claimed=True), NOON)


def test_a_review_key_is_listed_without_users(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, KeyRequest("assistant", "ann", scopes=[Scope.REVIEW]), NOON)
    assert "users_are_claimed" not in path.read_text()
