"""Simulates the card issuer: payments come in, the deployed model decides, and labels come later."""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from flywheel_assets.demo.fraud._features import FeatureStore
from flywheel_assets.demo.fraud.labels import Action, Label, Outside
from flywheel_assets.demo.fraud.world import Floats, FraudWorld, Transactions
from flywheel_assets.models.boosting import fit_classifier, load_classifier

STATIC_VERSION = "static"


class FraudModel(Protocol):
    """Scores payments; tests put a scripted one in the place of a booster."""

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        ...

    def score(self, features: pa.Table) -> Floats:
        """Compute the probability of fraud, one per payment."""
        ...


class DeployedClassifier:
    """A trained classifier's two files, loaded once, behind a version name."""

    def __init__(self, folder: Path, model_version: str) -> None:
        self._classifier = load_classifier(folder)
        self._model_version = model_version

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        return self._model_version

    def score(self, features: pa.Table) -> Floats:
        """Compute the probability of fraud, one per payment."""
        return self._classifier.predict(features)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Decides about payments by their scores."""

    block_from: float = 0.8
    review_from: float = 0.4
    let_through_share: float = 0.2
    """Share of blockable payments that goes through at random, so that their labels are seen at all."""

    def decide(self, scores: Floats, draw: Floats) -> tuple[list[Action], Floats]:
        """Decide about each payment; also return the probability with which it could go through.

        Args:
            scores: one per payment.
            draw: uniform on [0, 1), one per payment; decides who is let through.
        """
        would_block = scores >= self.block_from
        blocked = would_block & (draw >= self.let_through_share)
        reviewed = (scores >= self.review_from) & ~would_block
        actions = np.select([blocked, reviewed], [Action.BLOCK, Action.REVIEW], Action.ALLOW).tolist()
        return [Action(action) for action in actions], np.where(would_block, self.let_through_share, 1.0)


PREHISTORY_DAYS = 77
"""Payments before the flywheel: the windows fill, then come the static model's training days, then their labels."""
_TRAINED_DAYS = 35
_LABELS_WAIT_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class BankDay:
    """One day's payments, the decisions about them, and the labels that arrived."""

    payments: Transactions
    features: pa.Table
    model_version: str
    scores: Floats
    actions: list[Action]
    allow_propensity: Floats
    """The probability with which each payment could go through, whether it did or not."""
    heard: list[tuple[Transactions, Label]]
    """Labels that arrived on this day, with the payments of the day that they are about."""


@dataclass(frozen=True)
class StaticModel:
    """The model that is in service before the flywheel exists."""

    folder: Path
    payments: int
    positives: int
    """Training payments that were labelled as fraud by the first day."""


class Bank:
    """Lives one day after the other; the deciding model may change in between."""

    def __init__(self, world: FraudWorld, outside: Outside, policy: Policy, first_day: date) -> None:
        self.world = world
        self._outside = outside
        self._policy = policy
        self._store = FeatureStore(first_day)
        self._coming: defaultdict[date, list[tuple[Transactions, Label]]] = defaultdict(list)

    def block_from(self, score: float) -> None:
        """Act on a new model's own threshold; reviews begin at the same fraction of it as before."""
        share = self._policy.review_from / self._policy.block_from
        self._policy = replace(self._policy, block_from=score, review_from=share * score)

    def live(self, day: date, model: FraudModel | None) -> BankDay:
        """Simulate everything that happens on the day; without a model every payment goes through."""
        payments = self.world.simulate_day(day)
        features = self._store.compute_features(payments)
        scores = np.zeros(len(payments)) if model is None else model.score(features)
        draw = np.random.default_rng([self.world.seed, day.toordinal(), *b"let through"]).random(len(payments))
        actions, propensity = self._policy.decide(scores, draw)
        self._store.remember(payments, np.array([action is not Action.BLOCK for action in actions], dtype=bool))
        for label in self._outside.draw_labels(payments, actions):
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


def live_prehistory(bank: Bank, flywheel_day: date, folder: Path) -> StaticModel:
    """Let the bank live undefended until `flywheel_day`, and train the static model on the labels until then.

    Args:
        bank: made with `flywheel_day − PREHISTORY_DAYS` as its first day.
        flywheel_day: the first day on which the model decides.
        folder: gets the model's files.
    """
    lived = [bank.live(flywheel_day - timedelta(days=ago), model=None) for ago in range(PREHISTORY_DAYS, 0, -1)]
    said = {(about.day, label.number): label.is_fraud for day in lived for about, label in day.heard}
    trained = lived[-_TRAINED_DAYS - _LABELS_WAIT_DAYS : -_LABELS_WAIT_DAYS]
    # Silence counts as honest here, as it does in the flywheel once a payment is old enough.
    is_fraud = [said.get((day.payments.day, number), False) for day in trained for number in range(len(day.payments))]
    fit_classifier(pa.concat_tables([day.features for day in trained]), is_fraud).save(folder)
    return StaticModel(folder, len(is_fraud), sum(is_fraud))
