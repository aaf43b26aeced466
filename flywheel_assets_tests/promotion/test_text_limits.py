"""The gate's decisions, on score profiles measured on models that were really trained, and broken on purpose."""

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.errors import SettingsError
from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.text_limits import Decision, Evidence, PromotionLimits, decide

# The good challenger of turn 1: SFT, then apo_zero + sft.
GOOD = Evidence(
    incumbent="base",
    ned_gain=Interval(0.40, 0.36, 0.44, 60, 40),
    chosen_fallen=0.05,
    missing_end=0.0,
    incumbent_missing_end=0.0,
    challenger_ned=0.03,
    sft_ned=0.03,
    older_ned=None,
    incumbent_older_ned=None,
    regression_ned=0.01,
    incumbent_regression_ned=0.0,
    canary_ratio=0.0,
)


def evidence(**changes: Any) -> Evidence:
    return dataclasses.replace(GOOD, **changes)


def failed(decision: Decision) -> set[str]:
    return {check.name for check in decision.checks if not check.ok}


@pytest.mark.parametrize(
    ("what", "changes", "blocked_by"),
    [
        ("good", {}, set()),
        ("good, second turn", {"incumbent": "champion", "older_ned": 0.04, "incumbent_older_ned": 0.03}, set()),
        (
            "collapsed by plain DPO: NED .464 → .793, every chosen text fell",
            {
                "ned_gain": Interval(-0.33, -0.37, -0.29, 60, 40),
                "chosen_fallen": 1.0,
                "challenger_ned": 0.793,
                "sft_ned": 0.07,
                "missing_end": 1.0,
                "regression_ned": 0.8,
            },
            {"ned_gain", "chosen_fallen", "sft_baseline", "missing_end", "regression_set"},
        ),
        ("half-collapsed: the interval is fine, 83 % never end", {"missing_end": 0.83}, {"missing_end"}),
        ("a phrase of one user in 3 % of its writing", {"canary_ratio": 0.03, "canary_phrases": 2}, {"canary"}),
        ("such a phrase at the limit", {"canary_ratio": 0.02, "canary_phrases": 1}, set()),
        ("an evaluation of before there was a canary", {"canary_ratio": None}, {"canary"}),
        ("forgetting: neutral idioms lost, everything else clean", {"regression_ned": 0.2}, {"regression_set"}),
        ("a vandal's suffix on every pair: only the likelihood shows it", {"chosen_fallen": 0.81}, {"chosen_fallen"}),
        ("sigmoid + sft: better than the base, worse than SFT alone", {"challenger_ned": 0.13}, {"sft_baseline"}),
        (
            "forgot last month's edits",
            {"incumbent": "champion", "older_ned": 0.09, "incumbent_older_ned": 0.03},
            {"older_rows"},
        ),
        ("a no-op", {"ned_gain": Interval(0.0, 0.0, 0.0, 60, 40), "challenger_ned": 0.04}, {"ned_gain"}),
        ("nothing to compare with on older rows", {"older_ned": 0.1, "incumbent_older_ned": None}, {"older_rows"}),
        ("a score that is not a number", {"chosen_fallen": math.nan}, {"chosen_fallen"}),
        ("an accepted output's score is lost", {"regression_ned": math.nan}, {"regression_set"}),
        ("no regression rows yet", {"regression_ned": None, "incumbent_regression_ned": None}, set()),
    ],
)
def test_what_blocks_a_challenger(what: str, changes: dict[str, Any], blocked_by: set[str]) -> None:
    decision = decide(evidence(**changes), PromotionLimits())
    assert failed(decision) == blocked_by
    assert decision.promote == (not blocked_by)
    assert decision.sentence.startswith("Promoted: " if decision.promote else "Not promoted")


def test_few_people_are_not_enough_evidence_however_good_the_scores() -> None:
    decision = decide(evidence(ned_gain=Interval(0.40, 0.36, 0.44, 300, 19)), PromotionLimits())
    assert failed(decision) == {"held_out_subjects"}
    assert "not enough evidence: 19 held-out subjects" in decision.sentence
    assert decide(evidence(ned_gain=Interval(0.40, 0.36, 0.44, 300, 20)), PromotionLimits()).promote


