from datetime import date, datetime, timedelta

import numpy as np
import pytest

from flywheel_assets.demo.fraud._features import FEATURES
from flywheel_assets.demo.fraud.bank import Bank, Policy
from flywheel_assets.demo.fraud.labels import Action, Outside
from flywheel_assets.demo.fraud.play import PlayedDay, play_days
from flywheel_assets.demo.fraud.world import FraudWorld
from flywheel_assets_tests.demo.fraud.scripted import RecordingDoor, Scripted

FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(days=offset) for offset in range(20)]
WORLD = FraudWorld(cards=120, terminals=150, terminals_compromised_per_day=0.001, emerges_on=FIRST + timedelta(days=5))
POLICY = Policy(block_from=0.2, review_from=0.1)


def play(door: RecordingDoor, model: Scripted | None = None) -> list[PlayedDay]:
    bank = Bank(WORLD, Outside(disputed_honest_share=0.01), POLICY, FIRST)
    return list(play_days(bank, model or Scripted(), Scripted("static", "card_payments_30d", 100.0), DAYS, door))


@pytest.mark.long
def test_every_payment_is_sent_as_a_prediction_once_on_its_day() -> None:
    door = RecordingDoor(FIRST)
    played = play(door)
    sent = [(at, event) for at, kind, event in door.sent if kind == "flywheel.prediction"]
    assert len(sent) == sum(day.predictions_acknowledged for day in played) == sum(len(day.is_fraud) for day in played)
    assert len({event["id"] for _, event in sent}) == len(sent)
    for at, event in sent:
        occurred = datetime.fromisoformat(event["time"])
        assert occurred.date() == at.date()
        assert occurred <= at or at.hour == 23
    assert door.ended == DAYS


def test_a_prediction_holds_what_the_model_saw_and_did() -> None:
    door = RecordingDoor(FIRST)
    play(door)
    blocked = allowed = 0
    for event in door.of("flywheel.prediction"):
        data = event["data"]
        assert set(data["features"]) == set(FEATURES.names)
        assert data["score"] == min(1.0, data["features"]["amount"] / 2_000.0)
        assert data["amount"] == data["features"]["amount"]
        assert data["segment"] in ("north", "south")
        assert isinstance(data["features"]["is_night"], bool)
        if data["action"] == Action.BLOCK:
            assert data["score"] >= POLICY.block_from
            assert "allow_propensity" not in data
            blocked += 1
        elif data["score"] >= POLICY.block_from:
            assert data["allow_propensity"] == POLICY.let_through_share
            allowed += 1
        else:
            assert data["allow_propensity"] == 1.0
            assert data["action"] == (Action.REVIEW if data["score"] >= POLICY.review_from else Action.ALLOW)
    assert blocked > allowed > 0


def test_labels_name_earlier_predictions_that_were_not_blocked() -> None:
    door = RecordingDoor(FIRST)
    played = play(door)
    actions = {event["id"]: event["data"]["action"] for event in door.of("flywheel.prediction")}
    claims = [event["data"] for event in door.of("flywheel.feedback")]
    verdicts = door.of("/labels")
    named = [claim["prediction_id"] for claim in claims] + [verdict["transaction_id"] for verdict in verdicts]
    assert len(named) == sum(day.labels_acknowledged for day in played) > 40
    assert all(actions[name] != Action.BLOCK for name in named)
    assert {claim["labeling_source"] for claim in claims} == {"chargeback", "user_dispute"}
    assert {verdict["ground_truth"]["labeling_source"] for verdict in verdicts} == {"analyst"}
    assert {verdict["ground_truth"]["is_fraud"] for verdict in verdicts} == {True, False}


def test_a_batch_that_is_sent_twice_repeats_its_event_ids() -> None:
    door = RecordingDoor(FIRST)
    play(door)
    ids = [event["id"] for event in door.of("flywheel.feedback")]
    assert len(set(ids)) < len(ids) < 2 * len(set(ids))


def test_a_day_is_sent_the_same_way_again() -> None:
    first, second = RecordingDoor(FIRST), RecordingDoor(FIRST)
    play(first)
    play(second)
    assert first.sent == second.sent


def test_the_truth_and_both_scores_are_kept_for_the_world_alone() -> None:
    door = RecordingDoor(FIRST)
    played = play(door)
    for day in played:
        assert len(day.live_scores) == len(day.static_scores) == len(day.is_fraud) == len(day.card)
        assert not (day.is_emerging & ~day.is_fraud).any()
    assert any(day.is_emerging.any() for day in played[5:])
    assert not any(day.is_emerging.any() for day in played[:5])
    assert not any("fraud" in str(event["data"]) for event in door.of("flywheel.prediction"))
    assert any((day.live_scores != day.static_scores).any() for day in played)


def test_a_static_model_that_still_serves_is_scored_once() -> None:
    model = Scripted()
    bank = Bank(WORLD, Outside(), POLICY, FIRST)
    (day,) = play_days(bank, model, model, DAYS[:1], RecordingDoor(FIRST))
    assert np.shares_memory(day.live_scores, day.static_scores)
