"""`hard_examples`: every label and every matured silence is kept or counted under one reason, on exactly one day."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.sampling import SamplingRules, draw_uniform
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.join_days import LATE_LABEL_STAGE
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.daily.mine_days import DISPUTE_STAGE, compute_mining_lookback
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_LABELS,
    QUARANTINE,
    RAW_SCORES,
)
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day, make_feedback
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, mine, run, score
from flywheel_assets_tests.lake.workbench import Workbench, stamp


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, tables=CLASSIFICATION_TABLES)


def examples(bench: Workbench) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["prediction_id"], row["labeling_source"]): row for row in bench.rows(HARD_EXAMPLES)}


def test_silence_matures_into_a_negative(bench: Workbench) -> None:
    entries = run(bench, [score(DAY, "quiet")], day(8))
    [row] = bench.rows(HARD_EXAMPLES)
    assert row["completed_date"] == day(7)
    assert (row["is_positive"], row["labeling_source"], row["label_event_id"]) == (False, "silence", None)
    assert (row["inclusion_probability"], row["draw"]) == (1.0, draw_uniform(APPLICATION, "quiet"))
    assert json.loads(row["features"])["amount"] == 75.2
    assert [entries[each].rows_in for each in (day(6), day(7), day(8))] == [0, 1, 0]


def test_a_label_is_an_example_on_the_day_it_became_complete(bench: Workbench) -> None:
    run(bench, [score(DAY, "fraud", score=0.1), label(day(3), "fraud")], day(8))
    [row] = bench.rows(HARD_EXAMPLES)
    assert row["completed_date"] == day(3)
    assert (row["is_positive"], row["labeling_source"], row["selection_reason"]) == (True, "chargeback", "positive")
    assert (row["discrepancy"], row["severity"]) == ("confident_miss", pytest.approx(0.9))
    # The prediction's own silence is accounted for by its label.
    assert ledger.read_entries(bench.lake, HARD_EXAMPLES.name)[day(7)].rows_by_reason == {"labelled": 1}


def test_a_label_before_its_prediction_waits_for_it(bench: Workbench) -> None:
    run(bench, [label(DAY, "early"), score(day(2), "early")], day(9))
    assert {row["completed_date"] for row in bench.rows(HARD_EXAMPLES)} == {day(2)}


def test_a_label_29_days_late_comes_beside_the_silence_it_supersedes(bench: Workbench) -> None:
    run(bench, [score(DAY, "late"), label(day(29), "late")], day(29))
    found = {source: row["completed_date"] for (_, source), row in examples(bench).items()}
    assert found == {"silence": day(7), "chargeback": day(29)}


def test_a_repeated_label_event_counts_once(bench: Workbench) -> None:
    again = label(day(2), "twice")
    entries = run(bench, [score(DAY, "twice"), again, {**again, "received_at": NOON + timedelta(days=4)}], day(5))
    assert sum(entry.rows_kept for entry in entries.values()) == 1


def test_contradicting_trusted_labels_are_listed_for_review(bench: Workbench) -> None:
    run(
        bench,
        [
            score(DAY, "odd"),
            label(day(1), "odd", labeling_source="chargeback"),
            label(day(2), "odd", labeling_source="analyst", label="false"),
        ],
        day(3),
    )
    assert {source for _, source in examples(bench)} == {"chargeback", "analyst"}
    [held] = [row for row in bench.rows(QUARANTINE) if row["stage"] == DISPUTE_STAGE]
    assert (held["day"], held["reason"]) == (day(2), "disputed")
    assert json.loads(held["evidence"]) == [
        {"source": "chargeback", "positive": True},
        {"source": "analyst", "positive": False},
    ]


@pytest.mark.long
def test_a_source_that_corrects_itself_disputes_nothing(bench: Workbench) -> None:
    run(bench, [score(DAY, "x"), label(day(1), "x"), label(day(2), "x", label="false")], day(3))
    assert [row for row in bench.rows(QUARANTINE) if row["stage"] == DISPUTE_STAGE] == []


@pytest.mark.long
def test_every_row_is_kept_or_counted_for_a_reason(bench: Workbench) -> None:
    events = [
        score(DAY, "quiet"),
        {**score(DAY, "quiet"), "event_id": "p-again"},
        score(DAY, "stopped", action="block"),
        score(DAY, "private", do_not_train=True),
        score(DAY, "broken", features='{"amount": "75", "night": false, "country": "NL"}'),
        score(DAY, "unsure"),
        score(DAY, "chatty"),
        label(day(7), "unsure", label="perhaps"),
        make_feedback(
            prediction_id="chatty",
            signal="comment",
            comment="looked odd",
            final_text=None,
            received_at=NOON + timedelta(days=7),
        ),
    ]
    entries = run(bench, events, day(7))
    assert entries[day(7)].rows_in == 9
    assert entries[day(7)].rows_kept == 2  # quiet and chatty: a comment is no label
    assert entries[day(7)].rows_by_reason == {
        "duplicate_event": 1,
        "blocked": 1,
        "no_consent": 1,
        "invalid_features": 1,
        "labelled": 1,
        "unknown_label": 1,
        "not_trainable_signal": 1,
    }
    details = {row["reason"]: row["detail"] for row in bench.rows(QUARANTINE)}
    assert details["invalid_features"] == "feature `amount` is no number; valid: a number or null"
    assert details["unknown_label"] == "valid: true and false"


def test_what_was_blocked_and_labelled_all_the_same_is_an_example(bench: Workbench) -> None:
    run(bench, [score(DAY, "checked", action="block"), label(day(1), "checked", labeling_source="analyst")], day(8))
    assert list(examples(bench)) == [("checked", "analyst")]


def test_easy_silence_is_sampled_and_counted(bench: Workbench) -> None:
    rules = replace(RULES, sampling=SamplingRules(surprise_factor=10, floor=0.2))
    names = [f"n{i}" for i in range(200)]
    entries = run(bench, [score(DAY, name, score=0.001) for name in names], day(7), rules)
    drawn = {name for name in names if draw_uniform(APPLICATION, name) < 0.2}
    assert {row["prediction_id"] for row in bench.rows(HARD_EXAMPLES)} == drawn
    assert entries[day(7)].rows_by_reason == {"not_sampled": 200 - len(drawn)}
    assert {row["inclusion_probability"] for row in bench.rows(HARD_EXAMPLES)} == {0.2}


@pytest.mark.long
def test_the_floor_of_a_day_follows_from_the_predictions_that_mature_on_it(bench: Workbench) -> None:
    """Two days of other volumes: each is drawn by its own floor, labels by that of the day that matures with them."""
    rules = replace(RULES, sampling=SamplingRules(surprise_factor=0, row_budget=180 * 20))
    few, many = [f"f{i}" for i in range(20)], [f"m{i}" for i in range(80)]
    events = [score(DAY, name) for name in few] + [score(day(1), name) for name in many]
    labels = [label(day(7), "f0", label="false"), label(day(8), "m0", label="false")]
    run(bench, events + labels, day(8), rules)
    floors = {row["prediction_id"]: row["inclusion_probability"] for row in bench.rows(HARD_EXAMPLES)}
    assert {floors[name] for name in few} == {1.0}
    drawn = {name for name in many if draw_uniform(APPLICATION, name) < 0.25} | {"m0"}
    assert {name: floor for name, floor in floors.items() if name.startswith("m")} == dict.fromkeys(drawn, 0.25)


def test_before_anything_matures_the_first_days_predictions_give_the_floor_of_the_labels(bench: Workbench) -> None:
    rules = replace(RULES, sampling=SamplingRules(surprise_factor=0, row_budget=180 * 5))
    events = [score(DAY, f"n{i}") for i in range(10)]
    run(bench, [*events, label(day(1), "n0", label="false")], day(1), rules)
    assert [row["inclusion_probability"] for row in bench.rows(HARD_EXAMPLES)] == [0.5]


def test_confident_false_alarms_can_wait_for_a_reviewer(bench: Workbench) -> None:
    rules = replace(RULES, hold_false_alarms_above=0.9)
    events = [
        score(DAY, "alarm", score=0.97),
        label(day(1), "alarm", label="false", labeling_source="analyst"),
        score(DAY, "reviewed", score=0.97),
        label(day(1), "reviewed", label="false", labeling_source="reviewer"),
    ]
    run(bench, events, day(3), rules)
    assert list(examples(bench)) == [("reviewed", "reviewer")]
    assert [row["reason"] for row in bench.rows(QUARANTINE)] == ["held_for_review"]


@pytest.mark.long
def test_a_feature_schema_that_changes_between_two_days_keeps_what_still_fits(bench: Workbench) -> None:
    """`country` was added on the second day: the first day's events have none, and say so in quarantine."""
    old = score(DAY, "old", features='{"amount":1,"night":true}')
    new = score(day(1), "new", features='{"amount":1,"night":true,"country":"NL"}')
    run(bench, [old, new], day(8))
    assert [name for name, _ in examples(bench)] == ["new"]
    [refused] = bench.rows(QUARANTINE)
    assert refused["detail"] == "feature `country` is missing; valid: a text, or null for an unknown value"
    before = replace(CONTRACT, features={"amount": FeatureType.NUMBER, "night": FeatureType.BOOLEAN})
    mine(bench, ledger.list_days(DAY, day(8)), contract=before)
    assert {name for name, _ in examples(bench)} == {"old", "new"}
    assert bench.rows(QUARANTINE) == []


