from datetime import date, timedelta

import numpy as np
import pytest

from flywheel_assets.demo.fraud._features import FEATURES, LABEL_DELAY_DAYS, WINDOWS_DAYS, FeatureStore
from flywheel_assets.demo.fraud.world import SECONDS_PER_DAY, FraudWorld, Transactions

FIRST = date(2026, 3, 2)
WORLD = FraudWorld(cards=20, terminals=12, reach=60.0, terminals_compromised_per_day=0.01, emerges_on=date.min)


def payments_of(day: date, rows: list[tuple[int, int, int, float]]) -> Transactions:
    """Payments from (second, card, terminal, amount)."""
    second, card, terminal, amount = zip(*rows, strict=True)
    return Transactions(
        day=day,
        second=np.array(second),
        card=np.array(card),
        terminal=np.array(terminal),
        amount=np.array(amount),
        pattern=np.zeros(len(rows), dtype=np.int64),
    )


def test_windows_equal_a_count_over_the_whole_history() -> None:
    """Sums over sorted keys against a scan of everything that was known, payment by payment."""
    store = FeatureStore(FIRST)
    rng = np.random.default_rng(3)
    history: list[tuple[int, int, int, float, bool, bool]] = []  # moment, card, terminal, amount, settled, known fraud
    for offset in range(45):
        payments = WORLD.simulate_day(FIRST + timedelta(days=offset))
        values = store.compute_features(payments).to_pydict()
        moments = offset * SECONDS_PER_DAY + payments.second
        today = [(int(moments[n]), int(payments.card[n]), float(payments.amount[n])) for n in range(len(payments))]
        if offset >= 38:
            for number in range(len(payments)):
                now, card = int(moments[number]), int(payments.card[number])
                attempts = [(t, c, a) for t, c, _, a, _, _ in history] + today
                for window in WINDOWS_DAYS:
                    mine = [a for t, c, a in attempts if c == card and now - window * SECONDS_PER_DAY < t <= now]
                    assert values[f"card_payments_{window}d"][number] == len(mine)
                    assert values[f"card_mean_amount_{window}d"][number] == pytest.approx(np.mean(mine), abs=6e-5)
                    until = now - LABEL_DELAY_DAYS * SECONDS_PER_DAY
                    there = [
                        known
                        for t, _, terminal, _, settled, known in history
                        if terminal == payments.terminal[number]
                        and settled
                        and until - window * SECONDS_PER_DAY < t <= until
                    ]
                    assert values[f"terminal_payments_{window}d"][number] == len(there)
                    assert values[f"terminal_risk_{window}d"][number] == pytest.approx(
                        np.mean(there or [0.0]), abs=6e-5
                    )
        settled = rng.random(len(payments)) < 0.8
        known = payments.is_fraud & (rng.random(len(payments)) < 0.7)
        store.remember(payments, settled)
        for number in np.flatnonzero(known):
            store.learn(payments.day, int(number), True)
        columns = (moments, payments.card, payments.terminal, payments.amount, settled, known)
        history += zip(*(column.tolist() for column in columns), strict=True)


def test_a_label_changes_no_decision_of_the_day_on_which_it_arrives() -> None:
    store = FeatureStore(FIRST)
    store.remember(payments_of(FIRST, [(100, 1, 5, 10.0)]), np.array([True]))
    later = payments_of(FIRST + timedelta(days=LABEL_DELAY_DAYS), [(200, 2, 5, 10.0)])
    assert store.compute_features(later)["terminal_risk_1d"].to_pylist() == [0.0]
    store.learn(FIRST, 0, True)
    assert store.compute_features(later)["terminal_risk_1d"].to_pylist() == [1.0]
    store.learn(FIRST, 0, False)
    assert store.compute_features(later)["terminal_risk_1d"].to_pylist() == [0.0]


def test_a_blocked_payment_is_an_attempt_of_the_card_and_unknown_at_the_terminal() -> None:
    store = FeatureStore(FIRST)
    store.remember(payments_of(FIRST, [(100, 1, 5, 10.0), (100, 1, 5, 30.0)]), np.array([True, False]))
    later = store.compute_features(payments_of(FIRST + timedelta(days=LABEL_DELAY_DAYS + 1), [(50, 1, 5, 50.0)]))
    assert later["terminal_payments_7d"].to_pylist() == [1.0]
    assert later["card_payments_30d"].to_pylist() == [3.0]
    assert later["card_mean_amount_30d"].to_pylist() == [30.0]


def test_weekend_and_night() -> None:
    saturday = date(2026, 3, 7)
    values = FeatureStore(FIRST).compute_features(
        payments_of(saturday, [(6 * 3600 + 3599, 1, 1, 1.0), (7 * 3600, 1, 1, 1.0)])
    )
    assert values["is_weekend"].to_pylist() == [True, True]
    assert values["is_night"].to_pylist() == [True, False]
    monday = FeatureStore(FIRST).compute_features(payments_of(FIRST, [(0, 1, 1, 1.0)]))
    assert monday["is_weekend"].to_pylist() == [False]


def test_days_that_no_window_reaches_are_forgotten() -> None:
    store = FeatureStore(FIRST)
    for offset in range(60):
        payments = payments_of(FIRST + timedelta(days=offset), [(100, 1, 5, 10.0)])
        values = store.compute_features(payments)
        store.remember(payments, np.array([True]))
    assert values["card_payments_30d"].to_pylist() == [30.0]
    assert values["terminal_payments_30d"].to_pylist() == [30.0]
    store.learn(FIRST, 0, True)
    assert store.compute_features(payments_of(FIRST + timedelta(days=60), [(100, 1, 5, 1.0)]))[
        "terminal_risk_30d"
    ].to_pylist() == [0.0]


def test_names_and_types_are_those_that_the_application_declares() -> None:
    table = FeatureStore(FIRST).compute_features(payments_of(FIRST, [(100, 1, 5, 10.0), (200, 2, 5, 20.0)]))
    assert table.schema == FEATURES
    assert table.num_rows == 2
    assert not any(column.null_count for column in table.columns)
