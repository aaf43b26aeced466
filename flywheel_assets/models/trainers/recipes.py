"""Reads stored recipes of every kind.

A recipe's `kind` says which it is; without one it is LightGBM's, as in every report of earlier releases.
"""

from typing import Any

import msgspec

from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.text_classifier import TextClassifierRecipe

_KINDS: dict[str, type[TrainerRecipe]] = {
    CommandRecipe.kind: CommandRecipe,
    TextClassifierRecipe.kind: TextClassifierRecipe,
}


def decode_recipe(kind: type, value: Any) -> Any:
    """Build the recipe of a request or a report: msgspec's hook for the fields of type `TrainerRecipe`.

    Raises:
        NotImplementedError: the field is of another type; msgspec asks for that.
        msgspec.ValidationError: the value is no recipe that this release knows.
    """
    if kind is not TrainerRecipe:
        raise NotImplementedError
    if not isinstance(value, dict):
        raise msgspec.ValidationError("a recipe is a JSON object")
    found = value.get("kind")
    if found is None:
        return msgspec.convert(value, ClassifierRecipe)
    if found not in _KINDS:
        raise msgspec.ValidationError(f"kind is {found!r}; valid are {', '.join(sorted(_KINDS))}, or none at all")
    return msgspec.convert(value, _KINDS[found])
