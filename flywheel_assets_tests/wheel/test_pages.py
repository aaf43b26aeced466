"""The page of the wheel over HTTP: an empty, a young and an old flywheel, and who may look."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.applications import assistant, fraud
from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.service import running_capture
from flywheel_assets.cli.serving import open_reviewed_rows
from flywheel_assets.defs.automation.training_rules import build_rule
from flywheel_assets.review.decisions import SAMPLED, Decision, DecisionIndex, Verb
from flywheel_assets.review.pages import build_review_pages
from flywheel_assets.review.sessions import Sessions
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel.pages import Links, build_wheel_pages
from flywheel_assets.wheel.reading import Prices, WheelReader
from flywheel_assets_tests.wheel.homes import (
    ASSISTANT,
    FIRST,
    decide,
    grow_days,
    measure_storage,
    noon_after,
    report_drift,
    trip,
)

LINKS = Links("http://dagster:3000", "http://mlflow:5000")
PRICES = Prices(cpu_hour=0.05, gpu_hour=2.0, gib_month=0.02, currency="EUR")


@contextmanager
def looking(
    stores: Stores,
    applications: list[FlywheelApplication],
    now: Callable[[], datetime],
    access: Access | None = None,
) -> Iterator[httpx.Client]:
    access = access or Access()
    reviewed = [open_reviewed_rows(each, stores) for each in applications]
    ticks = iter(range(0, 100_000, 100))

    def pages(event_log: object, access: Access) -> list[object]:
        sessions = Sessions(access, [each.name for each in applications], now)
        readers = [WheelReader(each, stores, lambda: next(ticks)) for each in applications]
        traced = {each.name: each.traced for each in reviewed if each.traced}
        review = build_review_pages(event_log, access, reviewed, stores.where.resolve_review_dir(), now, sessions)
        return [*review, *build_wheel_pages(access, sessions, readers, traced, LINKS, PRICES, now)]

    names = {each.name: each.score_contract for each in applications}
    with running_capture(stores.landing_folder(), names, now, access=access, pages=pages) as running:  # type: ignore[arg-type]
        port = running.url.rpartition(":")[2]
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=60) as client:
            yield client


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(isolate_settings(tmp_path))


def words(page: httpx.Response) -> str:
    """What a reader sees, without markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.text).split())


def test_the_error_rate_of_gold_follows_the_verdicts_on_drawn_pairs(stores: Stores) -> None:
    """A page that shows how much is in gold said nothing of how much of it is right."""
    grow_days(stores, 0, 5, rows=3)
    index = DecisionIndex(stores.review_index("assistant"))
    with looking(stores, [ASSISTANT], lambda: noon_after(5)) as client:
        before = words(client.get("/wheel/assistant"))
        assert "No drawn pair was reviewed yet, so nothing is known. 2 % of the pairs are drawn by chance." in before
        verdicts = [Verb.ACCEPT] * 39 + [Verb.REJECT]
        index.record(
            Decision(verb, f"row-{number}", "p", SAMPLED, "Ann", noon_after(5)) for number, verb in enumerate(verdicts)
        )
        after = words(client.get("/wheel/assistant"))
    assert "2.5 % of the drawn pairs are wrong: 1 of 40 that were reviewed." in after
    assert "Of all pairs in gold between 0.1 % and 13.2 % are (95 % interval)." in after


def test_an_empty_flywheel_says_the_first_step_and_makes_no_table(stores: Stores, tmp_path: Path) -> None:
    applications = [assistant.APPLICATION, fraud.APPLICATION]
    with looking(stores, applications, lambda: noon_after(0)) as client:
        home = client.get("/")
        assert home.status_code == 200
        assert "nothing is materialized yet: send events, then run flywheel turn --now -a fraud" in words(home)
        for name in ("assistant", "fraud"):
            page = client.get(f"/wheel/{name}")
            assert page.status_code == 200
            for sentence in ("Gold has no row yet.", "No version was cut yet.", "Nothing was dropped."):
                assert sentence in words(page)
            assert "alarm" not in words(page)
            assert ("base model" if name == "assistant" else "no version yet") in words(page)
    assert not (tmp_path / "catalog.db").exists()


def test_a_flywheel_shows_its_numbers_versions_costs_and_alarms(stores: Stores) -> None:
    grow_days(stores, 0, 10)
    decide(stores, "dpo_gold_v1", promoted=True, seconds=3600)
    grow_days(stores, 10, 12)
    decide(stores, "dpo_gold_v2", promoted=False, seconds=3600)
    trip(stores, [FIRST])
    measure_storage(stores, noon_after(12))
    with looking(stores, [ASSISTANT], lambda: noon_after(12)) as client:
        page = words(client.get("/wheel/assistant"))
    assert "12 closed days, 0 open, 1 tripped" in page
    assert "The batch breaker keeps 2026-01-01 out of gold." in page
    assert "days could be closed" not in page
    assert re.search(r"dpo_gold_v2 not promoted .* dpo_gold_v1 serves promoted", page)
    assert "all trainings and evaluations 0.0 s 2.5 h 5.00 EUR" in page
    assert "per proven gain (1) 0.0 s 2.5 h 5.00 EUR" in page
    assert "all 17.8 GiB 0.36 EUR" in page
    assert "trivial_edit at curated_dpo_pairs" in page


def test_the_sentence_is_the_sensors(stores: Stores) -> None:
    grow_days(stores, 0, 3)
    lake, versions = stores.lake("assistant"), stores.versions("assistant")
    says = build_rule(ASSISTANT).assess(stores, lake, versions, noon_after(3)).sentence
    assert "of 5,000 new pairs" in says
    with looking(stores, [ASSISTANT], lambda: noon_after(3)) as client:
        assert says in words(client.get("/"))


