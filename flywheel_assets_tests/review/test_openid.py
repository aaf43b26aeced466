"""Reviewers sign in at a provider of OpenID Connect: a small one on this machine, which keeps the flow's rules."""

import hashlib
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from flywheel_assets.capture.service import RunningCapture
from flywheel_assets.errors import SettingsError
from flywheel_assets.review.decisions import read_decision
from flywheel_assets.review.openid import CALLBACK_PATH, STATE_COOKIE, OpenIdSettings
from flywheel_assets_tests.builders import APPLICATION, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder
from flywheel_assets_tests.review.rows import REWRITTEN, TOMORROW, Reviewer, decided, fill, service

QUEUE = f"/review/queue/{APPLICATION}"
CLIENT, SECRET = "flywheel", "s3cret/+&"  # characters that a form must escape
REVIEWERS = "ann@example.com, @reviews.example, sub:4711"


def encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass
class Provider:
    """A provider at which one person is signed in; a test changes what it says of them."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def configure(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """What the person's browser is sent back to, as after a password."""
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def exchange(self, form: dict[str, str]) -> dict[str, str] | None:
        asked = self.codes.pop(form["code"], None)
        challenge = encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        if asked is None or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return None
        if (form["client_id"], form["client_secret"]) != (CLIENT, SECRET):
            return None
        claims = {
            "iss": self.issuer, "sub": "1", "aud": CLIENT, "exp": TOMORROW.timestamp() + 300, "nonce": asked["nonce"],
            "email": "ann@example.com", "email_verified": True,
        } | self.claims  # fmt: skip
        said = {name: value for name, value in claims.items() if value is not None}
        return {"id_token": ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "RS256"}, said, "sig"))}


