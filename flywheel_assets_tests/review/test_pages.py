"""The pages over HTTP: decisions become events, and nobody decides who may not."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key, revoke_key
from flywheel_assets.capture.service import RunningCapture
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, CURATED_DPO_PAIRS, GROUND_TRUTH, JOINED_FEEDBACK
from flywheel_assets.lake.versions.pair_versions import count_pairs_to_cut
from flywheel_assets.review.decisions import Decision, Verb, build_event, read_decision
from flywheel_assets.review.queue import Reviewed
from flywheel_assets_tests.builders import (
    APPLICATION,
    DAY,
    NOON,
    day,
    make_feedback,
    make_label,
    make_prediction,
    make_score,
)
from flywheel_assets_tests.capture.samples import landed
from flywheel_assets_tests.lake.labelled import CONTRACT, mine
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder
from flywheel_assets_tests.review.rows import (
    REWRITTEN,
    TOXIC,
    Reviewer,
    decided,
    fill,
    make_thumb,
    materialize_tomorrow,
    queue_of,
    service,
)

QUEUE = "/review/queue/assistant"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    bench = Workbench(tmp_path_factory.mktemp("filled"))
    disliked = make_prediction(prediction_id="disliked")
    fill(
        bench,
        make_feedback(event_id="toxic", final_text=TOXIC, user_id="eve"),
        make_feedback(event_id="rewritten", final_text=REWRITTEN, user_id="bob"),
        make_feedback(event_id="vandal", final_text="lalala"),
        make_thumb(disliked, event_id="thumb"),
        predictions=(disliked,),
    )
    return PreparedFolder(bench.root)


@pytest.fixture
def filled(prepared: PreparedFolder) -> Workbench:
    return Workbench(prepared.restored())


@pytest.fixture
def capture(filled: Workbench) -> Iterator[RunningCapture]:
    with service(filled) as running:
        yield running


def test_decisions_walk_as_ordinary_events_and_overrule_the_gate(filled: Workbench, capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    assert ann.get(QUEUE).text.count("data-row") == 4
    assert ann.decide("rewritten", "accept").next_request is not None
    ann.decide("thumb", "write", text="Call store.read('x', default=0):\r\nit never returns None.")
    ann.decide("vandal", "reject")
    events = decided(filled.root, capture)
    assert {row: (event["signal"], event["source"]) for row, event in events.items()} == {
        "rewritten": ("edit", "reviewer"),
        "thumb": ("edit", "reviewer"),
        "vandal": ("comment", "reviewer"),
    }
    assert (events["rewritten"]["final_text"], events["rewritten"]["user_id"]) == (REWRITTEN, "bob")
    assert events["thumb"]["final_text"] == "Call store.read('x', default=0):\nit never returns None."
    assert ann.get(QUEUE).text.count("data-row") == 1

    materialize_tomorrow(filled)
    # What the gate refused of other people's is a statement.
    gold = {row["prediction_id"]: row for row in filled.rows(CURATED_DPO_PAIRS) if row["example_kind"] != "statement"}
    assert {row["source"] for row in gold.values()} == {"reviewer"}
    assert gold["disliked"]["chosen"].endswith("it never returns None.")
    assert REWRITTEN in {row["chosen"] for row in gold.values()}
    by = {decision.row_id: decision for row in filled.rows(GROUND_TRUTH) if (decision := read_decision(row["comment"]))}
    assert {each.by for each in by.values()} == {"Ann"}
    assert by["vandal"].verb == "reject"
    assert [item.row_id for item in queue_of(filled).list_waiting(DAY)] == ["toxic"]
    assert "Ann" in ann.get("/review/decisions/assistant").text


def undo(reviewer: Reviewer, verb: str) -> httpx.Response:
    """Press the first button that takes such a decision back."""
    page = reviewer.get("/review/decisions/assistant").text
    found = re.search(rf'name="undo" value="([^"]+)" aria-label="undo {verb} ', page)
    assert found is not None, "there is no such button"
    return reviewer.http.post("/review/decisions/assistant", data={"token": reviewer.token, "undo": found[1]})


def test_a_decision_is_undone_and_made_again_and_all_three_are_audited(
    filled: Workbench, capture: RunningCapture
) -> None:
    """One mistyped key put an insult into gold with the highest trust, and nothing took it out again."""
    ann = Reviewer(capture.url)
    ann.decide("toxic", "accept")
    assert "toxic" not in ann.get(QUEUE).text.split("<table")[1]
    assert undo(ann, "accept").status_code == 303
    page = ann.get("/review/decisions/assistant").text
    assert "Undone: accept, toxic language. The row waits again." in page
    assert 'name="undo"' not in page
    assert ann.get(QUEUE).text.count("data-row") == 4

    # The same decision again is another event; and then the opposite one.
    ann.decide("toxic", "accept")
    undo(ann, "accept")
    ann.decide("toxic", "reject")
    assert ann.get(QUEUE).text.count("data-row") == 3
    capture.seal()
    events = [row for row in landed(filled.root / "landing", "feedback") if row["source"] == "reviewer"]
    assert [row["signal"] for row in events].count("edit") == 2
    retracted = {row["retracts"] for row in events if row["signal"] == "retract"}
    assert retracted == {row["event_id"] for row in events if row["signal"] == "edit"}
    assert len({row["event_id"] for row in events}) == 5

    materialize_tomorrow(filled)
    closed = ledger.read_closed_accounts(filled.lake, CURATED_DPO_PAIRS.name)
    assert count_pairs_to_cut(filled.lake, ResolutionRules(holdout_share=0.0), closed).train == 0
    assert [item.row_id for item in queue_of(filled).list_waiting(DAY) if item.row_id == "toxic"] == []
    assert [each.verb for each in queue_of(filled).list_decided()] == ["reject", "undo", "accept", "undo", "accept"]


def test_an_undone_answer_lets_the_complaint_wait_again(filled: Workbench, capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    ann.decide("thumb", "write", text="Call store.read('x', default=0): it never returns None.")
    undo(ann, "write")
    capture.seal()
    materialize_tomorrow(filled)
    assert "thumb" in [item.row_id for item in queue_of(filled).list_waiting(DAY)]


def test_a_decision_is_undone_once_and_by_a_form_of_ours_only(capture: RunningCapture) -> None:
    ann, bob = Reviewer(capture.url), Reviewer(capture.url, "Bob")
    ann.decide("toxic", "reject")
    page = bob.get("/review/decisions/assistant").text
    event = page.split('name="undo" value="')[1].split('"')[0]
    assert bob.http.post("/review/decisions/assistant", data={"token": "wrong", "undo": event}).status_code == 403
    bob.http.post("/review/decisions/assistant", data={"token": bob.token, "undo": event})
    ann.http.post("/review/decisions/assistant", data={"token": ann.token, "undo": event})
    assert "That decision does not stand any more." in ann.get("/review/decisions/assistant").text
    assert ann.decide("toxic", "undo").status_code == 400


def test_a_row_of_the_queue_shows_the_change_itself(capture: RunningCapture) -> None:
    """Nine lines of a queue were alike, so that accepting them together was blind."""
    page = Reviewer(capture.url).get(QUEUE).text
    assert re.search(r'<span class="[^"]*evidence[^"]*" title="[^"]+">[^<]*idiot', page)
    assert REWRITTEN.split()[0] in page
    assert page.count('class="before"') == page.count("<tr data-row>") == 4


def test_a_second_reviewer_who_is_late_hears_so(filled: Workbench, capture: RunningCapture) -> None:
    ann, bob = Reviewer(capture.url), Reviewer(capture.url, "Bob")
    ann.decide("rewritten", "accept")
    bob.decide("rewritten", "reject")
    assert "was decided meanwhile" in bob.get(QUEUE).text
    assert read_decision(decided(filled.root, capture)["rewritten"]["comment"]).by == "Ann"  # type: ignore[union-attr]


def test_several_rows_are_decided_at_once(filled: Workbench, capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    chosen = {"token": ann.token, "do": "accept", "row": ["rewritten", "toxic", "thumb", "unknown"]}
    ann.http.post(QUEUE, data=chosen)
    assert "Accepted: 2 rows. 2 left" in ann.get(QUEUE).text
    assert set(decided(filled.root, capture)) == {"rewritten", "toxic"}


def test_a_skipped_row_comes_last_to_who_skipped_it(capture: RunningCapture) -> None:
    ann, bob = Reviewer(capture.url), Reviewer(capture.url, "Bob")
    assert ann.decide("toxic", "skip").headers["location"] != QUEUE
    assert ann.get(QUEUE).text.index("/toxic") > ann.get(QUEUE).text.index("/thumb")
    assert bob.get(QUEUE).text.index("/toxic") < bob.get(QUEUE).text.index("/thumb")


def test_filters_and_pages(capture: RunningCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.review.pages.ITEMS_ON_A_PAGE", 1)
    ann = Reviewer(capture.url)
    first, second = ann.get(f"{QUEUE}?reason=rewrite").text, ann.get(f"{QUEUE}?reason=rewrite&page=2").text
    assert {first.count("data-row"), second.count("data-row")} == {1}
    assert ("/rewritten?" in first) != ("/rewritten?" in second)
    assert "page 2 of 2" in second
    for odd in ("?reason=<b>&order=x&page=-1", "?page=999999999999", "?reason=rewrite&page=7"):
        assert ann.get(QUEUE + odd).status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"token": "guessed"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"site": "cross-site"}, 403),
        ({"site": None, "origin": None}, 403),
        ({"host": "evil.example:80"}, 403),
        ({"do": "promote"}, 400),
        ({"do": "label", "label": "true"}, 400),
        ({"do": "write", "text": "  "}, 400),
        ({"do": "write", "text": "x" * 50_001}, 400),
        ({"do": "write", "text": "x" * 2**20}, 413),
        ({"cookie": "none"}, 401),
        ({}, 303),
    ],
)
def test_only_a_form_of_ours_decides(capture: RunningCapture, change: dict[str, Any], status: int) -> None:
    ann = Reviewer(capture.url)
    headers = {
        "sec-fetch-site": change.get("site", "same-origin"),
        "origin": change.get("origin", capture.url),
        "host": change.get("host"),
    }
    form = {
        "token": ann.token,
        "do": "reject",
        **{k: v for k, v in change.items() if k in ("token", "do", "text", "label")},
    }
    cookies = {"flywheel_review": change.get("cookie", ann.http.cookies["flywheel_review"])}
    sent = {name: value for name, value in headers.items() if value is not None}
    answer = httpx.post(f"{capture.url}{QUEUE}/vandal", data=form, headers=sent, cookies=cookies, timeout=30)
    assert answer.status_code == status
    assert ("/vandal" in ann.get(QUEUE).text) == (status != 303)


def test_a_session_is_new_at_each_sign_in_and_ends_when_it_is_left(capture: RunningCapture) -> None:
    ann, again = Reviewer(capture.url), Reviewer(capture.url)
    cookie = ann.http.cookies["flywheel_review"]
    assert cookie != again.http.cookies["flywheel_review"]
    assert len(cookie) >= 43
    set_cookie = ann.page.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in set_cookie.split(";")}
    assert ann.get(QUEUE).status_code == 200
    ann.http.post("/review/sign-out", data={"token": ann.token})
    # A cookie that was kept opens nothing with it.
    assert httpx.get(f"{capture.url}{QUEUE}", cookies={"flywheel_review": cookie}, timeout=30).status_code == 401
    assert again.get(QUEUE).status_code == 200


def test_every_answer_forbids_scripts_frames_and_caching(capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    paths = (
        "/review/sign-in",
        QUEUE,
        f"{QUEUE}/toxic",
        "/review/decisions/assistant",
        f"{QUEUE}/none",
        "/review/queue/none",
    )
    for path in paths:
        headers = ann.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-frame-options"], headers["cache-control"]) == ("DENY", "no-store")
    assert ann.get("/review/assets/review.js").headers["content-type"].startswith("text/javascript")
    cookie = ann.page.headers["set-cookie"].lower()
    # The whole host: the page of the wheel is at "/", for the same people. No endpoint of capture reads a cookie.
    assert all(part in cookie.replace(" ", "").split(";") for part in ("httponly", "samesite=strict", "path=/"))
    assert ann.get("/review/assets/../pages.py").status_code == 404


def test_no_text_of_anybody_is_logged(capture: RunningCapture, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="flywheel_assets"):
        ann = Reviewer(capture.url)
        ann.get(f"{QUEUE}/toxic")
        ann.decide("toxic", "write", text="a private answer")
    assert not any(word in caplog.text for word in ("idiot", "private", "Ann"))


def test_with_keys_only_the_review_scope_of_the_application_opens(filled: Workbench) -> None:
    path = filled.root / "keys.json"
    key = create_key(path, KeyRequest("assistant", "reviewers", (Scope.REVIEW,)), NOON)
    writer = create_key(path, KeyRequest("assistant", "app", (Scope.WRITE,)), NOON)
    other = create_key(path, KeyRequest("copilot", "others", (Scope.REVIEW,)), NOON)
    with service(filled, Access(KeyStore(path, iter(range(0, 100_000, 10)).__next__))) as capture:
        for secret in ("", "flw_guess", writer.secret, other.secret):
            nobody = Reviewer(capture.url, key=secret)
            assert nobody.page.status_code == 403
            assert nobody.get(QUEUE).status_code == 401
        ann = Reviewer(capture.url, key=key.secret)
        assert ann.decide("rewritten", "accept").status_code == 303
        decision = read_decision(decided(filled.root, capture)["rewritten"]["comment"])
        assert decision is not None
        # A name that is typed next to a key proves nothing: the key's holder signs.
        assert (decision.by, decision.key_id) == ("reviewers", key.key_id)
        revoke_key(path, key.key_id, NOON)
        assert ann.get(QUEUE).status_code == 401


def test_a_confirmed_complaint_is_a_thumb_of_a_reviewer(filled: Workbench, capture: RunningCapture) -> None:
    """Nothing was right to write, and rejecting says that the complaint is wrong: so bad outputs taught nothing."""
    ann = Reviewer(capture.url)
    assert "Confirm: it is wrong" in ann.get(f"{QUEUE}/thumb").text
    assert "Confirm: it is wrong" not in ann.get(f"{QUEUE}/toxic").text
    assert ann.decide("toxic", "confirm").status_code == 400
    chosen = {"token": ann.token, "do": "confirm", "row": ["toxic", "thumb"]}
    ann.http.post(QUEUE, data=chosen)
    assert "Confirmed: 1 row. 1 left" in ann.get(QUEUE).text
    event = decided(filled.root, capture)["thumb"]
    assert (event["signal"], event["value"], event["source"]) == ("thumb", -1.0, "reviewer")
    assert (event["prediction_id"], event.get("final_text")) == ("disliked", None)
    assert read_decision(event["comment"]).verb == "confirm"  # type: ignore[union-attr]

    materialize_tomorrow(filled)
    assert "thumb" not in {item.row_id for item in queue_of(filled).list_waiting(DAY)}
    thumbs = [row for row in filled.rows(JOINED_FEEDBACK) if row["signal"] == "thumb"]
    assert {row["source"] for row in thumbs} == {"app", "reviewer"}


def test_a_correction_under_a_thumb_is_accepted_as_an_edit_with_its_tools(tmp_path: Path) -> None:
    """To accept it sent `accept`, which approved the very output that the person had corrected."""
    bench = Workbench(tmp_path)
    tools = '[{"type":"function","function":{"name":"read"}}]'
    called = '{"role":"assistant","content":"x","tool_calls":[{"type":"function","function":{"name":"read"}}]}'
    texts = {"tools": tools, "original_message": called, "final_message": called}
    fill(bench, make_feedback(event_id="thumb", signal="thumb", value=-1.0, final_text=TOXIC, **texts))
    [item] = queue_of(bench).list_waiting(day(300))
    assert (item.row_id, item.reason, item.decide_until) == ("thumb", "toxic_language", None)
    [row] = bench.rows(JOINED_FEEDBACK)
    decision = Decision(Verb.ACCEPT, "thumb", row["prediction_id"], item.reason, "Ann", NOON)
    for answer, verb, message in ((TOXIC, Verb.ACCEPT, called), ("Mine.", Verb.WRITE, None)):
        line = build_event(APPLICATION, msgspec.structs.replace(decision, verb=verb), row, answer).line
        event = msgspec.json.decode(line)
        assert (event["tools"], event["original_message"], event.get("final_message")) == (tools, called, message)
    with service(bench) as capture:
        Reviewer(capture.url).decide("thumb", "accept")
        event = decided(tmp_path, capture)["thumb"]
        assert (event["signal"], event["final_text"], event["original_message"]) == ("edit", TOXIC, called)


def test_a_complaint_is_confirmed_only_while_it_still_meets_its_prediction(filled: Workbench) -> None:
    """A thumb carries no text: behind the join window it would be matched with nothing."""
    late = Reviewed(filled.lake, join_days=0)
    with service(filled, application=late) as capture:
        ann = Reviewer(capture.url)
        assert "Confirm: it is wrong" not in ann.get(f"{QUEUE}/thumb").text
        assert ann.decide("thumb", "confirm").status_code == 400
        assert ann.decide("thumb", "write", text="Call store.read('x').").status_code == 303


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\u202eb"])
def test_decisions_are_signed_by_a_name(capture: RunningCapture, name: str) -> None:
    assert Reviewer(capture.url, name).page.status_code == 400


def test_a_disputed_label_is_shown_with_everybodys_labels_and_a_reviewer_ends_it(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    score = make_score(prediction_id="odd", score=0.83, features='{"amount":75.2,"night":true,"country":"<b>NL"}')
    bench.land(EventKind.PREDICTION, DAY, [score])
    said = [("chargeback", "true"), ("analyst", "false")]
    labels = [make_label(prediction_id="odd", labeling_source=who, label=label) for who, label in said]
    bench.land(EventKind.FEEDBACK, DAY, labels)
    bench.ingest_both([DAY])
    bench.join([DAY])
    mine(bench, [DAY])
    fraud = Reviewed(bench.lake, bench.window.join_days, CONTRACT)
    with service(bench, application=fraud) as capture:
        ann = Reviewer(capture.url)
        queue = ann.get(QUEUE).text
        assert queue.count("data-row") == 1
        row_id = queue.split(f"{QUEUE}/")[1].split('"')[0]
        page = ann.get(f"{QUEUE}/{row_id}").text
        assert "chargeback" in page
        assert "analyst" in page
        assert "&lt;b&gt;NL" in page
        assert ann.decide(row_id, "label", label="maybe").status_code == 400
        assert ann.decide(row_id, "write", text="words").status_code == 400
        other = {"token": ann.token, "label": "true"}
        assert ann.http.post(f"{QUEUE}/{row_id}", data=other).status_code == 303
        event = decided(bench.root, capture)[row_id]
        assert ann.get(QUEUE).text.count("data-row") == 0
    assert (event["signal"], event["label"], event["labeling_source"]) == ("label", "true", "reviewer")


def test_a_dispute_between_several_classes_offers_each_of_them(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    contract = replace(CONTRACT, classes=("legit", "stolen", "friendly"), negative_label="legit")
    scores = '{"legit":0.2,"stolen":0.7,"friendly":0.1}'
    bench.land(EventKind.PREDICTION, DAY, [make_score(prediction_id="odd", score=0.8, scores=scores)])
    said = [("chargeback", "friendly"), ("analyst", "stolen")]
    labels = [make_label(prediction_id="odd", labeling_source=who, label=label) for who, label in said]
    bench.land(EventKind.FEEDBACK, DAY, labels)
    bench.ingest_both([DAY])
    bench.join([DAY])
    mine(bench, [DAY], contract=contract)
    with service(bench, application=Reviewed(bench.lake, bench.window.join_days, contract)) as capture:
        ann = Reviewer(capture.url)
        row_id = ann.get(QUEUE).text.split(f"{QUEUE}/")[1].split('"')[0]
        page = ann.get(f"{QUEUE}/{row_id}").text
        assert "another class than legit" in page
        assert "0.700" in page
        assert page.count('name="label"') == 2  # the third is what was said last
        assert ann.decide(row_id, "label", label="true").status_code == 400
        sent = {"token": ann.token, "label": "friendly"}
        assert ann.http.post(f"{QUEUE}/{row_id}", data=sent).status_code == 303
        event = decided(bench.root, capture)[row_id]
    assert (event["label"], event["labeling_source"]) == ("friendly", "reviewer")
