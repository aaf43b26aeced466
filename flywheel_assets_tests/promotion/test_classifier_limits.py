"""Decisions about classifiers: a table in which one change flips one check, and models that are broken on purpose."""

import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.errors import SettingsError
from flywheel_assets.measures.texts import Interval
from flywheel_assets.models.boosting import fit_classifier
from flywheel_assets.promotion.classifier_limits import (
    ClassifierEvidence,
    ClassifierLimits,
    SegmentEvidence,
    StatedReason,
    decide_classifier,
    measure_evidence,
)
from flywheel_assets.promotion.text_limits import Decision

Array = npt.NDArray[Any]


def segment(drop: float = 0.0, positives: int = 80, **changes: Any) -> SegmentEvidence:
    return SegmentEvidence(
        **{
            "segment": "web",
            "rows": 9000,
            "positives": positives,
            "average_precision": 0.7 - drop,
            "incumbent_average_precision": 0.7,
            **changes,
        }
    )


GOOD = ClassifierEvidence(
    incumbent="champion",
    weeks=2,
    positives=400,
    ap_gain=Interval(0.02, 0.005, 0.035, 60_000, 4000),
    average_precision=0.72,
    incumbent_average_precision=0.70,
    calibration_ratio=1.02,
    incumbent_calibration_ratio=0.97,
    threshold=0.5,
    alerts=420,
    incumbent_alerts=400,
    segments=(segment(),),
)


def evidence(**changes: Any) -> ClassifierEvidence:
    return dataclasses.replace(GOOD, **changes)


def failed(decision: Decision) -> set[str]:
    return {check.name for check in decision.checks if not check.ok}


NEAR = Interval(0.001, -0.004, 0.006, 60_000, 4000)


@pytest.mark.parametrize(
    ("what", "changes", "reason", "blocked_by"),
    [
        ("good", {}, "new_examples", set()),
        ("near-identical", {"ap_gain": NEAR}, "new_examples", {"ap_gain"}),
        ("near-identical, to repair calibration", {"ap_gain": NEAR}, "calibration", set()),
        ("near-identical, after drift", {"ap_gain": NEAR}, "drift", set()),
        ("near-identical, for age", {"ap_gain": NEAR}, "age", set()),
        ("perhaps much worse", {"ap_gain": Interval(-0.01, -0.02, 0.0, 60_000, 4000)}, "age", {"ap_gain"}),
        ("one week", {"weeks": 1}, "new_examples", {"matured_evidence"}),
        ("few positives", {"positives": 199}, "new_examples", {"matured_evidence"}),
        ("scores too high", {"calibration_ratio": 1.2}, "new_examples", {"calibration"}),
        ("scores too low", {"calibration_ratio": 0.8}, "new_examples", {"calibration"}),
        ("no positives to calibrate on", {"calibration_ratio": None}, "new_examples", {"calibration"}),
        ("half as many alerts again", {"alerts": 600}, "new_examples", {"alert_volume"}),
        ("hardly any alerts", {"alerts": 100}, "new_examples", {"alert_volume"}),
        ("alerts where there were none", {"incumbent_alerts": 0}, "new_examples", {"alert_volume"}),
        ("no alerts before and after", {"incumbent_alerts": 0, "alerts": 0}, "new_examples", set()),
        ("no live threshold", {"threshold": None, "alerts": None, "incumbent_alerts": None}, "new_examples", set()),
        ("a segment lost", {"segments": (segment(), segment(0.06))}, "new_examples", {"segments"}),
        ("a small segment lost", {"segments": (segment(0.3, positives=49),)}, "new_examples", set()),
        ("a segment without a value", {"segments": (segment(average_precision=None),)}, "age", {"segments"}),
        ("no segments", {"segments": ()}, "new_examples", set()),
    ],
)
def test_what_blocks_a_challenger(what: str, changes: dict[str, Any], reason: str, blocked_by: set[str]) -> None:
    decision = decide_classifier(evidence(**changes), ClassifierLimits(), StatedReason(reason))
    assert failed(decision) == blocked_by
    assert decision.promote == (not blocked_by)
    assert decision.sentence.startswith("Promoted: " if decision.promote else "Not promoted")
    assert decision.sentence.endswith(".")


