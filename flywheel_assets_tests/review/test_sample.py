"""Rows of gold that people see by chance: what is drawn, what a decision does, and the error rate that follows."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.pair_versions import count_pairs_to_cut
from flywheel_assets.review.decisions import SAMPLED, Decision, DecisionIndex, Verb
from flywheel_assets.review.queue import Reviewed, ReviewQueue
from flywheel_assets.review.sample import ERROR_DAYS, measure_gold_error
from flywheel_assets_tests.builders import (
    APPLICATION,
    DAY,
    NOON,
    make_feedback,
    make_label,
    make_prediction,
    make_score,
)
from flywheel_assets_tests.lake.labelled import CONTRACT, mine
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import (
    REWRITTEN,
    TOMORROW,
    TOXIC,
    Reviewer,
    decided,
    fill,
    make_thumb,
    materialize_tomorrow,
    reviewed,
    service,
)

QUEUE = f"/review/queue/{APPLICATION}"


def list_sampled(bench: Workbench, rows: int) -> list[str]:
    drawn = replace(reviewed(bench), sample_rows=rows)
    ticks = iter(range(0, 10_000, 100))
    queue = ReviewQueue(drawn, DecisionIndex(bench.root / "review" / f"{APPLICATION}.jsonl"), lambda: next(ticks))
    waiting = queue.list_waiting(TOMORROW.date())
    sampled = [item.row_id for item in waiting if item.reason == SAMPLED]
    assert [item.row_id for item in waiting][len(waiting) - len(sampled) :] == sampled, "they come last"
    return sampled


def test_only_rows_that_are_in_gold_by_the_machines_word_are_drawn(tmp_path: Path) -> None:
    bench, liked = Workbench(tmp_path), make_prediction()
    fill(
        bench,
        *(make_feedback(event_id=f"edit-{number}") for number in range(5)),
        make_thumb(liked, event_id="liked", value=1.0),
        make_feedback(event_id="toxic", final_text=TOXIC),
        make_feedback(event_id="rewritten", final_text=REWRITTEN),
        make_feedback(event_id="private", do_not_train=True),
        make_feedback(event_id="a reviewer's", source="reviewer"),
        predictions=(liked,),
    )
    everything = {*(f"edit-{number}" for number in range(5)), "liked"}
    assert set(list_sampled(bench, 50)) == everything
    two = list_sampled(bench, 2)
    assert len(two) == 2
    assert set(two) < set(list_sampled(bench, 3))
    assert list_sampled(bench, 0) == []


@pytest.mark.long
def test_which_rows_are_drawn_depends_on_the_home_so_that_no_sender_can_choose(tmp_path: Path) -> None:
    drawn = set()
    for number in range(6):
        bench = Workbench(tmp_path / str(number))
        fill(bench, *(make_feedback(event_id=f"edit-{each}", user_id=f"user-{each}") for each in range(6)))
        drawn |= set(list_sampled(bench, 1))
    assert len(drawn) > 1


@pytest.mark.long
def test_right_changes_nothing_and_wrong_takes_the_pair_out_until_it_is_undone(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    fill(bench, *(make_feedback(event_id=each, user_id=each) for each in ("good", "bad", "worse")))
    drawn = replace(reviewed(bench), sample_rows=50)
    with service(bench, application=drawn) as capture:
        ann = Reviewer(capture.url)
        assert ann.get(QUEUE).text.count("data-row") == 3
        page = ann.get(f"{QUEUE}/good").text
        assert "It is right" in page
        assert "It is wrong: out of gold" in page
        ann.decide("good", "accept")
        ann.decide("bad", "reject")
        ann.decide("worse", "reject")
        events = decided(bench.root, capture)
        undone = re.search(
            r'name="undo" value="([^"]+)" aria-label="undo reject ', ann.get(f"/review/decisions/{APPLICATION}").text
        )
        assert undone is not None
        ann.http.post(f"/review/decisions/{APPLICATION}", data={"token": ann.token, "undo": undone[1]})
        assert ann.get(QUEUE).text.count("data-row") == 1
        capture.seal()
    assert (events["good"]["signal"], events["bad"]["signal"], events["bad"]["retracts"]) == (
        "comment",
        "retract",
        "bad",
    )
    materialize_tomorrow(bench)
    closed = ledger.read_closed_accounts(bench.lake, CURATED_DPO_PAIRS.name)
    assert count_pairs_to_cut(bench.lake, ResolutionRules(holdout_share=0.0), closed).train == 2


def test_another_label_is_an_error_and_the_same_one_says_nothing_new(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    ids = ("one", "two", "three")
    bench.land(EventKind.PREDICTION, DAY, [make_score(prediction_id=each, score=0.9) for each in ids])
    labels = [make_label(event_id=f"label-{each}", prediction_id=each, label="true") for each in ids]
    bench.land(EventKind.FEEDBACK, DAY, labels)
    bench.ingest_both([DAY])
    bench.join([DAY])
    mine(bench, [DAY])
    fraud = Reviewed(bench.lake, bench.window.join_days, CONTRACT, sample_rows=50)
    with service(bench, application=fraud) as capture:
        ann = Reviewer(capture.url)
        assert ann.get(QUEUE).text.count("data-row") == 3
        ann.decide("label-one", "accept")
        for row_id, label in (("label-two", "true"), ("label-three", "false")):
            ann.http.post(f"{QUEUE}/{row_id}", data={"token": ann.token, "label": label})
        events = decided(bench.root, capture)
    signals = {row_id: event["signal"] for row_id, event in events.items()}
    assert signals == {"label-one": "comment", "label-two": "comment", "label-three": "label"}
    index = DecisionIndex(bench.root / "review" / f"{APPLICATION}.jsonl")
    error = measure_gold_error(index.read_decisions(), TOMORROW)
    assert error is not None
    assert (error.decided, error.wrong) == (3, 1)


def make_decisions(right: int, wrong: int) -> list[Decision]:
    verbs = [Verb.ACCEPT] * right + [Verb.REJECT] * wrong
    return [Decision(verb, f"row-{n}", "p", SAMPLED, "Ann", NOON, event_id=f"e{n}") for n, verb in enumerate(verbs)]


@pytest.mark.parametrize(
    ("right", "wrong", "low", "high"),
    # The textbook values of Clopper and Pearson.
    [(20, 0, 0.0, 0.1684), (19, 1, 0.0013, 0.2487), (5, 5, 0.1871, 0.8129), (0, 3, 0.2924, 1.0)],
)
def test_the_interval_is_exact(right: int, wrong: int, low: float, high: float) -> None:
    error = measure_gold_error(make_decisions(right, wrong), NOON)
    assert error is not None
    assert error.share == wrong / (right + wrong)
    assert (error.low, error.high) == pytest.approx((low, high), abs=1e-4)


def test_undone_old_and_other_decisions_do_not_count() -> None:
    one, two = make_decisions(0, 2)
    undo = replace_decision(one, verb=Verb.UNDO, undoes=one.event_id)
    other = replace_decision(two, row_id="doubted", reason="rewrite")
    assert measure_gold_error([one, undo, other], NOON) is None
    assert measure_gold_error([one], NOON + timedelta(days=ERROR_DAYS + 1)) is None


def replace_decision(decision: Decision, **changes: object) -> Decision:
    fields = {name: getattr(decision, name) for name in decision.__struct_fields__}
    return Decision(**{**fields, **changes})