@pytest.mark.long
def test_a_range_gives_what_its_days_give_one_by_one_in_any_order(bench: Workbench, tmp_path: Path) -> None:
    events = [score(day(i % 4), f"n{i}", score=i / 40) for i in range(40)]
    events += [label(day(5), f"n{i}", label="false" if i % 2 else "true") for i in range(0, 40, 3)]
    whole = run(bench, events, day(12))
    rows = bench.rows(HARD_EXAMPLES)
    other = Workbench(tmp_path / "other", tables=CLASSIFICATION_TABLES)
    assert run(other, events, day(12), each_day=True) == whole
    mine(other, [day(5)])
    assert other.rows(HARD_EXAMPLES) == rows


def test_a_missing_input_day_is_refused(bench: Workbench) -> None:
    run(bench, [score(DAY, "x")], day(1))
    with pytest.raises(MissingInputError, match="joined_feedback was never materialized"):
        mine(bench, [day(2)])


@pytest.mark.long
def test_the_window_it_reads_is_the_window_it_declares(bench: Workbench) -> None:
    run(bench, [score(DAY, "late"), label(day(2), "late")], day(9))
    lookback = compute_mining_lookback(bench.window, RULES)
    assert ledger.find_stale_days(bench.lake, HARD_EXAMPLES.name, lookback, DAY) == {}
    for asset in lookback:
        changed = replace(ledger.read_entries(bench.lake, asset)[day(5)], content_hash="another")
        ledger.record_entries(bench.lake, [changed], stamp())
    stale = ledger.find_stale_days(bench.lake, HARD_EXAMPLES.name, lookback, DAY)
    assert {on: set(names) for on, names in stale.items()} == {
        on: set(lookback) for on in ledger.list_days(day(5), day(9))
    }


