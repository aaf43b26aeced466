"""The recipe: typed, checked, and the same after a round trip through JSON."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import SettingsError
from flywheel_assets.training.recipes import AdapterRecipe


def test_a_recipe_survives_json() -> None:
    recipe = AdapterRecipe(lora_targets=("q_proj", "v_proj"), sft_epochs=1.5, seed=7)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=AdapterRecipe) == recipe


def test_plain_dpo_is_not_the_default() -> None:
    assert AdapterRecipe().loss_types == ("apo_zero", "sft")
    assert AdapterRecipe().loss_weights == (0.2, 1.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss_types": ("sigmoid",)}, "one weight for each loss"),
        ({"loss_types": (), "loss_weights": ()}, "one weight for each loss"),
        ({"sft_learning_rate": 0.0}, "sft_learning_rate"),
        ({"sft_epochs": float("nan")}, "sft_epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"selection_share": 1.0}, "selection_share"),
        ({"preference_epochs": -1.0}, "preference_epochs"),
        ({"cpu_threads": 0}, "cpu_threads"),
    ],
)
def test_impossible_recipes_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        replace(AdapterRecipe(), **changes)


def test_recipes_and_requests_load_without_torch() -> None:
    code = "import sys, flywheel_assets.training.requests; print('torch' in sys.modules, 'trl' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False", "False"]
