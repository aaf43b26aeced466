"""Deploys the fraud model, and decides payments by its scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from flywheel_assets.demo.fraud.labels import Action
from flywheel_assets.demo.fraud.world import Floats
from flywheel_assets.models.boosting import load_classifier


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
