"""The deployed fraud model: a LightGBM booster in its native text format, and what its scores do to payments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flywheel_assets.simulation.fraud.features import FEATURES, matrix
from flywheel_assets.simulation.fraud.labels import Action
from flywheel_assets.simulation.fraud.world import Floats, Ints

if TYPE_CHECKING:
    import lightgbm

_TRAINING = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 15,
    "min_sum_hessian_in_leaf": 5.0,
    # The default 255 bins are too coarse for risks near zero: a sample then seems to beat all the data.
    "max_bin": 4095,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbosity": -1,
}
_ROUNDS = 120


class FraudModel(Protocol):
    """Whatever scores payments; tests put a scripted one in the place of a booster."""

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        ...

    def score(self, features: Mapping[str, Floats]) -> Floats:
        """The probability of fraud, one per payment."""
        ...


class BoosterModel:
    """A booster that knows the names of its features."""

    def __init__(self, booster: "lightgbm.Booster", model_version: str) -> None:
        self._booster = booster
        self._names = booster.feature_name()
        self._model_version = model_version

    @classmethod
    def load(cls, model_file: Path, model_version: str) -> "BoosterModel":
        """The model of a `model.txt`."""
        import lightgbm

        return cls(lightgbm.Booster(model_file=str(model_file)), model_version)

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        return self._model_version

    def score(self, features: Mapping[str, Floats]) -> Floats:
        """The probability of fraud, one per payment."""
        scores: Floats = np.asarray(self._booster.predict(matrix(features, self._names), num_threads=1))
        return scores


def fit_static_model(features: Mapping[str, Floats], is_fraud: Ints, model_file: Path) -> None:
    """Train the model that is in service before the flywheel exists, and write it in LightGBM's text format."""
    import lightgbm

    data = lightgbm.Dataset(matrix(features), is_fraud, feature_name=list(FEATURES), params=_TRAINING)
    lightgbm.train(_TRAINING, data, num_boost_round=_ROUNDS).save_model(str(model_file))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a score does to a payment."""

    block_from: float = 0.8
    review_from: float = 0.4
    let_through_share: float = 0.2
    """Of what would be blocked: a random share goes through, so that its labels are seen at all."""

    def decide(self, scores: Floats, draw: Floats) -> tuple[list[Action], Floats]:
        """What is done to each payment, and the probability with which it could go through.

        Args:
            scores: one per payment.
            draw: uniform on [0, 1), one per payment; decides who is let through.
        """
        would_block = scores >= self.block_from
        blocked = would_block & (draw >= self.let_through_share)
        reviewed = (scores >= self.review_from) & ~would_block
        actions = np.select([blocked, reviewed], [Action.BLOCK, Action.REVIEW], Action.ALLOW).tolist()
        return [Action(action) for action in actions], np.where(would_block, self.let_through_share, 1.0)