def test_days_that_nobody_closes_are_an_alarm_once_the_daily_run_is_over(stores: Stores) -> None:
    """Dagster had stood still for three days, and every page was green."""
    grow_days(stores, 0, 3)
    now = [noon_after(3).replace(hour=2)]
    with looking(stores, [ASSISTANT], lambda: now[0]) as client:
        assert "alarm" not in words(client.get("/"))
        now[0] += timedelta(days=3)
        assert "2 days could be closed and are not in gold, as the last closed day is 2026-01-03." in words(
            client.get("/")
        )
        now[0] += timedelta(hours=4)
        assert "3 days could be closed" in words(client.get("/"))


def test_the_state_changes_with_the_numbers_only(stores: Stores) -> None:
    grow_days(stores, 0, 2)
    with looking(stores, [ASSISTANT], lambda: noon_after(2)) as client:
        state = client.get("/wheel-state").json()
        assert client.get("/wheel-state").json() == state
        assert f'data-state="{state["state"]}"' in client.get("/").text
        decide(stores, "dpo_gold_v1", promoted=True)
        assert client.get("/wheel-state").json() != state
        assert client.get("/wheel-state?application=nothing").status_code == 404


def test_what_became_of_an_event_is_asked_on_the_page(stores: Stores) -> None:
    grow_days(stores, 0, 2)
    with looking(stores, [ASSISTANT], lambda: noon_after(2)) as client:
        assert 'action="/wheel/assistant/trace"' in client.get("/wheel/assistant").text
        found = words(client.get("/wheel/assistant/trace", params={"id": f"{FIRST} 0"}))
        assert "is in curated_dpo_pairs" in found or "in gold" in found
        assert "chosen 2026" not in found, "no text"
        assert "Nothing is known about this id." in words(client.get("/wheel/assistant/trace?id=%3Cb%3E"))
        assert "<b>" not in client.get("/wheel/assistant/trace?id=%3Cb%3E").text
        assert client.get("/wheel/assistant/trace", params={"id": "x" * 600}).status_code == 400


def test_a_classifiers_page_shows_the_drift_of_its_scores(stores: Stores) -> None:
    application = fraud.APPLICATION
    lake = stores.lake("fraud")
    from flywheel_assets.lake.daily import ledger
    from flywheel_assets_tests.lake.workbench import stamp

    days = [FIRST + timedelta(days=number) for number in range(3)]
    gold = application.tables.gold.name
    ledger.record_entries(lake, [ledger.LedgerEntry(gold, day, True, f"{day}", {}, 4, 4, {}) for day in days], stamp())
    report_drift(stores, application, days, "psi 0.31 > 0.25")
    with looking(stores, [application], lambda: noon_after(3)) as client:
        page = words(client.get("/wheel/fraud"))
    assert "Population stability index of the scores" in page
    assert "fraud_gold_v1 5,000 0.014 amount" in page
    assert "Fields drifted in the week up to 2026-01-03: amount: psi 0.31 &gt; 0.25." in page


def test_a_hostile_model_version_is_only_shown(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_assets_tests.wheel import homes

    hostile = '"><script>alert(1)</script>'
    plain = homes._summaries
    monkeypatch.setattr(
        homes, "_summaries", lambda *given: [{**row, "model_version": hostile} for row in plain(*given)]
    )
    grow_days(stores, 0, 2)
    with looking(stores, [ASSISTANT], lambda: noon_after(2)) as client:
        page = client.get("/wheel/assistant")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_only_reviewers_look_where_there_are_keys(stores: Stores, tmp_path: Path) -> None:
    grow_days(stores, 0, 1)
    keys = tmp_path / "keys.json"
    reviewer = create_key(keys, KeyRequest("assistant", "ann", scopes=(Scope.REVIEW,)), noon_after(0))
    sender = create_key(keys, KeyRequest("assistant", "app"), noon_after(0))
    access = Access(KeyStore(keys), clock=lambda: noon_after(1))
    with looking(stores, [ASSISTANT], lambda: noon_after(1), access) as client:
        for path in ("/", "/wheel/assistant", "/wheel/assistant/trace?id=x"):
            answer = client.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/review/sign-in?to=%2F")
        assert client.get("/wheel-state").status_code == 401
        by_key = {name: {"Authorization": f"Bearer {key.secret}"} for name, key in (("r", reviewer), ("s", sender))}
        assert client.get("/", headers=by_key["r"]).status_code == 200
        assert client.get("/", headers=by_key["s"]).status_code == 403

        form = client.get("/review/sign-in?to=%2Fwheel%2Fassistant")
        assert 'name="to" value="/wheel/assistant"' in form.text
        here = {"sec-fetch-site": "same-origin", "origin": str(client.base_url)}
        given = {"name": "Ann", "key": reviewer.secret, "to": "/wheel/assistant"}
        signed_in = client.post("/review/sign-in", data=given, headers=here)
        assert signed_in.headers["location"] == "/wheel/assistant"
        assert client.get("/wheel/assistant").status_code == 200
        assert client.get("/review/queue/assistant").status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/review/../x", "javascript:alert(1)"])
def test_signing_in_leads_to_no_other_place(stores: Stores, target: str) -> None:
    with looking(stores, [ASSISTANT], lambda: noon_after(1)) as client:
        here = {"sec-fetch-site": "same-origin", "origin": str(client.base_url)}
        signed_in = client.post("/review/sign-in", data={"name": "Ann", "to": target}, headers=here)
    assert signed_in.headers["location"] == "/review"


def test_another_host_name_sees_nothing_without_keys(stores: Stores) -> None:
    with looking(stores, [ASSISTANT], lambda: noon_after(1)) as client:
        assert client.get("/", headers={"host": "rebound.example"}).status_code == 403
