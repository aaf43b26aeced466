"""Simulates the card-fraud world: cards, terminals, payments, and the frauds among them.

It follows the published description of the Fraud Detection Handbook's transaction simulator (Le Borgne, Siblini,
Lebichot and Bontempi, chapter 3): cards and terminals lie on a square, a card pays at terminals near it, amounts are
normal around the card's own mean, times of day normal around noon. What differs: there are fewer cards and terminals;
fraud is more frequent (1.3 % of payments instead of .8 %, so that a small world has enough of it); a large amount is
not fraud by definition but a stolen number's purchase, which honest purchases of well-off holders resemble; and one
pattern does not exist before `emerges_on`.

A day depends on the world's settings and its date only, never on which days were asked for before.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400
_SQUARE = 100.0
_NOON_SECONDS, _SPREAD_SECONDS = SECONDS_PER_DAY / 2, 20_000.0
_LOWEST_AMOUNT = 0.01

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Pattern(IntEnum):
    """The kind of a payment's fraud; 0 where it is none."""

    LEGITIMATE = 0
    LARGE_AMOUNT = 1
    """A stolen number pays once, a lot, at one of the card's usual terminals."""
    COMPROMISED_TERMINAL = 2
    """Every payment at the terminal, for weeks; amounts look as always."""
    COMPROMISED_CARD = 3
    """A third of the card's payments, for two weeks, are several times as large as they would be."""


@dataclass(frozen=True, kw_only=True)
class Transactions:
    """The payments of one day, ordered by their time; one array element each."""

    day: date
    second: Ints
    """Of the day, UTC."""
    card: Ints
    terminal: Ints
    amount: Floats
    pattern: Ints
    """A `Pattern`, which only the world knows."""

    def __len__(self) -> int:
        return len(self.card)

    @property
    def is_fraud(self) -> Bools:
        """The truth, which no person in the world knows for certain."""
        fraud: Bools = self.pattern != Pattern.LEGITIMATE
        return fraud

    @cached_property
    def ids(self) -> list[str]:
        """One name per payment, unique over all days."""
        return [f"txn-{self.day:%Y%m%d}-{number:05d}" for number in range(len(self))]