@pytest.fixture(scope="module")
def server() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/openid-configuration":
                self.answer(200, provider.configure())
            else:
                self.send_response(302)
                self.send_header("location", provider.authorize(dict(parse_qsl(parts.query))))
                self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            tokens = provider.exchange(dict(parse_qsl(body)))
            self.answer(200 if tokens else 400, tokens or {"error": "invalid_grant"})

        def answer(self, status: int, content: dict[str, str]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        provider.issuer = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield provider
        http.shutdown()
        thread.join()


@pytest.fixture
def provider(server: Provider) -> Provider:
    server.claims = {}
    server.codes.clear()
    return server


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    bench = Workbench(tmp_path_factory.mktemp("filled"))
    fill(bench, make_feedback(event_id="rewritten", final_text=REWRITTEN, user_id="bob"))
    return PreparedFolder(bench.root)


@contextmanager
def signed_by(provider: Provider, bench: Workbench) -> Iterator[RunningCapture]:
    settings = OpenIdSettings.from_settings(provider.issuer, CLIENT, SECRET, REVIEWERS)
    with service(bench, openid=settings) as running:
        yield running


@pytest.fixture(scope="module")
def capture(server: Provider, prepared: PreparedFolder) -> Iterator[RunningCapture]:
    with signed_by(server, Workbench(prepared.restored())) as running:
        yield running


class Person(Reviewer):
    """A browser that follows the provider's redirects."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(
            base_url=url,
            timeout=30,
            headers={"sec-fetch-site": "same-origin", "origin": url},
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def begin(self) -> str:
        """The address at which the provider sends the browser back."""
        asked = self.http.get(CALLBACK_PATH)
        assert asked.status_code == 303
        return httpx.get(asked.headers["location"]).headers["location"]

    def sign_in(self) -> httpx.Response:
        self.page = self.http.get(self.begin())
        return self.page


def test_a_decision_is_signed_by_the_person_whom_the_provider_names(
    provider: Provider, prepared: PreparedFolder
) -> None:
    bench = Workbench(prepared.restored())
    with signed_by(provider, bench) as running:
        ann = Person(running.url)
        assert CALLBACK_PATH in ann.get("/review/sign-in").text
        assert "ann@example.com" in ann.sign_in().text
        ann.decide("rewritten", "accept")
        decision = read_decision(decided(bench.root, running)["rewritten"]["comment"])
    assert decision is not None
    assert (decision.by, decision.key_id) == ("ann@example.com", None)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "Ann@Example.com"}, "ann@example.com"),
        ({"email": "zoe@reviews.example"}, "zoe@reviews.example"),
        ({"email": None, "sub": "4711"}, "4711"),
        ({"aud": [CLIENT, "other"], "azp": CLIENT}, "ann@example.com"),
    ],
)
def test_reviewers_are_named_by_mail_domain_or_account(
    provider: Provider, capture: RunningCapture, claims: dict[str, Any], name: str
) -> None:
    provider.claims = claims
    assert f"Signed in as {name}." in Person(capture.url).sign_in().text


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"email": "eve@example.com"}, "no reviewer here"),
        ({"email_verified": None}, "no reviewer here"),  # some providers let people write any address
        ({"email_verified": False}, "no reviewer here"),
        ({"email": "eve@evil.example/@reviews.example.evil"}, "no reviewer here"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": [CLIENT, "another-client"]}, "aud"),
        ({"azp": "another-client"}, "aud"),
        ({"nonce": "of another sign-in"}, "nonce"),
        ({"exp": TOMORROW.timestamp() - 61}, "exp"),
        ({"sub": 7}, "cannot be read"),
    ],
)
def test_a_token_that_is_not_for_this_sign_in_lets_nobody_in(
    provider: Provider, capture: RunningCapture, claims: dict[str, Any], says: str
) -> None:
    provider.claims = claims
    eve = Person(capture.url)
    assert eve.sign_in().status_code == 403
    assert says in eve.page.text
    assert eve.get(QUEUE).status_code == 401


def test_an_answer_in_another_browser_signs_nobody_in(provider: Provider, capture: RunningCapture) -> None:
    """A link with an attacker's code would have a reviewer decide under the attacker's name."""
    link = Person(capture.url).begin()
    victim = Person(capture.url)
    victim.begin()
    assert victim.http.get(link).status_code == 403
    assert victim.get(QUEUE).status_code == 401


def test_an_answer_counts_once(provider: Provider, capture: RunningCapture) -> None:
    ann = Person(capture.url)
    link = ann.begin()
    state = ann.http.cookies[STATE_COOKIE]
    assert ann.http.get(link).status_code == 200
    ann.http.cookies.set(STATE_COOKIE, state, domain="127.0.0.1", path=CALLBACK_PATH)
    assert ann.http.get(link).status_code == 403


def test_a_refusal_of_the_provider_is_told(provider: Provider, capture: RunningCapture) -> None:
    ann = Person(capture.url)
    ann.begin()
    state = ann.http.cookies[STATE_COOKIE]
    answer = ann.http.get(CALLBACK_PATH, params={"error": "access_denied<b>", "state": state})
    assert answer.status_code == 403
    assert "access_denied&lt;b&gt;" in answer.text


def test_no_name_can_be_typed_where_a_provider_signs_in(capture: RunningCapture) -> None:
    assert Reviewer(capture.url).page.status_code == 403


def test_a_provider_that_is_away_is_a_sentence(prepared: PreparedFolder) -> None:
    away = Provider(issuer="http://127.0.0.1:9")
    with signed_by(away, Workbench(prepared.restored())) as running:
        answer = Person(running.url).http.get(CALLBACK_PATH)
    assert answer.status_code == 403
    assert "cannot be asked" in answer.text


def test_an_issuer_that_calls_itself_otherwise_is_refused(server: Provider, prepared: PreparedFolder) -> None:
    other = Provider(issuer=f"{server.issuer}/")
    with signed_by(other, Workbench(prepared.restored())) as running:
        assert "is of the issuer" in Person(running.url).http.get(CALLBACK_PATH).text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("https://id.example", CLIENT, SECRET, ""), "FLYWHEEL_REVIEW_OPENID_REVIEWERS is not set"),
        (("", CLIENT, SECRET, REVIEWERS), "FLYWHEEL_REVIEW_OPENID_ISSUER is not set"),
        (("http://id.example", CLIENT, SECRET, REVIEWERS), "valid: an https address"),
    ],
)
def test_an_unsafe_configuration_is_an_error(settings: tuple[str, str, str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        OpenIdSettings.from_settings(*settings)


def test_without_the_settings_there_is_no_provider() -> None:
    assert OpenIdSettings.from_settings("", "", "", "") is None
