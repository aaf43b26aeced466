"""Computes the features of a payment as they are known at the moment of the decision, never later.

The Fraud Detection Handbook's set: what the card did in the last 1, 7 and 30 days (count and mean amount, this payment
included), how many payments the terminal had and which share of them is *known* to be fraud, in windows that end a
week ago because labels need about that long, and whether it is weekend or night.

Windows are exact to the second. A day's payments are computed together: their card windows reach back over earlier
payments of the same day, and nothing that a terminal window sees can happen on the same day.
"""

from datetime import date

import numpy as np
import pyarrow as pa

from flywheel_assets.demo.fraud.world import SECONDS_PER_DAY, Bools, Floats, Ints, Transactions

WINDOWS_DAYS = (1, 7, 30)
LABEL_DELAY_DAYS = 7
_NIGHT_ENDS_SECOND = 6 * 3_600 + 3_599  # hours 0 to 6, as published

FEATURES = pa.schema(
    [  # type: ignore[arg-type]
        ("amount", pa.float64()),
        ("is_weekend", pa.bool_()),
        ("is_night", pa.bool_()),
        *((f"card_payments_{days}d", pa.int64()) for days in WINDOWS_DAYS),
        *((f"card_mean_amount_{days}d", pa.float64()) for days in WINDOWS_DAYS),
        *((f"terminal_payments_{days}d", pa.int64()) for days in WINDOWS_DAYS),
        *((f"terminal_risk_{days}d", pa.float64()) for days in WINDOWS_DAYS),
    ]
)
"""Names and types; the application declares the same."""

# Scored, sent and trained on are the same numbers; sixteen digits would only fill the disk.
_DIGITS = 4
_REMEMBERED_DAYS = max(WINDOWS_DAYS) + LABEL_DELAY_DAYS + 1
# Seconds are counted from so early that no window of the first day begins before zero.
_BEFORE_TIME_DAYS = _REMEMBERED_DAYS + 1
_SPAN_SECONDS = 10_000 * SECONDS_PER_DAY


class FeatureStore:
    """Everything that decisions may know about the past; days are played in order.

    `features_of` a day, then `remember` it with its payments' outcomes and `learn` the labels that arrived on it:
    they count from the next day on, as in a store that is refreshed at night.
    """

    def __init__(self, first_day: date) -> None:
        self._first_ordinal = first_day.toordinal() - _BEFORE_TIME_DAYS
        self._days: dict[date, _Remembered] = {}

    def compute_features(self, payments: Transactions) -> pa.Table:
        """Compute one column per feature, one row per payment.

        Cards are windows over every attempt, also a blocked one; terminals' only over payments that went through: a
        blocked one never gets a label, and as a silent zero it would clear the very terminal that it was blocked at.
        """
        past = list(self._days.values())
        moment = self._compute_moments(payments)
        by_card = _Windows(
            np.concatenate([*(day.payments.card for day in past), payments.card]),
            np.concatenate([*(day.moment for day in past), moment]),
            np.concatenate([*(day.payments.amount for day in past), payments.amount]),
        )
        by_terminal = _Windows(
            np.concatenate([*(day.payments.terminal[day.settled] for day in past), np.empty(0, np.int64)]),
            np.concatenate([*(day.moment[day.settled] for day in past), np.empty(0, np.int64)]),
            np.concatenate([*(day.known_fraud[day.settled] for day in past), np.empty(0)]),
        )
        values: dict[str, Bools | Ints | Floats] = {
            "amount": payments.amount,
            "is_weekend": np.full(len(payments), payments.day.weekday() >= 5),
            "is_night": payments.second <= _NIGHT_ENDS_SECOND,
        }
        delayed = moment - LABEL_DELAY_DAYS * SECONDS_PER_DAY
        for days in WINDOWS_DAYS:
            length = days * SECONDS_PER_DAY
            count, total = by_card.compute_sums(payments.card, moment - length, moment)
            values[f"card_payments_{days}d"] = count
            values[f"card_mean_amount_{days}d"] = np.round(total / count, _DIGITS)
            count, frauds = by_terminal.compute_sums(payments.terminal, delayed - length, delayed)
            values[f"terminal_payments_{days}d"] = count
            values[f"terminal_risk_{days}d"] = np.round(frauds / np.maximum(count, 1), _DIGITS)
        return pa.table(values, schema=FEATURES)  # type: ignore[arg-type]

    def remember(self, payments: Transactions, settled: Bools) -> None:
        """Add a day; `settled` says which of its payments were not blocked."""
        self._days[payments.day] = _Remembered(payments, self._compute_moments(payments), settled)
        oldest = payments.day.toordinal() - _REMEMBERED_DAYS
        for day in [day for day in self._days if day.toordinal() < oldest]:
            del self._days[day]

    def learn(self, day: date, number: int, is_fraud: bool) -> None:
        """Label that day's payment, by its number within the day; too old ones are ignored."""
        remembered = self._days.get(day)
        if remembered is not None:
            remembered.known_fraud[number] = float(is_fraud)

    def _compute_moments(self, payments: Transactions) -> Ints:
        return (payments.day.toordinal() - self._first_ordinal) * SECONDS_PER_DAY + payments.second


class _Remembered:
    """One day of the past."""

    def __init__(self, payments: Transactions, moment: Ints, settled: Bools) -> None:
        self.payments = payments
        self.moment = moment
        self.settled = settled
        self.known_fraud: Floats = np.zeros(len(payments))


class _Windows:
    """Counts and sums of a value by entity over any stretch of time, by one sort and cumulative sums."""

    def __init__(self, entity: Ints, moment: Ints, value: Floats) -> None:
        key = entity * _SPAN_SECONDS + moment
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self._before = np.concatenate([[0.0], np.cumsum(value[order])])

    def compute_sums(self, entity: Ints, after: Ints, until: Ints) -> tuple[Ints, Floats]:
        """Compute count and sum over `after` < moment ≤ `until`, for each element."""
        low = np.searchsorted(self._key, entity * _SPAN_SECONDS + after, side="right")
        high = np.searchsorted(self._key, entity * _SPAN_SECONDS + until, side="right")
        return high - low, self._before[high] - self._before[low]
