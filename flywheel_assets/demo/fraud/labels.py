"""Simulates the labels of payments: never the whole truth, and never at once.

A blocked payment leaves no trace. An honest one is met with silence, unless an analyst looked at it or its holder
disputes it anyway. A fraud that went through is disputed by its holder or charged back, most within a week, some after
a month, a few never. Analysts look at most of what the model sent to review, and are sometimes wrong. Labels arrive
twice, contradict one another and come late.

The fate of a payment is drawn once, whatever the model decides: two models meet the same holders and analysts.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

import numpy as np

from flywheel_assets.demo.fraud.world import Floats, Transactions

_ANALYST_DAYS = (0.1, 3.0)
_REPEATED_AFTER = timedelta(hours=20)


class Source(StrEnum):
    """The source of a label."""

    CHARGEBACK = "chargeback"
    DISPUTE = "user_dispute"
    ANALYST = "analyst"


class Action(StrEnum):
    """The effect of the deployed model's decision on the payment."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


@dataclass(frozen=True, kw_only=True)
class Label:
    """One statement about one payment."""

    number: int
    """Of the payment, within its day."""
    is_fraud: bool
    source: Source
    occurred_at: datetime
    """The time of the statement; the bank hears of it on the same day."""
    repeated: bool = False
    """The same statement once more, under an id of its own, as two systems forward it."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Card holders, card network and analysts."""

    seed: int = 0
    reported_share: float = 0.96
    """Of the frauds that went through; the others are never noticed."""
    chargeback_share: float = 0.7
    """Of the reported ones; the others come as the holder's dispute."""
    delay_median_days: float = 4.0
    delay_log_sigma: float = 0.55
    delay_days: tuple[float, float] = (1.0, 29.0)
    """Log-normal, cut to this range."""
    disputed_honest_share: float = 0.0003
    """Of the honest payments: the holder forgot, or lies."""
    cleared_share: float = 0.7
    """Of those: an analyst contradicts some days later."""
    reviewed_share: float = 0.6
    """Share of the payments sent to review that an analyst gets to."""
    analyst_error_share: float = 0.02
    repeated_share: float = 0.03
    """Of all labels."""

    def draw_labels(self, payments: Transactions, actions: list[Action]) -> list[Label]:
        """Draw all labels that the payments of one day ever get, ordered by payment and time."""
        rng = np.random.default_rng([self.seed, payments.day.toordinal(), *b"labels"])
        fate = _Fate(rng, len(payments), self)
        given = []
        for number in _select_labelled(payments, actions, fate, self):
            given += self._draw_about(number, payments, actions[number], fate)
        return given

    def _draw_about(self, number: int, payments: Transactions, action: Action, fate: "_Fate") -> list[Label]:
        paid_at = datetime.combine(payments.day, time(tzinfo=UTC)) + timedelta(seconds=int(payments.second[number]))
        is_fraud = bool(payments.is_fraud[number])
        given: list[Label] = []

        def say(verdict: bool, source: Source, after_days: float) -> None:
            moment = paid_at + timedelta(days=after_days)
            given.append(Label(number=number, is_fraud=verdict, source=source, occurred_at=moment))

        if action is Action.REVIEW and fate.review[number] < self.reviewed_share:
            verdict = is_fraud != bool(fate.error[number] < self.analyst_error_share)
            say(verdict, Source.ANALYST, fate.analyst_days[number])
        complaint_days = fate.complaint_days[number]
        if is_fraud and fate.report[number] < self.reported_share:
            is_chargeback = fate.channel[number] < self.chargeback_share
            say(True, Source.CHARGEBACK if is_chargeback else Source.DISPUTE, complaint_days)
        if not is_fraud and fate.report[number] < self.disputed_honest_share:
            say(True, Source.DISPUTE, complaint_days)
            if fate.channel[number] < self.cleared_share:
                say(False, Source.ANALYST, complaint_days + fate.analyst_days[number])
        if given and fate.twice[number] < self.repeated_share:
            first = given[0]
            again = first.occurred_at + _REPEATED_AFTER
            given.append(
                Label(number=number, is_fraud=first.is_fraud, source=first.source, occurred_at=again, repeated=True)
            )
        return sorted(given, key=lambda label: label.occurred_at)


class _Fate:
    """The possible fate of each payment of a day, drawn before the model decides."""

    def __init__(self, rng: np.random.Generator, count: int, outside: Outside) -> None:
        self.report, self.channel, self.review, self.error, self.twice = rng.random((5, count))
        delay = rng.lognormal(np.log(outside.delay_median_days), outside.delay_log_sigma, count)
        self.complaint_days: Floats = np.clip(delay, *outside.delay_days)
        self.analyst_days: Floats = rng.uniform(*_ANALYST_DAYS, count)


def _select_labelled(payments: Transactions, actions: list[Action], fate: _Fate, outside: Outside) -> list[int]:
    """Select the payments that may get a label: a loop over them instead of over every honest silence."""
    acted = np.array(actions, dtype=object)
    reviewed = acted == Action.REVIEW
    complained = payments.is_fraud | (fate.report < outside.disputed_honest_share)
    return [int(number) for number in np.flatnonzero((reviewed | complained) & (acted != Action.BLOCK))]