@pytest.mark.long
def test_the_first_receipt_of_a_reused_id_counts_and_the_other_is_kept_in_quarantine(bench: Workbench) -> None:
    """Training took the second receipt of an id, evaluation and join the first, and no table held the other."""
    other = '{"amount": 1, "night": true, "country": "DE"}'
    events = [score(DAY, name, score=0.1) for name in ("same-day", "next-day", "retry", "long-after")]
    events += [
        score(DAY, "same-day", event_id="again", score=0.8, features=other, received_at=NOON + timedelta(hours=1)),
        score(day(1), "next-day", score=0.8, features=other),
        score(day(1), "retry", score=0.1),
        score(day(bench.window.dedupe_days + 1), "long-after", score=0.8),
        label(day(20), "next-day"),
    ]
    entries = run(bench, events, day(20))
    kept = {(row["prediction_id"], row["labeling_source"]): row["score"] for row in bench.rows(HARD_EXAMPLES)}
    assert kept["next-day", "chargeback"] == kept["next-day", "silence"] == kept["same-day", "silence"] == 0.1
    assert entries[day(7)].rows_by_reason == {"prediction_id_reused": 1}
    assert entries[day(8)].rows_by_reason == {"prediction_id_reused": 1, "duplicate_event": 1}
    refused = bench.refusals(HARD_EXAMPLES.name)
    assert [(row["row_id"], row["reason"]) for row in refused] == [
        ("again", "prediction_id_reused"),
        (f"p-next-day-{day(1)}", "prediction_id_reused"),
    ]
    for row in refused:
        said = json.loads(row["payload"])
        assert (said["score"], said["features"]) == (0.8, other)


