from datetime import date, timedelta

import numpy as np
import pytest

from flywheel_assets.demo.fraud.play import PlayedDay
from flywheel_assets.demo.fraud.report import compare_models, compute_gain, group_weeks

FIRST = date(2026, 3, 2)


def day(offset: int, version: str = "static", frauds: int = 3, emerging: int = 1) -> PlayedDay:
    """Ten payments: the live model ranks every fraud first, the static one the emerging frauds last."""
    is_fraud = np.arange(10) < frauds
    is_emerging = np.arange(10) < emerging
    return PlayedDay(
        day=FIRST + timedelta(days=offset),
        model_version=version,
        card=np.arange(10) + 10 * (offset % 5),
        is_fraud=is_fraud,
        is_emerging=is_emerging,
        live_scores=np.where(is_fraud, 0.9, 0.1),
        static_scores=np.where(is_emerging, 0.05, np.where(is_fraud, 0.9, 0.1)),
        actions={},
        labels={},
        predictions_acknowledged=10,
        labels_acknowledged=0,
    )


def test_both_models_are_scored_on_all_payments_and_on_the_new_fraud_alone() -> None:
    scores = compare_models([day(0), day(1)])
    assert (scores.payments, scores.frauds, scores.emerging) == (20, 6, 2)
    assert (scores.live.ap, scores.live.ap_emerging) == (1.0, 1.0)
    assert scores.static.ap == pytest.approx(4 / 6 + 2 / 6 * 6 / 20)
    assert scores.static.ap_emerging == pytest.approx(2 / 16)
    assert scores.live.calibration == pytest.approx((6 * 0.9 + 14 * 0.1) / 6)


def test_what_did_not_happen_has_no_measure() -> None:
    quiet = compare_models([day(0, emerging=0)])
    assert quiet.live.ap_emerging is None
    assert quiet.live.ap == 1.0
    assert compare_models([day(0, frauds=0, emerging=0)]).live.calibration is None


def test_weeks_are_whole_and_name_what_served() -> None:
    played = [day(offset, "static" if offset < 10 else "fraud_gold_v1") for offset in range(17)]
    found = group_weeks(played)
    assert [week.first_day for week in found] == [FIRST, FIRST + timedelta(days=7)]
    assert [week.model_versions for week in found] == [("static",), ("static", "fraud_gold_v1")]
    assert sum(week.scores.payments for week in found) == 140


def test_the_gain_is_the_difference_with_an_interval_over_cards() -> None:
    played = [day(offset) for offset in range(14)]
    scores = compare_models(played)
    assert scores.live.ap is not None
    assert scores.static.ap is not None
    interval = compute_gain(played, seed=0)
    assert interval.mean == pytest.approx(scores.live.ap - scores.static.ap)
    assert interval.low is not None
    assert interval.high is not None
    assert 0 < interval.low < interval.mean < interval.high
    assert interval.clusters == 50
    assert compute_gain(played, seed=0) == interval
