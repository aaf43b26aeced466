import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.labels.discrepancies import (
    Discrepancy,
    DiscrepancyRules,
    write_discrepancy_sql,
    write_severity_sql,
)
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.duckdb_engine import connect


def judge(rules: DiscrepancyRules, score: float | None, is_positive: bool | None) -> tuple[str | None, float | None]:
    labelled = "SELECT $score::DOUBLE AS score, $is_positive::BOOLEAN AS is_positive"
    query = f"SELECT {write_discrepancy_sql(rules)}, {write_severity_sql(rules)} FROM ({labelled})"
    with connect() as connection:
        row = connection.execute(query, {"score": score, "is_positive": is_positive}).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize(
    ("score", "is_positive", "code", "severity"),
    [
        (0.0, True, "confident_miss", 1.0),
        (0.39, True, "confident_miss", 0.61),
        (0.4, True, "uncertain", 0.0),  # the band's ends belong to it
        (0.55, True, "uncertain", 0.5),
        (0.55, False, "uncertain", 0.5),
        (0.625, False, "uncertain", 0.25),
        (0.7, False, "uncertain", 0.0),
        (0.71, False, "confident_false_alarm", 0.71),
        (1.0, False, "confident_false_alarm", 1.0),
        (0.71, True, None, None),
        (0.39, False, None, None),
        (0.55, None, None, None),  # not yet labelled is no discrepancy
        (0.0, None, None, None),
        (None, True, None, None),
        (math.nan, False, None, None),
        (1.5, False, None, None),
        (-0.5, True, None, None),
    ],
)
def test_each_row_has_one_discrepancy_or_none(
    score: float | None, is_positive: bool | None, code: str | None, severity: float | None
) -> None:
    found = judge(DiscrepancyRules(), score, is_positive)
    assert found == (code, None if severity is None else pytest.approx(severity, abs=1e-12))


def test_a_gap_between_confident_and_uncertain_stays_silent() -> None:
    rules = DiscrepancyRules(confident_miss_below=0.1, confident_false_alarm_above=0.95)
    assert judge(rules, 0.2, True) == (None, None)
    assert judge(rules, 0.9, False) == (None, None)
    assert judge(rules, 0.05, True)[0] == Discrepancy.CONFIDENT_MISS
    assert judge(rules, 0.96, False)[0] == Discrepancy.CONFIDENT_FALSE_ALARM


def test_expressions_stand_for_columns() -> None:
    code = write_discrepancy_sql(DiscrepancyRules(), score="1 - p", is_positive="label = 'fraud' OR label = 'theft'")
    with connect() as connection:
        found = connection.execute(f"SELECT {code} FROM (SELECT 0.9 AS p, 'theft' AS label)").fetchall()
    assert found == [("confident_miss",)]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"uncertain_low": 0.7, "uncertain_high": 0.4}, "uncertain band"),
        ({"uncertain_high": 1.1}, "uncertain band"),
        ({"uncertain_low": math.nan}, "uncertain band"),
        ({"confident_miss_below": 0.5}, "confident_miss_below is 0.5"),
        ({"confident_false_alarm_above": 0.6}, "confident_false_alarm_above is 0.6"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        DiscrepancyRules(**limits)


bounds = st.lists(st.floats(0, 1), min_size=4, max_size=4, unique=True).map(sorted)


@settings(deadline=None)
@given(bounds=bounds, score=st.floats(0, 1), is_positive=st.booleans())
def test_severity_is_there_exactly_with_a_code_and_never_beyond_one(
    bounds: list[float], score: float, is_positive: bool
) -> None:
    miss, low, high, alarm = bounds
    rules = DiscrepancyRules(
        uncertain_low=low, uncertain_high=high, confident_miss_below=miss, confident_false_alarm_above=alarm
    )
    code, severity = judge(rules, score, is_positive)
    assert (code is None) == (severity is None)
    if severity is not None:
        assert 0 <= severity <= (0.5 if code == Discrepancy.UNCERTAIN else 1)
    if code == Discrepancy.CONFIDENT_MISS:
        assert is_positive
    if code == Discrepancy.CONFIDENT_FALSE_ALARM:
        assert not is_positive


@settings(deadline=None)
@given(worse=st.floats(0, 0.39), better=st.floats(0, 0.39))
def test_a_miss_is_the_more_severe_the_surer_the_model_was(worse: float, better: float) -> None:
    worse, better = min(worse, better), max(worse, better)
    severe, mild = judge(DiscrepancyRules(), worse, True)[1], judge(DiscrepancyRules(), better, True)[1]
    assert severe is not None
    assert mild is not None
    assert severe >= mild > 0.5  # and more than anything uncertain
