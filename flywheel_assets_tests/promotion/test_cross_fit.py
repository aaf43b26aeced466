"""The decision about a cross-fit: votes of several folds are worth less, and the deployed adapter is held to them."""

from dataclasses import replace

import pytest

from flywheel_assets.measures.texts import SubjectMeans
from flywheel_assets.promotion.text_limits import (
    VOTE_OF_CROSS_FIT,
    CrossFitEvidence,
    Evidence,
    PromotionLimits,
    decide,
    find_provable,
)
from flywheel_assets_tests.promotion.test_text_limits import AFTER, evidence, failed, measured, subjects

LIMITS = PromotionLimits()


def crossed(lost: SubjectMeans | None = None, missing_end: float = 0.0, **changes: object) -> Evidence:
    deployed = CrossFitEvidence(folds=5, deployed_lost=lost or subjects(0.0), deployed_missing_end=missing_end)
    return replace(evidence(**changes), cross_fit=deployed)


def test_a_good_cross_fit_is_promoted() -> None:
    decision = decide(crossed(), LIMITS)
    assert decision.promote, decision.sentence


def test_a_gain_that_a_holdout_would_prove_is_not_proven_by_as_many_votes_of_folds() -> None:
    """Each vote counts for half, so that the bound is that of half as many people."""
    small = measured(gain=subjects(0.15))
    assert decide(evidence(likelihood=small), LIMITS).promote
    assert failed(decide(crossed(likelihood=small), LIMITS)) == {"gain"}
    twice = measured(gain=subjects(0.15, count=80))
    found = [decide(each, LIMITS).checks[1].value for each in (crossed(likelihood=twice), evidence(likelihood=small))]
    assert found[0] == pytest.approx(found[1], abs=0.005)


def test_newer_data_takes_twice_as_many_people_too() -> None:
    equal = {**AFTER, "likelihood": measured(gain=subjects(0.0)), "anchor_likelihood_gain": subjects(0.0)}
    assert decide(evidence(**equal), LIMITS).promote
    assert failed(decide(crossed(**equal), LIMITS)) == {"gain"}


@pytest.mark.parametrize(
    ("found", "blocked_by"),
    [
        (crossed(lost=subjects(1.0, 0.0)), "deployed_lost"),
        (crossed(missing_end=0.5), "deployed_missing_end"),
        (crossed(missing_end=float("nan")), "deployed_missing_end"),
    ],
)
def test_a_deployed_adapter_that_is_not_what_was_judged_is_not_promoted(found: Evidence, blocked_by: str) -> None:
    assert failed(decide(found, LIMITS)) == {blocked_by}


def test_what_is_provable_is_foreseen_for_votes_of_folds() -> None:
    alone = find_provable(LIMITS, 20, 1, has_anchor=False)
    folds = find_provable(LIMITS, 40, 1, has_anchor=False, vote_worth=VOTE_OF_CROSS_FIT)
    assert folds.gain == pytest.approx(alone.gain)
    assert (alone.subjects_needed, folds.subjects_needed) == (6, 11)
    least = folds.gain + 0.01
    decision = decide(crossed(likelihood=measured(gain=subjects(least))), LIMITS)
    assert decision.promote, decision.sentence
