"""Who gets in: keys, signatures, pages and rates, through the service as a client meets it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from flywheel_assets.capture.auth._signatures import TOLERANCE_S, sign_request
from flywheel_assets.capture.auth.access import BURST_S, Access, Rates, require_scope
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets.capture.service import create_app, open_access
from flywheel_assets.errors import LogWriteError, SettingsError
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.samples import JSON, NOON, Clock, MemoryLog, Seconds, edit

EDITS = "/v1/assistant/edits"
PAGE = "https://app.example"


@dataclass
class Guarded:
    """A service with keys, and one key of every sort."""

    http: TestClient
    log: MemoryLog
    clock: Clock
    seconds: Seconds
    keys: dict[str, str]

    def post(self, key: str | None = None, path: str = EDITS, **headers: str) -> httpx.Response:
        if key is not None:
            headers["authorization"] = f"Bearer {self.keys.get(key, key)}"
        return self.http.post(path, json=edit(), headers=headers)

    def webhook(self, body: bytes, webhook_id: str = "msg_1", **changed: str) -> httpx.Response:
        timestamp = int(self.clock.now.timestamp())
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_request(self.keys["hook"], webhook_id, timestamp, body),
        }
        return self.http.post(EDITS, content=body, headers=JSON | headers | changed)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    path = tmp_path / "keys.json"
    wanted = {
        "backend": KeyRequest("assistant", "backend"),
        "web": KeyRequest("assistant", "web", origins=[PAGE]),
        "reviewer": KeyRequest("assistant", "ann", scopes=[Scope.REVIEW]),
        "slow": KeyRequest("assistant", "slow", events_per_s=2),
        "anywhere": KeyRequest(EVERY_APPLICATION, "gateway"),
        "ops": KeyRequest(EVERY_APPLICATION, "prometheus", scopes=[Scope.ADMIN]),
        "hook": KeyRequest("assistant", "crm", is_webhook=True),
    }
    keys = {name: create_key(path, request, NOON).secret for name, request in wanted.items()}
    log, clock, seconds = MemoryLog(), Clock(), Seconds()
    access = Access(KeyStore(path), clock=clock, rates=Rates(seconds))
    app = create_app(log, ["assistant", "copilot"], clock=clock, access=access)

    async def review(request: Any) -> Any:
        require_scope(request, "assistant", Scope.REVIEW)
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("the queue")

    app.routes.append(Route("/review", review))
    with TestClient(app) as http:
        yield Guarded(http, log, clock, seconds, keys)


def test_a_write_key_of_the_application_gets_in(guarded: Guarded) -> None:
    assert guarded.post("backend").status_code == 202
    assert guarded.post("anywhere").status_code == 202
    assert len(guarded.log.rows) == 4


@pytest.mark.parametrize(
    ("key", "path", "status", "says"),
    [
        (None, EDITS, 401, "no valid key"),
        ("", EDITS, 401, "no valid key"),
        ("flw_0123456789ab_" + "A" * 43, EDITS, 401, "no valid key"),
        (None, "/v1/unknown/edits", 401, "no valid key"),
        ("backend", "/v1/copilot/edits", 403, "is for 'assistant', not for 'copilot'"),
        ("backend", "/v1/unknown/edits", 403, "is for 'assistant', not for 'unknown'"),
        ("anywhere", "/v1/unknown/edits", 404, "known: assistant, copilot"),
        ("reviewer", EDITS, 403, "has the scopes review; needed: write"),
        ("hook", EDITS, 401, "no valid key"),
    ],
)
def test_everybody_else_is_told_why_not(guarded: Guarded, key: str | None, path: str, status: int, says: str) -> None:
    answer = guarded.post(key, path)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert guarded.log.rows == []


def test_the_body_of_a_stranger_is_not_read(guarded: Guarded) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    assert guarded.http.post(EDITS, content=body(), headers=JSON).status_code == 401
    assert guarded.post("x" * 5_000).status_code == 401


def test_a_route_of_another_room_asks_for_its_scope(guarded: Guarded) -> None:
    bearer = {name: {"authorization": f"Bearer {key}"} for name, key in guarded.keys.items()}
    assert guarded.http.get("/review", headers=bearer["reviewer"]).text == "the queue"
    assert guarded.http.get("/review", headers=bearer["backend"]).status_code == 403
    assert guarded.http.get("/review").status_code == 401


def test_a_key_from_elsewhere_than_a_header(guarded: Guarded) -> None:
    access: Access = guarded.http.app.state.access  # type: ignore[attr-defined]
    assert access.check_key(guarded.keys["reviewer"], "assistant", Scope.REVIEW).key_id
    for key in ("backend", "ops"):
        with pytest.raises(RefusedError):
            access.check_key(guarded.keys[key], "assistant", Scope.REVIEW)


def test_metrics_are_for_admins_of_the_whole_service(guarded: Guarded) -> None:
    def status(key: str) -> int:
        return guarded.http.get("/metrics", headers={"authorization": f"Bearer {guarded.keys[key]}"}).status_code

    assert [status(key) for key in ("ops", "anywhere", "backend")] == [200, 403, 403]
    assert guarded.http.get("/metrics").status_code == 401
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.http.get(path).status_code == 200
    # "assistant" is also the name of a role in the schema of messages.
    for path in guarded.http.get("/openapi.json").json()["paths"].values():
        for parameter in path.get("parameters", ()):
            assert parameter["name"] != "application" or parameter["schema"] == {"type": "string"}


# Pages ---------------------------------------------------------------------------------------------------------------


def test_a_browser_key_works_from_its_pages_only(guarded: Guarded) -> None:
    allowed = guarded.post("web", origin=PAGE)
    assert allowed.status_code == 202
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert allowed.headers["vary"] == "Origin"
    for origin in ("https://evil.example", "http://app.example", f"{PAGE}:8443", f"{PAGE}.evil.example", "null"):
        answer = guarded.post("web", origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert guarded.post("web").status_code == 403


def test_a_beacon_brings_its_key_in_the_address(guarded: Guarded) -> None:
    """`navigator.sendBeacon` cannot set headers; it asks for credentials, so that `*` would not be an answer."""
    answer = guarded.post(path=f"{EDITS}?key={guarded.keys['web']}", origin=PAGE)
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert guarded.post(path=f"{EDITS}?key={guarded.keys['backend']}").status_code == 401


def test_a_page_can_read_why_it_was_refused(guarded: Guarded) -> None:
    answer = guarded.http.post(EDITS, content=b"{}", headers=JSON | {"origin": PAGE})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_secret_key_in_a_page_is_refused_and_said_to_be_lost(guarded: Guarded) -> None:
    answer = guarded.post("backend", origin=PAGE)
    assert answer.status_code == 403
    assert "revoke it" in answer.json()["error"]


@pytest.mark.parametrize(("origin", "status"), [(PAGE, 204), ("https://evil.example", 403), ("null", 403)])
def test_a_preflight_is_answered_for_known_origins(guarded: Guarded, origin: str, status: int) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    answer = guarded.http.options(EDITS, headers=asked | {"access-control-request-headers": "content-type"})
    assert answer.status_code == status
    if status == 204:
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert "content-type" in answer.headers["access-control-allow-headers"]
        assert answer.headers["access-control-allow-origin"] == origin
    else:
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://testserver", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_without_keys_pages_of_this_machine_get_in_and_no_others(origin: str, passes: bool) -> None:
    """Also not one whose name was made to resolve to this machine: its origin equals the Host header."""
    log = MemoryLog()
    with TestClient(create_app(log, ["assistant"])) as http:
        answer = http.post(EDITS, json=edit(), headers={"origin": origin})
        preflight = http.options(EDITS, headers={"origin": origin, "access-control-request-method": "POST"})
        unasked = http.post(EDITS, content=json.dumps(edit()), headers={"content-type": "text/plain"})
    assert answer.status_code == (202 if passes else 403)
    assert preflight.status_code == (204 if passes else 403)
    assert unasked.status_code == 415, "a form post needs no preflight: it must not be read as JSON"


# Signatures ----------------------------------------------------------------------------------------------------------


def test_a_signed_webhook_gets_in_and_a_changed_one_does_not(guarded: Guarded) -> None:
    body = json.dumps(edit()).encode()
    assert guarded.webhook(body).status_code == 202
    assert len(guarded.log.rows) == 2
    assert guarded.webhook(body, "msg_2", **{"webhook-id": "msg_3"}).status_code == 401
    assert guarded.webhook(body, "msg_2", **{"webhook-signature": ""}).status_code == 401
    changed = guarded.webhook(body, "msg_2").request
    assert guarded.http.post(EDITS, content=body + b" ", headers=changed.headers).status_code == 401
    assert guarded.http.post("/v1/copilot/edits", content=body, headers=changed.headers).status_code == 401
    assert len(guarded.log.rows) == 4


def test_a_repeated_webhook_is_a_success_and_written_once(guarded: Guarded) -> None:
    body = json.dumps([edit(id="1"), edit(prompt=7)]).encode()
    first, second = guarded.webhook(body), guarded.webhook(body)
    assert (first.status_code, second.status_code) == (202, 202)
    assert [result["status"] for result in second.json()["results"]] == ["duplicate", "refused"]
    assert second.json()["accepted"] == 0
    assert len(guarded.log.rows) == 2
    assert 'flywheel_capture_duplicates_total{application="assistant"} 1.0' in _metrics(guarded)


def test_a_webhook_that_was_not_acknowledged_may_come_again(guarded: Guarded) -> None:
    body = json.dumps(edit()).encode()
    guarded.log.refusal = LogWriteError("the disk is full")
    assert guarded.webhook(body).status_code == 503
    guarded.log.refusal = None
    assert guarded.webhook(body).json()["accepted"] == 1
    assert len(guarded.log.rows) == 2


def test_an_old_recording_is_refused(guarded: Guarded) -> None:
    body = json.dumps(edit()).encode()
    recorded = guarded.webhook(body).request
    guarded.clock.now += timedelta(seconds=TOLERANCE_S + 1)
    answer = guarded.http.post(EDITS, content=body, headers=recorded.headers)
    assert answer.status_code == 401
    assert "Sign every attempt again" in answer.json()["error"]
    assert len(guarded.log.rows) == 2


def test_a_signed_body_comes_uncompressed(guarded: Guarded) -> None:
    assert guarded.webhook(b"{}", **{"content-encoding": "gzip"}).status_code == 415


def test_a_signature_does_not_open_other_routes(guarded: Guarded) -> None:
    signed = guarded.webhook(b"{}").request.headers
    assert guarded.http.get("/review", headers=signed).status_code == 401


# Rates ---------------------------------------------------------------------------------------------------------------


def test_a_key_waits_when_its_rate_is_used_up_and_others_do_not(guarded: Guarded) -> None:
    burst = int(2 * BURST_S)
    batch = json.dumps([edit(id=str(n)) for n in range(burst + 10)])
    headers = JSON | {"authorization": f"Bearer {guarded.keys['slow']}"}
    assert guarded.http.post(EDITS, content=batch, headers=headers).status_code == 202, "a burst may leave a debt"
    refused = guarded.post("slow")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "6"  # ten events of debt and one of its own, at two a second
    assert guarded.post("backend").status_code == 202
    guarded.seconds.now += 5.0
    assert guarded.post("slow").status_code == 429
    guarded.seconds.now += 1.0
    assert guarded.post("slow").status_code == 202


def test_a_quiet_key_saves_no_more_than_its_burst() -> None:
    seconds = Seconds()
    rates = Rates(seconds)
    rates.check("k", 1.0)
    seconds.now += 1e6
    rates.check("k", 1.0)
    rates.charge("k", int(BURST_S))
    with pytest.raises(RefusedError) as refused:
        rates.check("k", 1.0)
    assert refused.value.retry_after_s == 1.0


def test_webhooks_are_limited_by_their_secret(guarded: Guarded) -> None:
    access: Access = guarded.http.app.state.access  # type: ignore[attr-defined]
    (secret,) = access._keys.list_webhook_secrets("assistant")  # type: ignore[union-attr]
    access._rates.check(secret.key_id, 2_000.0)
    access._rates.charge(secret.key_id, 30_000)
    assert guarded.webhook(json.dumps(edit()).encode()).status_code == 429


# Starting ------------------------------------------------------------------------------------------------------------


def test_without_a_key_on_loopback_the_service_says_that_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_access(Settings(home=tmp_path)).is_open
    assert "everybody on this machine may send" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_with_a_key_nobody_gets_in_without_one_wherever_it_listens(tmp_path: Path, host: str) -> None:
    settings = Settings(home=tmp_path, capture_host=host)
    create_key(settings.resolve_capture_keys_file(), KeyRequest("copilot", "x"), NOON)
    assert not open_access(settings).is_open


def test_the_first_key_closes_a_running_service_within_a_second(tmp_path: Path) -> None:
    """An open capture went on answering 202 to everybody until its restart, while `doctor` said "1 active"."""
    path, seconds = tmp_path / "keys.json", Seconds()
    access = Access(KeyStore(path, seconds))
    with TestClient(create_app(MemoryLog(), ["assistant"], access=access)) as http:
        assert http.post(EDITS, json=edit()).status_code == 202
        key = create_key(path, KeyRequest("assistant", "backend"), NOON).secret
        seconds.now += 1.0
        assert http.post(EDITS, json=edit()).status_code == 401
        assert http.post(EDITS, json=edit(), headers={"authorization": f"Bearer {key}"}).status_code == 202
        assert not access.is_open

        path.write_text('{"keys": [], "webhook_secrets": []}')
        seconds.now += 1.0
        assert http.post(EDITS, json=edit()).status_code == 401, "an emptied file does not open it again"


def test_elsewhere_it_refuses_to_start_and_says_how_to_get_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="`flywheel keys create`, or listen on 127"):
        open_access(Settings(home=tmp_path, capture_host="0.0.0.0"))


@pytest.mark.parametrize("damage", [lambda path: path.chmod(0o666), lambda path: path.write_text("{")])
def test_it_does_not_start_open_because_the_keys_cannot_be_read(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    settings = Settings(home=tmp_path)
    path = settings.resolve_capture_keys_file()
    create_key(path, KeyRequest("assistant", "x"), NOON)
    damage(path)
    with pytest.raises(SettingsError):
        open_access(settings)


def _metrics(guarded: Guarded) -> str:
    return guarded.http.get("/metrics", headers={"authorization": f"Bearer {guarded.keys['ops']}"}).text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EDITS, b"[" * 60_000),
        (EDITS, b"[" + b"{}," * 20_000 + b"{}]"),
        ("/v1/assistant/records", b"[" * 60_000),
        ("/v1/assistant/otlp/v1/traces", b"{" * 60_000),
    ],
)
def test_a_body_that_is_refused_as_a_whole_uses_up_the_rate(guarded: Guarded, path: str, body: bytes) -> None:
    """32 KB of gzip cost 21 CPU seconds of the only decoder thread, and a key could repeat that without an end."""
    headers = JSON | {"authorization": f"Bearer {guarded.keys['slow']}"}
    assert guarded.http.post(path, content=body, headers=headers).status_code in (400, 413)
    refused = guarded.http.post(path, content=body, headers=headers)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 15
    guarded.seconds.now += 40
    assert guarded.post("slow").status_code == 202