def test_the_sentence_says_why() -> None:
    promoted = decide_classifier(GOOD, ClassifierLimits()).sentence
    assert promoted == (
        "Promoted: average precision 0.720 against the champion's 0.700, a difference of +0.020 [+0.005, +0.035], "
        "the lower bound must exceed 0.000."
    )
    blocked = decide_classifier(evidence(alerts=600, calibration_ratio=1.3), ClassifierLimits()).sentence
    assert blocked == (
        "Not promoted: 1.30 positives predicted for each that came, 0.90 to 1.10 are allowed; "
        "600 alerts at the threshold 0.5 instead of 400, a change of at most 25% is allowed."
    )
    early = decide_classifier(evidence(weeks=1), ClassifierLimits()).sentence
    assert early.startswith("Not promoted, not enough evidence: 1 matured weeks with 400 positives")


@pytest.mark.parametrize("field", dataclasses.fields(ClassifierLimits), ids=lambda field: field.name)
def test_every_limit_can_be_the_one_that_decides(field: "dataclasses.Field[float]") -> None:
    """Evidence that one limit alone blocks passes once that limit is wider."""
    cases: dict[str, tuple[dict[str, Any], StatedReason, dict[str, Any], dict[str, Any]]] = {
        # what is measured, the reason, limits that block it, limits that let it pass
        "min_weeks": ({"weeks": 1}, StatedReason.AGE, {}, {"min_weeks": 1}),
        "min_positives": ({"positives": 150}, StatedReason.AGE, {}, {"min_positives": 150}),
        "min_ap_gain": ({}, StatedReason.NEW_EXAMPLES, {"min_ap_gain": 0.005}, {"min_ap_gain": 0.004}),
        "non_inferiority_margin": (
            {"ap_gain": NEAR}, StatedReason.AGE, {"non_inferiority_margin": 0.004}, {"non_inferiority_margin": 0.005},
        ),
        "min_calibration_ratio": ({"calibration_ratio": 0.89}, StatedReason.AGE, {}, {"min_calibration_ratio": 0.85}),
        "max_calibration_ratio": ({"calibration_ratio": 1.11}, StatedReason.AGE, {}, {"max_calibration_ratio": 1.2}),
        "max_alert_change": ({"alerts": 520}, StatedReason.AGE, {}, {"max_alert_change": 0.31}),
        "max_segment_ap_drop": ({"segments": (segment(0.06),)}, StatedReason.AGE, {}, {"max_segment_ap_drop": 0.07}),
        "min_segment_positives": (
            {"segments": (segment(0.06),)}, StatedReason.AGE, {}, {"min_segment_positives": 81},
        ),
    }  # fmt: skip
    changes, reason, strict, wide = cases[field.name]
    assert len(failed(decide_classifier(evidence(**changes), ClassifierLimits(**strict), reason))) == 1
    assert decide_classifier(evidence(**changes), ClassifierLimits(**wide), reason).promote