def test_a_score_that_comes_again_under_its_event_id_with_other_content_is_no_retry(bench: Workbench) -> None:
    """It was counted as `duplicate_event`, and what it said was in no table."""
    first, later = score(DAY, "m1", score=0.1), NOON + timedelta(hours=1)
    run(bench, [first, {**first, "received_at": later}, {**first, "received_at": later, "score": 0.8}], day(7))
    [row] = bench.rows(RAW_SCORES)
    assert row["score"] == 0.1
    raw = ledger.read_entries(bench.lake, RAW_SCORES.name)
    assert raw[DAY].rows_by_reason == {"duplicate_event": 1, "prediction_id_reused": 1}
    assert audit_accounts(bench.lake, RAW_SCORES).discrepancies == ()
    [refused] = bench.refusals(RAW_SCORES.name)
    assert (refused["row_id"], refused["reason"]) == (first["event_id"], "prediction_id_reused")
    assert json.loads(refused["payload"])["score"] == 0.8


@pytest.mark.long
def test_a_label_after_the_window_supersedes_the_silence_it_contradicts(bench: Workbench) -> None:
    """A label 35 days late with a window of 30 was refused as `no_prediction_in_window`, though its prediction lay in
    `raw_predictions`; the silent negative stayed in gold."""
    bench.window = JoinWindow(join_days=10, wait_days=3, late_days=30)
    entries = run(bench, [score(DAY, "m1", score=0.1), label(day(15), "m1"), label(day(15), "unknown")], day(20))
    found = {source: (row["completed_date"], row["is_positive"]) for (_, source), row in examples(bench).items()}
    assert found == {"silence": (day(7), False), "chargeback": (day(15), True)}
    assert entries[day(15)].rows_kept == 1
    joined = ledger.read_entries(bench.lake, JOINED_LABELS.name)
    assert joined[day(15)].rows_by_reason == {"waiting_for_prediction": 1}
    assert joined[day(18)].rows_by_reason == {"no_prediction_in_window": 1}
    [late] = [row for row in bench.rows(QUARANTINE) if row["stage"] == LATE_LABEL_STAGE]
    assert (late["day"], late["reason"], late["row_id"]) == (day(15), "label_after_window", f"l-m1-{day(15)}")
    assert late["detail"] == (
        f"joined 15 days after its prediction of {DAY}, beyond the window of 10; "
        "JoinWindow(join_days=15) would take it at once"
    )
    assert audit_accounts(bench.lake, JOINED_LABELS).discrepancies == ()
    lookback = dict.fromkeys((RAW_SCORES.name, GROUND_TRUTH.name), bench.window.compute_lookback_days(is_text=False))
    assert ledger.find_stale_days(bench.lake, JOINED_LABELS.name, lookback, DAY) == {}


