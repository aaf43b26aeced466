from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from flywheel_assets.demo.fraud.world import SECONDS_PER_DAY, FraudWorld, Pattern, Transactions

DAY = date(2026, 3, 2)
WORLD = FraudWorld(cards=300, terminals=400, terminals_compromised_per_day=0.001, cards_compromised_per_day=0.002)


def days(world: FraudWorld, count: int, first: date = DAY) -> list[Transactions]:
    return [world.simulate_day(first + timedelta(days=offset)) for offset in range(count)]


def columns(payments: Transactions) -> list[list[float]]:
    return [
        payments.second.tolist(),
        payments.card.tolist(),
        payments.terminal.tolist(),
        payments.amount.tolist(),
        payments.pattern.tolist(),
    ]


def test_a_day_is_the_same_whichever_days_were_asked_for_before() -> None:
    asked_later = replace(WORLD)
    asked_later.simulate_day(DAY - timedelta(days=9))
    assert columns(asked_later.simulate_day(DAY)) == columns(WORLD.simulate_day(DAY))
    assert columns(replace(WORLD, seed=1).simulate_day(DAY)) != columns(WORLD.simulate_day(DAY))
    assert columns(WORLD.simulate_day(DAY + timedelta(days=1))) != columns(WORLD.simulate_day(DAY))


def test_payments_are_ordered_and_positive_and_named_once() -> None:
    for payments in days(WORLD, 3):
        assert (np.diff(payments.second) >= 0).all()
        assert payments.second.min() >= 0
        assert payments.second.max() < SECONDS_PER_DAY
        assert payments.amount.min() > 0
    names = [name for payments in days(WORLD, 3) for name in payments.ids]
    assert len(set(names)) == len(names)


def test_a_card_has_two_payments_a_day_on_average_and_its_own_mean_amount() -> None:
    played = days(replace(WORLD, emerging=Pattern.COMPROMISED_CARD), 30)
    assert sum(map(len, played)) / 30 / WORLD.cards == pytest.approx(2, rel=0.1)
    card = np.concatenate([each.card for each in played])
    amount = np.concatenate([each.amount for each in played])
    means = np.array([amount[card == each].mean() for each in np.unique(card)])
    assert means.min() < 15
    assert 80 < means.max() < 150


def test_a_card_pays_only_at_terminals_within_its_reach() -> None:
    near = np.unique(np.concatenate([payments.terminal[payments.card == 7] for payments in days(WORLD, 60)]))
    far = np.unique(
        np.concatenate([payments.terminal[payments.card == 7] for payments in days(replace(WORLD, reach=200.0), 60)])
    )
    assert len(near) < 20 < len(far)


def test_the_emerging_pattern_is_there_from_its_day_on_and_changes_nothing_before() -> None:
    world = replace(WORLD, emerges_on=DAY + timedelta(days=2))
    before, after = days(world, 2), days(world, 10, first=DAY + timedelta(days=2))
    assert not any((payments.pattern == world.emerging).any() for payments in before)
    assert all((payments.pattern == world.emerging).any() for payments in after)
    always = replace(WORLD, emerges_on=date.min).simulate_day(DAY)
    assert (always.amount == before[0].amount).all()
    # What is fraud anyway stays fraud; where two patterns meet it may be the emerging one's.
    assert always.is_fraud[before[0].is_fraud].all()
    assert always.is_fraud.sum() > before[0].is_fraud.sum()


@pytest.mark.parametrize("pattern", [each for each in Pattern if each is not Pattern.LEGITIMATE])
def test_every_pattern_can_be_the_emerging_one(pattern: Pattern) -> None:
    calm = replace(WORLD, emerging=pattern)
    assert not any((payments.pattern == pattern).any() for payments in days(calm, 7))
    shares = [
        np.mean(np.concatenate([payments.pattern for payments in days(replace(calm, emerges_on=DAY), 14)]) == pattern)
    ]
    assert 0.0005 < shares[0] < 0.03


def test_a_compromised_terminal_is_fraud_only_for_its_weeks() -> None:
    world = replace(WORLD, emerging=Pattern.COMPROMISED_CARD)
    today = set(world.find_compromised(Pattern.COMPROMISED_TERMINAL, DAY).tolist())
    long_after = set(
        world.find_compromised(Pattern.COMPROMISED_TERMINAL, DAY + timedelta(days=world.terminal_days)).tolist()
    )
    tomorrow = set(world.find_compromised(Pattern.COMPROMISED_TERMINAL, DAY + timedelta(days=1)).tolist())
    assert len(today) > 3
    assert len(today & tomorrow) >= len(today) - 2
    assert len(today & long_after) < len(today) / 2
    payments = world.simulate_day(DAY)
    there = np.isin(payments.terminal, sorted(today))
    assert payments.is_fraud[there].all()


def test_a_compromised_card_spends_several_times_as_much() -> None:
    world = replace(WORLD, emerges_on=date.min, cards_compromised_per_day=0.02)
    played = days(world, 20)
    card = np.concatenate([each.card for each in played])
    amount = np.concatenate([each.amount for each in played])
    pattern = np.concatenate([each.pattern for each in played])
    ratios = [
        amount[(card == each) & (pattern == Pattern.COMPROMISED_CARD)].mean()
        / amount[(card == each) & (pattern == 0)].mean()
        for each in np.unique(card[pattern == Pattern.COMPROMISED_CARD])
        if ((card == each) & (pattern == 0)).sum() > 5
    ]
    assert np.median(ratios) == pytest.approx(world.card_amount_factor, rel=0.25)