@pytest.mark.parametrize(
    "limits", [{"min_calibration_ratio": 1.05}, {"max_alert_change": math.nan}, {"min_ap_gain": -0.1}]
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        ClassifierLimits(**limits)  # type: ignore[arg-type]


def test_evidence_round_trips_through_json_also_where_nothing_was_measured() -> None:
    assert msgspec.json.decode(msgspec.json.encode(GOOD), type=ClassifierEvidence) == GOOD
    nothing = measure_evidence([], [], [], incumbent="champion", weeks=[], entities=[], segments=[], threshold=0.5)
    assert msgspec.json.decode(msgspec.json.encode(nothing), type=ClassifierEvidence) == nothing
    assert failed(decide_classifier(nothing, ClassifierLimits())) == {"matured_evidence", "ap_gain", "calibration"}


@given(low=st.floats(-0.1, 0.1), better_by=st.floats(0, 0.1), reason=st.sampled_from(StatedReason))
def test_a_better_challenger_never_loses(low: float, better_by: float, reason: StatedReason) -> None:
    def decided(bound: float) -> set[str]:
        gain = Interval(bound, bound, bound, 60_000, 4000)
        return failed(decide_classifier(evidence(ap_gain=gain), ClassifierLimits(), reason))

    assert decided(low + better_by) <= decided(low)


class World:
    """A stationary stream: a season to train on, four later weeks to decide on, an incumbent of half the rows."""

    def __init__(self) -> None:
        generator = np.random.default_rng(11)
        rows = 60_000
        card = generator.integers(0, 4000, rows)
        amount, speed = generator.exponential(1, rows), generator.exponential(1, rows)
        risk = generator.normal(0, 1, 4000)[card]
        truth = 1 / (1 + np.exp(-(-6.5 + amount + 0.8 * speed + 0.6 * risk + 0.5 * amount * (speed > 1.5))))
        self.features = pa.table({"amount": amount, "speed": speed, "risk": risk})
        self.labels = generator.random(rows) < truth
        self.cards = [f"card{number}" for number in card]
        self.train, self.later = np.arange(30_000), np.arange(30_000, rows)
        self.incumbent = self.scores(np.arange(3000))

    def scores(self, rows: Array, weights: Array | None = None, labels: Array | None = None) -> Array:
        known = self.labels[rows] if labels is None else labels
        model = fit_classifier(self.features.take(pa.array(rows)), known, weights)
        return model.predict(self.features)

    def decide(self, scores: Array, reason: StatedReason = StatedReason.NEW_EXAMPLES) -> set[str]:
        later = self.later
        found = measure_evidence(
            self.labels[later],
            self.incumbent[later],
            scores[later],
            incumbent="champion",
            weeks=[str(row // 7500) for row in range(len(later))],
            entities=[self.cards[row] for row in later],
            threshold=0.3,
            draws=300,
        )
        return failed(decide_classifier(found, ClassifierLimits(max_alert_change=1.0), reason))


@pytest.fixture(scope="module")
def stream() -> World:
    return World()


def test_a_model_of_ten_times_the_rows_is_promoted(stream: World) -> None:
    assert stream.decide(stream.scores(stream.train)) == set()


def test_a_constant_is_not_promoted_for_any_reason(stream: World) -> None:
    """Its calibration is perfect: only the ranking tells."""
    constant = np.full(len(stream.labels), stream.labels[stream.later].mean())
    for reason in StatedReason:
        assert {"ap_gain"} <= stream.decide(constant, reason) <= {"ap_gain", "alert_volume"}


def test_a_model_of_shuffled_labels_is_not_promoted(stream: World) -> None:
    shuffled = np.random.default_rng(0).permutation(stream.labels[stream.train])
    assert "ap_gain" in stream.decide(stream.scores(stream.train, labels=shuffled), StatedReason.AGE)


def test_a_model_of_hard_rows_only_is_not_promoted(stream: World) -> None:
    """What the flywheel must never train on alone: misses and false alarms of the incumbent invert the ranking."""
    wrong = np.where(stream.labels, stream.incumbent < 0.4, stream.incumbent > 0.1)
    hard = stream.train[wrong[stream.train]]
    assert {"ap_gain", "calibration"} <= stream.decide(stream.scores(hard), StatedReason.AGE)


def test_a_good_ranking_with_inflated_probabilities_is_not_promoted(stream: World) -> None:
    """Frauds kept, half of the rest left out and forgotten in the weights: the ranking is as good as ever."""
    kept = stream.train[stream.labels[stream.train] | (np.random.default_rng(0).random(30_000) < 0.5)]
    unweighted = stream.decide(stream.scores(kept))
    assert "calibration" in unweighted
    assert "ap_gain" not in unweighted
    weights = np.where(stream.labels[kept], 1.0, 2.0)
    assert stream.decide(stream.scores(kept, weights)) == set()
