"""Judges a day of labels as a whole: is it like the days before, or did an export go wrong?

Resolution sees one prediction. A flipped column, an import in which everything is positive, or a rerun that reverses
a third of what was known is visible only in the whole day. A day is judged by its own label events, by how many the
days before it had, and by which of those tripped: by nothing after it. So a range of days gives the same verdicts as
its days one by one.

An ordinary stream grows, pauses at weekends, has attacks, and gets chargebacks in monthly batches. Hence the trailing
days are five weeks, which hold one batch of each month; a day is compared with their upper tenth, not with their
middle; and what an accepted day showed three to five weeks ago is a precedent. Only a first batch is like no day
before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import numpy as np
from annotated_types import Ge

from flywheel_assets.curation.trips import Trip
from flywheel_assets.ranges import Checked, Count, Share

FEW_LABELS = 20
"""A day of fewer says nothing about a share."""
_UPPER, _LOWER = 0.9, 0.1
PRECEDENT_DAYS = 21
"""A day that was accepted so long ago is a precedent: a monthly batch comes again, two within a month do not."""
_PRECEDENT_FACTOR = 3
"""A batch of chargebacks that a weekend splits is half of its month, and the next one is whole."""


@dataclass(frozen=True, kw_only=True)
class LabelBreakerLimits(Checked):
    """The limits of a normal day of labels.

    A value equal to its limit is within, None switches a rule off.
    """

    min_labels: Count = 100
    """Days with fewer labels are not judged; so many positives are never a burst."""
    max_positive_burst: Annotated[float, Ge(1)] | None = 4.0
    """Positives of the day over the 90 % quantile of the trailing days' positives. Three times the most that an
    accepted day three to five weeks before had is allowed as well: a monthly batch of chargebacks has its like."""
    max_share_change: Share | None = 0.25
    """Distance of the day's share of positives from the range of the trailing days: their 10 % to 90 % quantiles, and
    the shares three to five weeks before of days with `min_labels` or more."""
    max_reversed_share: Share | None = 0.25
    """Share of the day's labels that overturn the class that earlier labels gave their prediction."""
    trailing_days: Count = 35
    """Days before D that it is compared with; those that tripped are left out until they are reset."""
    min_trailing_days: Count = 4
    """Days with labels among them: a weekly import has five. With fewer reversals alone are judged, …"""
    warm_up_days: Count = 28
    """… and until labels have come for so long: where they come late, their number multiplies week by week at first."""

    def _check_together(self) -> None:
        for name in ("min_trailing_days", "warm_up_days"):
            if (days := getattr(self, name)) > self.trailing_days:
                never = f"{days} of {self.trailing_days} trailing days can never be there"
                raise self.build_range_error(name, days, f"at most trailing_days: {never}")


@dataclass(frozen=True)
class LabelCounts:
    """Counts the label events of one day."""

    day: date
    labels: int
    positives: int

    @property
    def positive_share(self) -> float:
        """Return the share of positives; there is at least one label."""
        return self.positives / self.labels


@dataclass(frozen=True)
class LabelFigures:
    """The breaker's measurements of one day of labels, and the limits that the day is beyond."""

    rows: int
    """Label events."""
    positives: int
    reversals: int
    """Labels that overturn the class that earlier labels gave their prediction; 0 on days that are not judged."""
    trips: tuple[Trip, ...]

    def describe(self) -> str:
        """Describe the limits that the day is beyond, with its numbers."""
        return "; ".join(map(self._describe_trip, self.trips))

    def _describe_trip(self, trip: Trip) -> str:
        bound = "at most" if trip.value > trip.limit else "at least"
        if trip.rule == "positive_burst":
            return f"{trip.rule}: {self.positives:,} positives, at most {trip.limit:,.0f} after the days before"
        if trip.rule == "positive_share":
            return (
                f"{trip.rule}: {trip.value:.0%} of {self.rows:,} labels are positive, {bound} {trip.limit:.0%} after "
                "the days before"
            )
        return (
            f"{trip.rule}: {self.reversals:,} of {self.rows:,} labels reverse what was known, at most {trip.limit:.0%}"
        )


def judge_labels(
    counts: LabelCounts, reversals: int, trailing: Sequence[LabelCounts], limits: LabelBreakerLimits
) -> LabelFigures:
    """Compare one day with the limits; the trips have no examples yet.

    Args:
        counts: of the day.
        reversals: labels of the day that overturn the class that earlier labels gave their prediction.
        trailing: of each closed day among the `trailing_days` before that was not kept out, in any order.
        limits: of the application.
    """
    trips: list[Trip] = []
    if counts.labels >= limits.min_labels:
        if limits.max_reversed_share is not None and reversals / counts.labels > limits.max_reversed_share:
            trips.append(Trip("reversals", reversals / counts.labels, limits.max_reversed_share, ()))
        days = [each for each in trailing if each.labels]
        if _is_warm(counts.day, days, limits):
            if limits.max_positive_burst is not None:
                most = _find_most_positives(counts.day, days, limits.max_positive_burst, limits)
                if counts.positives > most:
                    trips.append(Trip("positive_burst", counts.positives, most, ()))
            if limits.max_share_change is not None:
                limit = _find_broken_share(counts, days, limits.max_share_change, limits)
                if limit is not None:
                    trips.append(Trip("positive_share", counts.positive_share, limit, ()))
    return LabelFigures(counts.labels, counts.positives, reversals, tuple(trips))


def _is_warm(day: date, days: Sequence[LabelCounts], limits: LabelBreakerLimits) -> bool:
    if len(days) < limits.min_trailing_days:
        return False
    return (day - min(each.day for each in days)).days >= limits.warm_up_days


def _find_most_positives(day: date, days: Sequence[LabelCounts], factor: float, limits: LabelBreakerLimits) -> float:
    usual = factor * float(np.quantile([each.positives for each in days], _UPPER))
    batches = [_PRECEDENT_FACTOR * each.positives for each in _list_precedents(day, days, limits)]
    return max(limits.min_labels, usual, *batches)


def _find_broken_share(
    counts: LabelCounts, days: Sequence[LabelCounts], change: float, limits: LabelBreakerLimits
) -> float | None:
    """Find the end of the allowed range that the day's share lies beyond.

    None: it lies within, or there are too few days.
    """
    shares = [each.positive_share for each in days if each.labels >= FEW_LABELS]
    if len(shares) < limits.min_trailing_days:
        return None
    batches = [each.positive_share for each in _list_precedents(counts.day, days, limits)]
    lowest = min(float(np.quantile(shares, _LOWER)), *batches, 1.0) - change
    highest = max(float(np.quantile(shares, _UPPER)), *batches, 0.0) + change
    if counts.positive_share > highest:
        return highest
    return lowest if counts.positive_share < lowest else None


def _list_precedents(day: date, days: Sequence[LabelCounts], limits: LabelBreakerLimits) -> list[LabelCounts]:
    return [each for each in days if each.labels >= limits.min_labels and (day - each.day).days >= PRECEDENT_DAYS]