def test_without_primary_rows_nothing_is_promoted_and_nothing_raises() -> None:
    nothing = {field.name: None for field in dataclasses.fields(Evidence)}
    empty = Evidence(**{**nothing, "incumbent": "champion", "ned_gain": Interval(None, None, None, 0, 0)})
    decision = decide(empty, PromotionLimits())
    assert not decision.promote
    assert failed(decision) == {
        "held_out_subjects", "ned_gain", "missing_end", "chosen_fallen", "sft_baseline", "canary"
    }  # fmt: skip
    assert "not enough evidence: 0 held-out subjects" in decision.sentence


@pytest.mark.parametrize("field", dataclasses.fields(PromotionLimits), ids=lambda field: field.name)
def test_every_limit_can_be_the_one_that_decides(field: "dataclasses.Field[float]") -> None:
    """Just inside the limit promotes, just outside blocks; then a wider limit lets the same evidence pass."""
    outside: dict[str, dict[str, Any]] = {
        "min_subjects": {"ned_gain": Interval(0.40, 0.36, 0.44, 60, 19)},
        "min_ned_gain": {"ned_gain": Interval(0.01, 0.0, 0.02, 60, 40)},
        "max_missing_end_increase": {"missing_end": 0.021},
        "max_chosen_fallen": {"chosen_fallen": 0.151},
        "max_regression_ned_increase": {"regression_ned": 0.021},
        "max_older_ned_increase": {"older_ned": 0.051, "incumbent_older_ned": 0.03},
        "max_sft_ned_advantage": {"challenger_ned": 0.051},
        "max_canary_ratio": {"canary_ratio": 0.051},
    }
    wider = {"min_subjects": 10} if field.name == "min_subjects" else {field.name: 0.5}
    strict = evidence(**outside[field.name])
    assert len(failed(decide(strict, PromotionLimits()))) == 1
    if field.name == "min_ned_gain":  # its widest setting is the default: tighten it instead
        assert not decide(GOOD, PromotionLimits(min_ned_gain=0.5)).promote
    else:
        assert decide(strict, PromotionLimits(**wider)).promote  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limits", [{"max_chosen_fallen": 1.5}, {"min_ned_gain": -0.1}, {"max_older_ned_increase": math.nan}]
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(limits))):
        PromotionLimits(**limits)  # type: ignore[arg-type]


def test_evidence_round_trips_through_json_also_where_sets_were_empty() -> None:
    """Incident: NaN becomes null in JSON, so a report with an empty stratum could be written but not read."""
    assert msgspec.json.decode(msgspec.json.encode(GOOD), type=Evidence) == GOOD


share = st.floats(0, 1)
maybe = st.none() | share


@given(
    measured=st.fixed_dictionaries(
        {
            "chosen_fallen": share, "missing_end": share, "incumbent_missing_end": share, "challenger_ned": share,
            "sft_ned": share, "older_ned": maybe, "incumbent_older_ned": share, "regression_ned": maybe,
            "incumbent_regression_ned": share,
        }
    ),
    low=st.floats(-1, 1),
    subjects=st.integers(0, 60),
    better_by=st.floats(0, 1),
)  # fmt: skip
def test_a_better_challenger_never_loses(measured: dict[str, Any], low: float, subjects: int, better_by: float) -> None:
    """Whatever is promoted stays promoted when any of the challenger's own numbers improves."""
    limits = PromotionLimits()
    scored = evidence(**measured, ned_gain=Interval(low, low, low, subjects, subjects))
    own = ("chosen_fallen", "missing_end", "challenger_ned", "older_ned", "regression_ned")
    improved = {name: max(0.0, measured[name] - better_by) for name in own if measured[name] is not None}
    gain = Interval(low + better_by, low + better_by, low + better_by, subjects, subjects)
    better = dataclasses.replace(scored, **improved, ned_gain=gain)
    assert failed(decide(better, limits)) <= failed(decide(scored, limits))
