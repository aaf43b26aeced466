"""The published figures on the published data, computed by what the project measures with."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.fraud_handbook import measures
from flywheel_assets.measures.drift import DriftLimits, build_drift_reference, find_breaches, measure_drift
from flywheel_assets_tests.handbook import (
    FEATURES,
    LABEL_DELAY_DAYS,
    EmergingFraud,
    between,
    decisions,
    logistic_regression,
    published_split,
)
from flywheel_assets_tests.real_data import needs_real_data

pytestmark = [pytest.mark.realdata, needs_real_data("fraud_handbook")]


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return decisions()


@pytest.mark.long
def test_the_published_rows_and_figures_are_met(rows: pa.Table) -> None:
    train, test = published_split(rows)
    counts = [(part.num_rows, int(part["is_fraud"].to_numpy().sum())) for part in (train, test)]
    assert counts == [(67_240, 598), (58_264, 385)]
    assert measures(test, logistic_regression(train, test)) == pytest.approx((0.871, 0.606, 0.291), abs=0.005)


def test_a_decision_knows_only_what_lies_before_it(rows: pa.Table) -> None:
    """Windows of some rows, counted by hand: the card's up to now, the terminal's up to seven days ago."""
    at = rows["decided_at"].to_numpy()
    customer, terminal = np.array(rows["customer"].to_pylist()), np.array(rows["terminal"].to_pylist())
    amount, is_fraud = rows["amount"].to_numpy(), rows["is_fraud"].to_numpy()
    day = np.timedelta64(1, "D")
    for row in np.random.default_rng(0).choice(np.flatnonzero(rows["terminal_risk_30d"].to_numpy() > 0), 20):
        age = at[row] - at
        mine = (customer == customer[row]) & (age >= np.timedelta64(0)) & (age < 7 * day)
        assert rows["customer_count_7d"][row].as_py() == mine.sum()
        assert rows["customer_mean_amount_7d"][row].as_py() == pytest.approx(amount[mine].mean())
        known = (terminal == terminal[row]) & (age >= LABEL_DELAY_DAYS * day) & (age < (LABEL_DELAY_DAYS + 30) * day)
        assert rows["terminal_count_30d"][row].as_py() == known.sum()
        assert rows["terminal_risk_30d"][row].as_py() == pytest.approx(is_fraud[known].mean())


@pytest.mark.long
def test_an_emerging_fraud_is_not_there_before_its_day(rows: pa.Table) -> None:
    """Its transactions are gone, and so is what they would have told about their terminals."""
    first_day = date(2018, 7, 13)
    later = decisions(EmergingFraud(scenario=2, first_day=first_day))
    gone = rows.num_rows - later.num_rows
    days = np.array(later["day"].to_pylist())
    assert gone > 1000
    assert days[later["scenario"].to_numpy() == 2].min() == first_day
    before = [pc.less(part["day"], first_day + timedelta(days=LABEL_DELAY_DAYS)) for part in (rows, later)]
    risk, later_risk = (
        pc.sum(part["terminal_risk_1d"].filter(mask)).as_py() for part, mask in zip((rows, later), before, strict=True)
    )
    assert later_risk < risk / 2


def test_weeks_without_drift_are_not_named(rows: pa.Table) -> None:
    """The data is stationary: 15 fields of 11 overlapping weeks, against the first week whose windows are filled."""
    reference = build_drift_reference(between(rows, date(2018, 7, 22), date(2018, 7, 29)).select(FEATURES))
    for first in (date(2018, 7, 29) + timedelta(days=number) for number in range(11)):
        week = between(rows, first, first + timedelta(days=7)).select(FEATURES)
        assert find_breaches(measure_drift(reference, week), DriftLimits()) == {}


def test_a_single_day_is_no_sample_of_a_week(rows: pa.Table) -> None:
    """Incident: against a week's reference, every day was named for `is_weekend`; drift is asked of whole weeks."""
    reference = build_drift_reference(between(rows, date(2018, 7, 22), date(2018, 7, 29)).select(FEATURES))
    sunday = between(rows, date(2018, 7, 29), date(2018, 7, 30)).select(FEATURES)
    assert list(find_breaches(measure_drift(reference, sunday), DriftLimits())) == ["is_weekend"]