@pytest.mark.long
def test_a_label_for_an_unknown_or_another_applications_prediction_waits_and_expires(
    bench: Workbench, tmp_path: Path
) -> None:
    """Applications share a catalog and a landing zone, and their ids may collide."""
    other = Workbench(tmp_path, tables=CLASSIFICATION_TABLES, application="other")
    run(other, [score(DAY, "theirs")], day(8))
    bench.window = JoinWindow(join_days=5, dedupe_days=1)
    entries = run(bench, [label(DAY, "theirs"), label(day(1), "nobodys"), score(day(1), "ours")], day(8))
    assert list(examples(bench)) == [("ours", "silence")]
    assert sum(entry.rows_kept for entry in entries.values()) == 1
    expired = [row["row_id"] for row in bench.rows(QUARANTINE) if row["reason"] == "no_prediction_in_window"]
    assert sorted(expired) == [f"l-nobodys-{day(1)}", f"l-theirs-{DAY}"]
    assert [name for name, _ in examples(other)] == ["theirs"]


@pytest.mark.long
def test_silence_that_says_nothing_is_counted_and_never_an_example(bench: Workbench) -> None:
    """Half of the hate speech that no moderator had looked at was trained on as harmless."""
    events = [score(DAY, "unseen"), score(DAY, "stopped", action="block"), score(DAY, "seen", label_propensity=0.5)]
    entries = run(bench, [*events, label(day(2), "seen", label="false")], day(8), replace(RULES, silence="unknown"))
    [row] = bench.rows(HARD_EXAMPLES)
    assert (row["prediction_id"], row["is_positive"], row["label_propensity"]) == ("seen", False, 0.5)
    assert entries[day(7)].rows_by_reason == {"labelled": 1, "blocked": 1, "silence_unknown": 1}


def test_where_silence_says_nothing_the_budget_counts_labels(bench: Workbench) -> None:
    """Of 40 predictions a day two are labelled: a floor from all 40 would thin out the few rows that there are."""
    sampling = SamplingRules(surprise_factor=0, row_budget=180 * 2)
    rules = replace(RULES, silence="unknown", sampling=sampling)
    events = [score(DAY, f"n{number}", score=0.01) for number in range(40)]
    events += [label(day(1), f"n{number}", label="false") for number in range(2)]
    run(bench, events, day(9), rules)
    kept = bench.lake.read(HARD_EXAMPLES).to_pylist()
    assert [row["inclusion_probability"] for row in kept] == [1.0, 1.0]


CLASSES = ScoreContract(features=CONTRACT.features, classes=("legit", "stolen", "friendly"), negative_label="legit")


def test_sources_that_name_different_classes_are_a_dispute_though_both_are_positive(bench: Workbench) -> None:
    said = '{"legit":0.2,"stolen":0.7,"friendly":0.1}'
    run(
        bench,
        [
            score(DAY, "odd", score=0.8, scores=said),
            score(DAY, "quiet", score=0.8, scores=said),
            label(day(1), "odd", labeling_source="chargeback", label="friendly"),
            label(day(2), "odd", labeling_source="analyst", label="stolen"),
            label(day(2), "quiet", label="true"),
        ],
        day(8),
        contract=CLASSES,
    )
    found = examples(bench)
    by_source = {source: (row["label_class"], row["discrepancy"]) for (_, source), row in found.items()}
    assert by_source == {"chargeback": ("friendly", "wrong_class"), "analyst": ("stolen", None)}
    assert found["odd", "chargeback"]["severity"] == pytest.approx(0.9)
    disputed = [row for row in bench.rows(QUARANTINE) if row["stage"] == DISPUTE_STAGE]
    assert [(row["day"], json.loads(row["evidence"])[1]["label"]) for row in disputed] == [(day(2), "stolen")]
    # A word that is no class is no label, as of two classes.
    [refused] = [row for row in bench.rows(QUARANTINE) if row["reason"] == "unknown_label"]
    assert refused["detail"] == "valid: legit and stolen and friendly"


def test_the_columns_of_several_classes_change_no_hash_of_two(bench: Workbench) -> None:
    """A day that is made again after the upgrade would look changed, and every version after it too."""
    run(bench, [score(DAY, "x"), label(day(1), "x")], day(8))
    rows = bench.lake.read(HARD_EXAMPLES, [day(1)])
    assert rows.num_rows == 1
    assert ledger.hash_content(rows) == ledger.hash_content(rows.drop_columns(["scores", "label_class"]))
