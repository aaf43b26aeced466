"""Reviewers whom a reverse proxy has signed in: its header names them, and only where it comes from the proxy."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.service import RunningCapture
from flywheel_assets.errors import SettingsError
from flywheel_assets.review.decisions import read_decision
from flywheel_assets.review.proxy import TrustedProxy
from flywheel_assets_tests.builders import APPLICATION, NOON, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder
from flywheel_assets_tests.review.rows import REWRITTEN, Reviewer, decided, fill, service

HEADER = "X-Forwarded-User"
HERE = TrustedProxy.from_settings(HEADER, "127.0.0.1, ::1")
ELSEWHERE = TrustedProxy.from_settings(HEADER, "10.9.9.0/24")
QUEUE = f"/review/queue/{APPLICATION}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    bench = Workbench(tmp_path_factory.mktemp("filled"))
    fill(bench, make_feedback(event_id="rewritten", final_text=REWRITTEN, user_id="bob"))
    return PreparedFolder(bench.root)


@pytest.fixture
def filled(prepared: PreparedFolder) -> Workbench:
    return Workbench(prepared.restored())


@pytest.fixture
def behind(filled: Workbench) -> Iterator[RunningCapture]:
    with service(filled, proxy=HERE) as running:
        yield running


class Proxied(Reviewer):
    """A browser behind a proxy that has signed its person in."""

    def __init__(self, url: str, *names: str, host: str = "review.example") -> None:
        sent = [("sec-fetch-site", "same-origin"), ("origin", f"https://{host}"), ("host", host)]
        sent += [(HEADER, name) for name in names]
        headers = [(name.encode(), value.encode()) for name, value in sent]
        self.http = httpx.Client(
            base_url=url, timeout=30, headers=headers, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.page = self.http.get("/review/sign-in")


def test_a_decision_is_signed_by_the_person_whom_the_proxy_names(filled: Workbench, behind: RunningCapture) -> None:
    """No name is typed and no key is given; the service itself has none."""
    ann = Proxied(behind.url, "ann@example.com")
    assert (ann.page.status_code, ann.page.headers["location"]) == (303, "/review")
    ann.decide("rewritten", "accept")
    decision = read_decision(decided(filled.root, behind)["rewritten"]["comment"])
    assert decision is not None
    assert (decision.by, decision.key_id) == ("ann@example.com", None)


def test_a_name_beyond_ascii_is_read_as_proxies_send_it(behind: RunningCapture) -> None:
    assert "Zoë Ł" in Proxied(behind.url, "Zoë Ł").get(QUEUE).text


def test_another_person_in_the_same_browser_does_not_sign_as_the_first(behind: RunningCapture) -> None:
    browser = Proxied(behind.url, "ann")
    assert browser.get(QUEUE).status_code == 200
    browser.http.headers[HEADER] = "bob"
    assert browser.get(QUEUE).status_code == 401
    assert browser.get("/review").headers["location"] == "/review/sign-in"


@pytest.mark.parametrize("names", [(), ("",), ("ann", "eve"), ("x" * 81,), ("a\u202eb",)])
def test_a_request_that_names_nobody_or_two_is_refused(behind: RunningCapture, names: tuple[str, ...]) -> None:
    reviewer = Proxied(behind.url, *names)
    assert reviewer.page.status_code == reviewer.get(QUEUE).status_code == 403


def test_no_name_can_be_typed_where_a_proxy_signs_in(behind: RunningCapture) -> None:
    eve = Proxied(behind.url, "eve")
    assert eve.http.post("/review/sign-in", data={"name": "Ann", "key": ""}).status_code == 403
    assert Reviewer(behind.url).page.status_code == 403


@pytest.mark.parametrize("forwarded", [{}, {"x-forwarded-for": "10.9.9.9"}])
def test_the_header_counts_from_the_proxy_s_addresses_only(filled: Workbench, forwarded: dict[str, str]) -> None:
    """An address that a header claims is no address: the connection's other end counts."""
    with service(filled, proxy=ELSEWHERE) as running:
        eve = Proxied(running.url, "ann")
        assert eve.http.get("/review/sign-in", headers=forwarded).status_code == 403


def test_a_key_opens_no_page_behind_a_proxy(filled: Workbench) -> None:
    path = filled.root / "keys.json"
    key = create_key(path, KeyRequest(APPLICATION, "ann", (Scope.REVIEW,)), NOON)
    with service(filled, Access(KeyStore(path)), proxy=ELSEWHERE) as running:
        assert Reviewer(running.url, key=key.secret).page.status_code == 403


@pytest.mark.parametrize(
    ("header", "addresses", "says"),
    [
        (HEADER, "", "anyone could send the header"),
        ("", "127.0.0.1", "valid: both"),
        (HEADER, "proxy.example", "does not appear to be"),
        (HEADER, "10.0.0.1/8", "host bits set"),
    ],
)
def test_half_a_configuration_is_an_error(header: str, addresses: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        TrustedProxy.from_settings(header, addresses)


def test_without_the_settings_there_is_no_proxy(tmp_path: Path) -> None:
    assert TrustedProxy.from_settings("", "") is None
