"""Which days of labels are unlike the days before, and which only look so."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from flywheel_assets.curation.labels.label_breaker import (
    LabelBreakerLimits,
    LabelCounts,
    judge_labels,
)
from flywheel_assets.errors import SettingsError

LIMITS = LabelBreakerLimits()
TODAY = date(2026, 6, 1)


def before(labels: int = 150, positives: int = 30, days: int = 35) -> list[LabelCounts]:
    return [LabelCounts(TODAY - timedelta(days=number), labels, positives) for number in range(1, days + 1)]


def trips(labels: int, positives: int, trailing: Sequence[LabelCounts], reversals: int = 0) -> list[str]:
    return [
        trip.rule for trip in judge_labels(LabelCounts(TODAY, labels, positives), reversals, trailing, LIMITS).trips
    ]


@pytest.mark.parametrize(
    ("labels", "positives", "reversals", "expected"),
    [
        (150, 30, 0, []),
        (150, 67, 0, []),  # .45: within .25 of .20
        (150, 68, 0, ["positive_share"]),
        (600, 120, 0, []),
        (605, 121, 0, ["positive_burst"]),
        (1_000, 1_000, 0, ["positive_burst", "positive_share"]),
        (99, 99, 99, []),  # too few labels
        (150, 30, 37, []),
        (150, 30, 38, ["reversals"]),
    ],
)
def test_one_figure_beyond_its_limit_trips(labels: int, positives: int, reversals: int, expected: list[str]) -> None:
    assert trips(labels, positives, before(), reversals) == expected


def test_fewer_positives_than_labels_are_judged_are_no_burst() -> None:
    assert trips(200, 100, before(20, 10)) == []


def test_the_first_weeks_are_judged_by_reversals_alone() -> None:
    """Where labels come 60 days late their number multiplies by the week at first."""
    assert trips(1_000, 1_000, before(days=27), reversals=300) == ["reversals"]
    assert trips(1_000, 1_000, before(days=28)) == ["positive_burst", "positive_share"]
    weekly = before()[6::7]
    assert trips(1_000, 1_000, weekly) == ["positive_burst", "positive_share"]
    assert trips(1_000, 1_000, weekly[2:]) == []


def test_a_monthly_batch_has_its_like_a_month_before() -> None:
    batch = LabelCounts(TODAY - timedelta(days=31), 900, 780)
    others = [each for each in before() if each.day != batch.day]
    assert trips(900, 780, others) == ["positive_burst", "positive_share"]
    assert trips(1_400, 1_280, [*others, batch]) == []


def test_a_stream_of_positives_alone_trips_when_its_word_is_flipped() -> None:
    assert trips(150, 0, before(150, 150)) == ["positive_share"]


def test_a_rule_can_be_switched_off() -> None:
    off = LabelBreakerLimits(max_positive_burst=None, max_share_change=None, max_reversed_share=None)
    assert judge_labels(LabelCounts(TODAY, 1_000, 1_000), 1_000, before(), off).trips == ()


def test_the_sentence_has_the_numbers() -> None:
    found = judge_labels(LabelCounts(TODAY, 1_000, 10), 400, before(), LIMITS)
    assert found.describe() == "reversals: 400 of 1,000 labels reverse what was known, at most 25%"
    flipped = judge_labels(LabelCounts(TODAY, 1_000, 10), 0, before(150, 90), LIMITS)
    assert flipped.describe() == ("positive_share: 1% of 1,000 labels are positive, at least 35% after the days before")


@pytest.mark.parametrize("name", ["warm_up_days", "min_trailing_days"])
def test_a_wait_longer_than_the_trailing_days_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"LabelBreakerLimits.{name} is 36"):
        LabelBreakerLimits(**{name: 36})
