"""Defines the features that all recipes of a classifier's trainers share.

A trainer fits, a model scores. The recipes are `ClassifierRecipe` (boosted trees), `TextClassifierRecipe` (a language
model with a classification head) and `CommandRecipe` (a team's own program). Requests and reports hold any of them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from flywheel_assets.ranges import Checked

RecalibrationMethod = Literal["none", "isotonic", "platt"]
"""The last step of a training; see `models.recalibration`."""


class TrainerRecipe(Checked):
    """Everything that decides a classifier besides its rows; each kind of trainer has a frozen dataclass of its own.

    No dataclass itself: msgspec then asks `decode_recipe` which kind a stored recipe is.
    """

    recalibration: RecalibrationMethod

    def locate(self, find_base_model: Callable[[str], str]) -> "TrainerRecipe":
        """Return the recipe with the paths of this machine; `find_base_model` is `Stores.base_model`."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the model besides its rows, as JSON values: what a request's digest hashes.

        A recalibration that is off is left out, so that requests of earlier releases keep their digests.
        """
        described: dict[str, Any] = msgspec.to_builtins(self)
        if described["recalibration"] == "none":
            del described["recalibration"]
        return described

    def list_parameters(self) -> dict[str, str | int | float]:
        """List the settings as numbers and texts, for a tracking server."""
        return {name: value if isinstance(value, int | float) else str(value) for name, value in vars(self).items()}

    def check_features(self, features: Mapping[str, str]) -> None:
        """Raise SettingsError where the recipe reads a feature that the application does not declare so.

        Args:
            features: the type of each declared feature: number, text or boolean.
        """
