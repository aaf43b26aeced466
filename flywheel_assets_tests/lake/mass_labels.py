"""Days of 21 labels, a third of them positive, and days on which somebody's export goes wrong."""

from datetime import date, timedelta
from typing import Any

from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.labelled import label, score

LABEL_LIMITS = LabelBreakerLimits(min_labels=20, trailing_days=10, min_trailing_days=4, warm_up_days=6)
LABELS = 21
WRONG, FIXED = day(9), day(10)
LAST = day(12)


def make_ordinary_days(first: int, last: int) -> list[dict[str, Any]]:
    """Make the days' predictions, each labelled on the next day; every third label is positive."""
    events = []
    for offset in range(first, last + 1):
        for number in range(LABELS):
            name = f"{offset}-{number}"
            events.append(score(day(offset), name))
            events.append(label(day(offset + 1), name, label="true" if number % 3 == 0 else "false"))
    return events


def flip(events: list[dict[str, Any]], on: date) -> list[dict[str, Any]]:
    """Flip the labels that were received on a day."""
    other = {"true": "false", "false": "true"}
    return [
        {**each, "label": other[each["label"]]} if each.get("label") and each["received_at"].date() == on else each
        for each in events
    ]


def reverse(offset: int, on: date, share: float = 1.0) -> list[dict[str, Any]]:
    """Label the predictions of a day again, a share of them the other way round."""
    events = []
    for number in range(LABELS):
        is_positive = (number % 3 == 0) is not (number < share * LABELS)
        events.append(
            label(on, f"{offset}-{number}", event_id=f"again-{offset}-{number}-{on}", label=str(is_positive).lower())
        )
    return events


def make_burst(on: date, positives: int) -> list[dict[str, Any]]:
    """Make predictions of the day before, all of which are called fraud."""
    before = on - timedelta(days=1)
    names = [f"burst-{on}-{number}" for number in range(positives)]
    return [*(score(before, name, score=0.1) for name in names), *(label(on, name) for name in names)]
