from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

from flywheel_assets.demo.fraud.labels import Action, Label, Outside, Source
from flywheel_assets.demo.fraud.world import FraudWorld, Transactions

DAY = date(2026, 3, 2)
OUTSIDE = Outside(repeated_share=0.0)


def payments_of(frauds: int, honest: int) -> Transactions:
    count = frauds + honest
    return Transactions(
        day=DAY,
        second=np.arange(count) % 86_400,
        card=np.zeros(count, dtype=np.int64),
        terminal=np.zeros(count, dtype=np.int64),
        amount=np.ones(count),
        pattern=np.array([1] * frauds + [0] * honest),
    )


def delays_days(payments: Transactions, told: list[Label]) -> list[float]:
    midnight = datetime.combine(DAY, time(tzinfo=UTC))
    since = [(label.occurred_at - midnight).total_seconds() - payments.second[label.number] for label in told]
    return [seconds / 86_400 for seconds in since]


def test_honest_payments_are_met_with_silence() -> None:
    payments = payments_of(0, 5_000)
    told = OUTSIDE.draw_labels(payments, [Action.ALLOW] * 5_000)
    assert len({label.number for label in told}) < 10
    assert not replace(OUTSIDE, disputed_honest_share=0.0).draw_labels(payments, [Action.ALLOW] * 5_000)


def test_blocked_payments_never_get_a_label() -> None:
    payments = payments_of(500, 500)
    assert OUTSIDE.draw_labels(payments, [Action.BLOCK] * 1_000) == []


def test_frauds_are_labelled_after_about_a_week_and_some_never() -> None:
    payments = payments_of(4_000, 0)
    told = OUTSIDE.draw_labels(payments, [Action.ALLOW] * 4_000)
    assert 0.94 < len(told) / 4_000 < 0.98
    assert all(label.is_fraud for label in told)
    share = Counter(label.source for label in told)[Source.CHARGEBACK] / len(told)
    assert 0.67 < share < 0.73
    delays = delays_days(payments, told)
    assert min(delays) >= 1
    assert 20 < max(delays) <= 29
    assert 3.5 < float(np.median(delays)) < 4.5
    assert 0.8 < np.mean(np.array(delays) <= 7) < 0.9


def test_analysts_see_reviewed_payments_and_are_sometimes_wrong() -> None:
    payments = payments_of(2_000, 2_000)
    told = [label for label in OUTSIDE.draw_labels(payments, [Action.REVIEW] * 4_000) if label.source is Source.ANALYST]
    reviewed = {label.number for label in told if max(delays_days(payments, [label])) <= 3}
    assert 0.55 < len(reviewed) / 4_000 < 0.65
    wrong = sum(label.is_fraud != bool(payments.is_fraud[label.number]) for label in told)
    assert 0.01 < wrong / len(told) < 0.03


def test_contradictions_are_a_holders_dispute_and_an_analysts_clearing() -> None:
    payments = payments_of(0, 2_000)
    told = replace(OUTSIDE, disputed_honest_share=0.5).draw_labels(payments, [Action.ALLOW] * 2_000)
    by_payment: dict[int, list[Label]] = {}
    for label in told:
        by_payment.setdefault(label.number, []).append(label)
    contradicted = [labels for labels in by_payment.values() if len(labels) == 2]
    assert 0.6 < len(contradicted) / len(by_payment) < 0.8
    for first, second in contradicted:
        assert (first.is_fraud, first.source) == (True, Source.DISPUTE)
        assert (second.is_fraud, second.source) == (False, Source.ANALYST)
        assert second.occurred_at > first.occurred_at


def test_a_repeated_label_says_the_same_later() -> None:
    payments = payments_of(1_000, 0)
    told = replace(OUTSIDE, repeated_share=1.0).draw_labels(payments, [Action.ALLOW] * 1_000)
    once = [label for label in told if not label.repeated]
    again = [label for label in told if label.repeated]
    assert len(once) == len(again) > 900
    for first, second in zip(once, again, strict=True):
        assert (first.number, first.is_fraud, first.source) == (second.number, second.is_fraud, second.source)
        assert second.occurred_at > first.occurred_at


def test_two_models_meet_the_same_card_holders() -> None:
    """What a holder does about a fraud does not depend on what the model did to other payments."""
    payments = FraudWorld(cards=300, terminals=400, emerges_on=date.min).simulate_day(DAY)
    allowed = OUTSIDE.draw_labels(payments, [Action.ALLOW] * len(payments))
    half = [Action.BLOCK if number % 2 else Action.ALLOW for number in range(len(payments))]
    assert OUTSIDE.draw_labels(payments, half) == [label for label in allowed if label.number % 2 == 0]
    assert OUTSIDE.draw_labels(replace(payments, day=DAY + timedelta(days=1)), half) != OUTSIDE.draw_labels(
        payments, half
    )