@dataclass(frozen=True, kw_only=True)
class FraudWorld:
    """Cards, terminals, and the three patterns; rates are per simulated day."""

    seed: int = 0
    cards: int = 1_000
    terminals: int = 1_600
    reach: float = 5.0
    """A card pays at terminals within this distance, on a square with sides of 100."""
    mean_amount_range: tuple[float, float] = (5.0, 100.0)
    """A card's own mean amount is uniform in it; the standard deviation is half the mean."""
    payments_range: tuple[float, float] = (0.0, 4.0)
    """A card's own mean of payments a day is uniform in it."""
    large_amount_share: float = 0.002
    """Of all payments."""
    large_amount_range: tuple[float, float] = (150.0, 450.0)
    terminals_compromised_per_day: float = 0.00025
    """Share of all terminals; each stays so for `terminal_days`."""
    terminal_days: int = 28
    cards_compromised_per_day: float = 0.001
    """Share of all cards; each stays so for `card_days`."""
    card_days: int = 14
    card_fraud_share: float = 1 / 3
    card_amount_factor: float = 5.0
    emerging: Pattern = Pattern.COMPROMISED_TERMINAL
    emerges_on: date = date.max
    """The first day with a fraud of the emerging pattern, which from then on is as frequent as it ever will be."""

    def simulate_day(self, day: date) -> Transactions:
        """Simulate every payment of the day."""
        rng = self._make_rng("payments", day)
        payments = rng.poisson(self._payments_per_day)
        card = np.repeat(np.arange(self.cards), payments)
        second = rng.normal(_NOON_SECONDS, _SPREAD_SECONDS, len(card))
        amount = rng.normal(self._mean_amount[card], self._mean_amount[card] / 2)
        amount = np.where(amount > 0, amount, rng.uniform(0, 2 * self._mean_amount[card]))
        places = self._reachable
        terminal = places.flat[places.start[card] + (rng.random(len(card)) * places.count[card]).astype(np.int64)]
        large = rng.uniform(*self.large_amount_range, len(card))
        draw = rng.random((3, len(card)))

        # Where two patterns meet the later line wins, so that every fraud has one.
        pattern = np.zeros(len(card), dtype=np.int64)
        taken = np.isin(card, self.find_compromised(Pattern.COMPROMISED_CARD, day)) & (draw[0] < self.card_fraud_share)
        amount = np.where(taken, amount * self.card_amount_factor, amount)
        pattern[taken] = Pattern.COMPROMISED_CARD
        pattern[np.isin(terminal, self.find_compromised(Pattern.COMPROMISED_TERMINAL, day))] = (
            Pattern.COMPROMISED_TERMINAL
        )
        if self._exists(Pattern.LARGE_AMOUNT, day):
            stolen = draw[1] < self.large_amount_share
            amount = np.where(stolen, large, amount)
            pattern[stolen] = Pattern.LARGE_AMOUNT

        # A time outside the day would belong to another one: such payments do not take place, as published.
        happens = np.flatnonzero((second >= 0) & (second < SECONDS_PER_DAY))
        order = happens[np.argsort(second[happens], kind="stable")]
        return Transactions(
            day=day,
            second=second[order].astype(np.int64),
            card=card[order],
            terminal=terminal[order],
            amount=np.maximum(_LOWEST_AMOUNT, np.round(amount[order], 2)),
            pattern=pattern[order],
        )

    def find_compromised(self, pattern: Pattern, day: date) -> Ints:
        """Find the terminals or cards, by pattern, that are compromised on that day."""
        count, per_day, lasts_days = {
            Pattern.COMPROMISED_TERMINAL: (self.terminals, self.terminals_compromised_per_day, self.terminal_days),
            Pattern.COMPROMISED_CARD: (self.cards, self.cards_compromised_per_day, self.card_days),
        }[pattern]
        if not self._exists(pattern, day):
            return np.empty(0, dtype=np.int64)
        streams = [self._make_rng(pattern.name, day - timedelta(days=age)) for age in range(lasts_days)]
        return np.unique(np.concatenate([rng.integers(0, count, rng.poisson(count * per_day)) for rng in streams]))

    def name_regions(self, terminal: Ints) -> list[str]:
        """Name the half of the square of each terminal: the segment that its payments are reported under."""
        is_south = self._places[1][terminal, 1] < _SQUARE / 2
        return ["south" if south else "north" for south in is_south]

    def _exists(self, pattern: Pattern, day: date) -> bool:
        return pattern is not self.emerging or day >= self.emerges_on

    def _make_rng(self, what: str, day: date | None = None) -> np.random.Generator:
        # A stream of its own for every purpose and day: one more draw in one place changes no other.
        return np.random.default_rng([self.seed, 0 if day is None else day.toordinal(), *what.encode()])

    @cached_property
    def _mean_amount(self) -> Floats:
        return self._make_rng("mean amounts").uniform(*self.mean_amount_range, self.cards)

    @cached_property
    def _payments_per_day(self) -> Floats:
        return self._make_rng("payment rates").uniform(*self.payments_range, self.cards)

    @cached_property
    def _places(self) -> tuple[Floats, Floats]:
        rng = self._make_rng("places")
        return rng.uniform(0, _SQUARE, (self.cards, 2)), rng.uniform(0, _SQUARE, (self.terminals, 2))

    @cached_property
    def _reachable(self) -> "_Reachable":
        cards, terminals = self._places
        distance = np.hypot(*(cards[:, None, axis] - terminals[None, :, axis] for axis in (0, 1)))
        within = distance <= self.reach
        within[np.arange(self.cards), distance.argmin(axis=1)] = True  # no card is without a shop
        count = within.sum(axis=1)
        return _Reachable(start=np.cumsum(count) - count, count=count, flat=np.nonzero(within)[1])


@dataclass(frozen=True)
class _Reachable:
    """Card c pays at `flat[start[c] : start[c] + count[c]]`."""

    start: Ints
    count: Ints
    flat: Ints
