"""Which of a version's two models is deployed: the refit, unless its stand-ins prove it worse than the judged one."""

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.classifier_evidence import EvaluationRows, measure_evidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets.promotion.refit import RefitEvidence, decide_refit, measure_score_shift

LIMITS = ClassifierLimits()


def measure(draws: int = 200) -> RefitEvidence:
    random = np.random.default_rng(3)
    labels = random.random(4000) < 0.05
    judged = np.clip(random.normal(0.05, 0.02, 4000) + 0.3 * labels, 0.001, 1)
    rows = EvaluationRows(
        labels=labels,
        incumbent_scores=judged,
        challenger_scores=np.clip(judged + 0.05 * labels, 0, 1),
        weeks=["a"] * 4000,
        entities=[f"card{number}" for number in random.integers(0, 900, 4000)],
    )
    found = measure_evidence(rows, incumbent="judged model", alert_budget=80, draws=draws)
    return RefitEvidence(
        against_judged=dataclasses.replace(found, calibration=Interval(1.0, 0.9, 1.1, 4000, 900)), score_shift=1.02
    )


EVIDENCE = measure()


def changed(**changes: Any) -> RefitEvidence:
    return dataclasses.replace(EVIDENCE, against_judged=dataclasses.replace(EVIDENCE.against_judged, **changes))


def test_fresher_rows_are_deployed_unless_the_rows_speak_against_them() -> None:
    decided = decide_refit(EVIDENCE, LIMITS)
    assert decided.deploy_refit
    assert decided.sentence.startswith("The refit is deployed: average precision ")
    assert EVIDENCE.against_judged.threshold is not None  # at the gate's alert budget, of scores out of sample
    by_chance = changed(ap_gain=Interval(-0.01, -0.03, 0.002, 4000, 900))
    assert decide_refit(by_chance, LIMITS).deploy_refit


@pytest.mark.parametrize(
    ("evidence", "name"),
    [
        (changed(ap_gain=Interval(-0.05, -0.08, -0.02, 4000, 900)), "refit_ap"),
        (changed(ap_gain=Interval(None, None, None, 0, 0)), "refit_ap"),
        (changed(calibration=Interval(2.0, 1.7, 2.3, 4000, 900)), "refit_calibration"),
        (dataclasses.replace(EVIDENCE, score_shift=2.1), "refit_score_shift"),
        (dataclasses.replace(EVIDENCE, score_shift=0.45), "refit_score_shift"),
        (dataclasses.replace(EVIDENCE, score_shift=float("nan")), "refit_score_shift"),
    ],
)
def test_a_refit_that_is_proven_worse_is_not_deployed(evidence: RefitEvidence, name: str) -> None:
    decided = decide_refit(evidence, LIMITS)
    assert not decided.deploy_refit
    assert [check.name for check in decided.checks if not check.ok] == [name]
    assert decided.sentence.startswith("The judged model is deployed, not its refit: ")


def test_a_version_without_a_refit_deploys_its_only_model() -> None:
    assert decide_refit(None, LIMITS).sentence == "The judged model is deployed: this version has no refit."


def test_the_score_shift_is_the_ratio_of_expected_positives() -> None:
    scores, weights = np.array([0.1, 0.2, 0.5]), np.array([10.0, 1.0, 1.0])
    assert measure_score_shift(scores, scores, weights) == 1
    assert measure_score_shift(scores, scores * 1.5, weights) == pytest.approx(1.5)
    assert measure_score_shift(scores, [0.2, 0.2, 0.5], weights) == pytest.approx(2.7 / 1.7)
    assert np.isnan(measure_score_shift([0.0], [0.5], [1.0]))


def test_the_evidence_round_trips_through_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(EVIDENCE), type=RefitEvidence) == EVIDENCE
