"""The card issuer: payments come in, the deployed model decides, and what the world says about them comes later."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from flywheel_assets.simulation.fraud.deployment import FraudModel, Policy, fit_static_model
from flywheel_assets.simulation.fraud.features import FEATURES, FeatureStore
from flywheel_assets.simulation.fraud.labels import Action, Label, Outside
from flywheel_assets.simulation.fraud.world import Floats, FraudWorld, Transactions

PREHISTORY_DAYS = 77
"""Payments before the flywheel: the windows fill, then come the static model's training days, then their labels."""
_TRAINED_DAYS = 35
_LABELS_WAIT_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class BankDay:
    """One day's payments, how they were decided, and what the bank heard meanwhile."""

    payments: Transactions
    features: Mapping[str, Floats]
    model_version: str
    scores: Floats
    actions: list[Action]
    allow_propensity: Floats
    """The probability with which each payment could go through, whatever happened to it in the end."""
    heard: list[tuple[Transactions, Label]]
    """Labels that arrived on this day, with the payments of the day that they are about."""


@dataclass(frozen=True)
class StaticModel:
    """The model that is in service before the flywheel exists."""

    model_file: Path
    payments: int
    positives: int
    """Training payments that were labelled as fraud by the first day."""


class Bank:
    """Lives one day after the other; who decides may change in between."""

    def __init__(self, world: FraudWorld, outside: Outside, policy: Policy, first_day: date) -> None:
        self.world = world
        self._outside = outside
        self._policy = policy
        self._store = FeatureStore(first_day)
        self._coming: defaultdict[date, list[tuple[Transactions, Label]]] = defaultdict(list)

    def live(self, day: date, model: FraudModel | None) -> BankDay:
        """Everything that happens on the day; without a model every payment goes through."""
        payments = self.world.day(day)
        features = self._store.features_of(payments)
        scores = np.zeros(len(payments)) if model is None else model.score(features)
        draw = np.random.default_rng([self.world.seed, day.toordinal(), *b"let through"]).random(len(payments))
        actions, propensity = self._policy.decide(scores, draw)
        self._store.remember(payments, np.array([action is not Action.BLOCK for action in actions], dtype=bool))
        for label in self._outside.labels(payments, actions):
            self._coming[label.occurred_at.date()].append((payments, label))
        heard = sorted(self._coming.pop(day, []), key=lambda about: about[1].occurred_at)
        for about, label in heard:
            self._store.learn(about.day, label.number, label.is_fraud)
        return BankDay(
            payments=payments,
            features=features,
            model_version="none" if model is None else model.model_version,
            scores=scores,
            actions=actions,
            allow_propensity=propensity,
            heard=heard,
        )


def live_prehistory(bank: Bank, flywheel_day: date, model_file: Path) -> StaticModel:
    """Let the bank live undefended until `flywheel_day`, and train the static model on what it was told by then.

    Args:
        bank: made with `flywheel_day − PREHISTORY_DAYS` as its first day.
        flywheel_day: the first day on which the model decides.
        model_file: gets the model, in LightGBM's text format.
    """
    days = {
        day: bank.live(day, model=None)
        for day in (flywheel_day - timedelta(days=ago) for ago in range(PREHISTORY_DAYS, 0, -1))
    }
    said = {(about.day, label.number): label.is_fraud for lived in days.values() for about, label in lived.heard}
    trained = [
        days[flywheel_day - timedelta(days=ago)]
        for ago in range(_TRAINED_DAYS + _LABELS_WAIT_DAYS, _LABELS_WAIT_DAYS, -1)
    ]
    is_fraud = np.array(
        [said.get((each.payments.day, number), False) for each in trained for number in range(len(each.payments))],
        dtype=np.int64,
    )
    features = {name: np.concatenate([each.features[name] for each in trained]) for name in FEATURES}
    fit_static_model(features, is_fraud, model_file)
    return StaticModel(model_file, len(is_fraud), int(is_fraud.sum()))
