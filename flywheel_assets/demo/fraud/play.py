"""Plays days of the card issuer's life against the real capture service, over HTTP, on a simulated clock.

The issuer's decision engine sends every prediction with the features it was made from; chargebacks and disputes come
from its claims system as events, analysts' verdicts from their own tool in the plain form of `/labels`. A few batches
are sent twice, as by a client that never saw the answer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flywheel_assets.demo.capture_client import CaptureDoor, Sender, build_cloud_event
from flywheel_assets.demo.fraud.bank import Bank, BankDay, FraudModel
from flywheel_assets.demo.fraud.labels import Action, Label, Source
from flywheel_assets.demo.fraud.world import Bools, Floats, FraudWorld, Ints, Transactions

ENGINE, CLAIMS = "decision-engine", "claims-system"
_HOURS_PER_BATCH = 6
_LAST_BATCH = time(23, 50, tzinfo=UTC)
_SENT_TWICE_EVERY_DAYS = 10


@dataclass(frozen=True, kw_only=True)
class PlayedDay:
    """One simulated day: the truth and the scores of its payments, and the acknowledged events."""

    day: date
    model_version: str
    card: Ints = field(repr=False)
    is_fraud: Bools = field(repr=False)
    is_emerging: Bools = field(repr=False)
    """Frauds of the pattern that the static model never saw."""
    live_scores: Floats = field(repr=False)
    """Of the deployed model, at the decision."""
    static_scores: Floats = field(repr=False)
    """Of the static model, on the same features."""
    actions: Mapping[str, int]
    labels: Mapping[str, int]
    """Labels that arrived on the day, by source and verdict."""
    predictions_acknowledged: int
    labels_acknowledged: int
    """With those that were sent twice."""


def play_days(
    bank: Bank, model: FraudModel, static: FraudModel, days: Sequence[date], door: CaptureDoor
) -> Iterator[PlayedDay]:
    """Play one day after the other; after the last one the clock shows the next day, 00:30 UTC.

    Args:
        bank: has lived until the first of the days.
        model: decides.
        static: only scores, for comparison; the bank does not know of it.
        days: UTC days, ascending, none before the clock's present.
        door: the capture service.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    with door.open_sender() as sender:
        for day in days:
            lived = bank.live(day, model)
            acknowledged = _send(sender, lived, bank.world, door)
            door.end_day(day)
            yield PlayedDay(
                day=day,
                model_version=lived.model_version,
                card=lived.payments.card,
                is_fraud=lived.payments.is_fraud,
                is_emerging=lived.payments.pattern == bank.world.emerging,
                live_scores=lived.scores,
                static_scores=lived.scores if model is static else static.score(lived.features),
                actions=dict(Counter(str(action) for action in lived.actions)),
                labels=dict(Counter(_describe(label) for _, label in lived.heard)),
                predictions_acknowledged=acknowledged[0],
                labels_acknowledged=acknowledged[1],
            )


def _send(sender: Sender, lived: BankDay, world: FraudWorld, door: CaptureDoor) -> tuple[int, int]:
    """Send a day in four parts; return the acknowledged predictions and labels."""
    midnight = datetime.combine(lived.payments.day, time(tzinfo=UTC))
    predictions = build_prediction_events(lived, world)
    predicted = labelled = 0
    for hour in range(0, 24, _HOURS_PER_BATCH):
        begin, end = midnight + timedelta(hours=hour), midnight + timedelta(hours=hour + _HOURS_PER_BATCH)
        door.clock.advance(min(end, datetime.combine(lived.payments.day, _LAST_BATCH)))
        made = [event for second, event in predictions if hour * 3600 <= second < (hour + _HOURS_PER_BATCH) * 3600]
        heard = [(about, label) for about, label in lived.heard if begin <= label.occurred_at < end]
        claims = [_build_claim(about, label) for about, label in heard if label.source is not Source.ANALYST]
        verdicts = [_build_verdict(about, label) for about, label in heard if label.source is Source.ANALYST]
        if made:
            sender.send_events(made)
        for _ in range(2 if lived.payments.day.toordinal() % _SENT_TWICE_EVERY_DAYS == 0 else 1):
            if claims:
                sender.send_events(claims)
            if verdicts:
                sender.send_plain("/labels", verdicts, len(verdicts))
            labelled += len(claims) + len(verdicts)
        predicted += len(made)
    return predicted, labelled


def build_prediction_events(lived: BankDay, world: FraudWorld) -> list[tuple[int, dict[str, Any]]]:
    """Build the CloudEvent of every payment of a day, with its second of the day."""
    payments = lived.payments
    midnight = datetime.combine(payments.day, time(tzinfo=UTC))
    rows = zip(
        payments.ids,
        payments.second.tolist(),
        payments.card.tolist(),
        payments.amount.tolist(),
        world.name_regions(payments.terminal),
        lived.features.to_pylist(),
        lived.scores.tolist(),
        lived.actions,
        lived.allow_propensity.tolist(),
        strict=True,
    )
    events = []
    for name, second, card, amount, region, features, score, action, propensity in rows:
        data = {
            "prediction_id": name,
            "model_version": lived.model_version,
            "user_id": f"card-{card:05d}",
            "features": features,
            "score": score,
            "amount": amount,
            "segment": region,
            "action": action,
        }
        if action is not Action.BLOCK:
            data["allow_propensity"] = propensity
        at = midnight + timedelta(seconds=second)
        events.append((second, build_cloud_event(ENGINE, "flywheel.prediction", name, at, data)))
    return events


def _build_claim(about: Transactions, label: Label) -> dict[str, Any]:
    data = {
        "prediction_id": about.ids[label.number],
        "signal": "label",
        "label": "true" if label.is_fraud else "false",
        "labeling_source": label.source,
    }
    return build_cloud_event(CLAIMS, "flywheel.feedback", _make_label_id(about, label), label.occurred_at, data)


def _build_verdict(about: Transactions, label: Label) -> dict[str, Any]:
    return {
        "transaction_id": about.ids[label.number],
        "ground_truth": {
            "is_fraud": label.is_fraud,
            "labeling_source": label.source,
            "timestamp": label.occurred_at.isoformat(),
        },
    }


def _make_label_id(about: Transactions, label: Label) -> str:
    return f"{about.ids[label.number]}/{label.source}{'/again' if label.repeated else ''}"


def _describe(label: Label) -> str:
    return f"{label.source} {'fraud' if label.is_fraud else 'honest'}"
