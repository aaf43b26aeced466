from datetime import date, timedelta

import pytest

from flywheel_assets.backtest.plan import BacktestPlan, Week, read_day
from flywheel_assets.errors import InvalidRuleError

FIRST = date(2026, 3, 2)


def test_the_last_week_may_be_shorter() -> None:
    weeks = BacktestPlan(first=FIRST, last=FIRST + timedelta(days=15)).list_weeks()
    assert weeks == [
        Week(FIRST, FIRST + timedelta(days=6)),
        Week(FIRST + timedelta(days=7), FIRST + timedelta(days=13)),
        Week(FIRST + timedelta(days=14), FIRST + timedelta(days=15)),
    ]


@pytest.mark.parametrize("days", [-3, 1, 13])
def test_less_than_two_weeks_are_refused_with_a_range_that_is_long_enough(days: int) -> None:
    with pytest.raises(InvalidRuleError, match=f"at least 14.*--to {FIRST + timedelta(days=13)}"):
        BacktestPlan(first=FIRST, last=FIRST + timedelta(days=days - 1))


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-02-30"])
def test_an_unknown_day_is_refused(text: str) -> None:
    with pytest.raises(InvalidRuleError, match=r"--from is .*valid: a day as YYYY-MM-DD"):
        read_day(text, "--from")
