"""`flywheel_assets.config`: each name is the type itself, and importing it stays cheap."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib import import_module
from typing import Any

import pytest

from flywheel_assets import config
from flywheel_assets.applications.fraud import APPLICATION
from flywheel_assets.errors import SettingsError

HOMES = {
    "AdapterRecipe": "training.recipes",
    "BreakerLimits": "curation.texts.breaker",
    "ClassificationApplication": "application",
    "ClassifierLimits": "promotion.classifier_limits",
    "ClassifierRecipe": "models.boosting",
    "CommandRecipe": "models.trainers.command",
    "DiscrepancyRules": "curation.labels.discrepancies",
    "DriftLimits": "measures.drift",
    "EditBands": "curation.texts.gate",
    "EmphasisRules": "curation.labels.emphasis",
    "EvaluationOptions": "evaluation.options",
    "ExampleTrigger": "application",
    "FeatureType": "curation.labels.score_contract",
    "FieldMapping": "curation.labels.score_contract",
    "FlywheelApplication": "application",
    "GateRules": "curation.texts.gate",
    "GenerationServer": "evaluation.options",
    "JoinWindow": "curation.joining",
    "LabelBreakerLimits": "curation.labels.label_breaker",
    "LabelRules": "curation.labels.label_resolution",
    "MaintenanceRules": "lake.upkeep.maintenance",
    "MiningRules": "curation.labels.mining",
    "MlflowTraceSource": "application",
    "PairedJudge": "screening.paired_judge",
    "Policy": "curation.policy.policy",
    "PreferenceApplication": "application",
    "PromotionHook": "application",
    "PromotionLimits": "promotion.text_limits",
    "ResolutionRules": "curation.texts.resolution",
    "RolloutPlan": "models.rollout.traffic",
    "SamplingRules": "curation.labels.sampling",
    "ScoreContract": "curation.labels.score_contract",
    "TextClassifierRecipe": "models.trainers.text_classifier",
    "Trigger": "application",
    "WatchLimits": "measures.live_arms",
    "build_default_policy": "curation.policy.policy",
}
HEAVY = [
    "dagster",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "mlflow",
    "pandas",
    "lightgbm",
    "sklearn",
    "scipy",
]


def test_all_holds_every_name_in_alphabetical_order() -> None:
    assert config.__all__ == sorted(HOMES)


@pytest.mark.parametrize("name", sorted(HOMES))
def test_each_name_is_the_type_itself(name: str) -> None:
    assert getattr(config, name) is getattr(import_module(f"flywheel_assets.{HOMES[name]}"), name)


def test_every_field_of_an_application_can_be_made_from_config() -> None:
    """A rule that an application takes and that `config` lacks would send its team looking through the rooms."""
    made = (config.PreferenceApplication, config.ClassificationApplication)
    types = {
        type(field.default_factory())
        for kind in made
        for field in kind.__dataclass_fields__.values()
        if callable(field.default_factory)
    }
    assert {each.__name__ for each in types if each.__module__ != "builtins"} <= set(config.__all__)


def test_versions_export_objections_where_the_recipe_learns_from_them() -> None:
    def build(weight: float) -> config.PreferenceApplication:
        recipe = config.AdapterRecipe(stages="one_stage", objection_weight=weight)
        return config.PreferenceApplication(
            name="texts", description="Texts.", start_date=date(2026, 3, 1), base_model="base", recipe=recipe
        )

    assert [build(weight).resolution.confirmed_objections for weight in (0.0, 1.0)] == [False, True]


def test_importing_it_loads_neither_dagster_nor_a_heavy_library() -> None:
    code = f"import json, sys, flywheel_assets.config; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    loaded = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(loaded.stdout) == []


NUMBER = config.FeatureType.NUMBER


@pytest.mark.parametrize(
    ("make", "wrong", "named"),
    [
        *((replace, {"threshold": value}, "threshold") for value in (50, -1, math.nan, "0.5")),
        (replace, {"cards_per_day": 0}, "cards_per_day"),
        (replace, {"evaluation_weeks": 0}, "evaluation_weeks"),
        # The limits ask for two weeks: with one no version could ever have been promoted.
        (replace, {"evaluation_weeks": 1}, "evaluation_weeks"),
        (
            config.ExampleTrigger,
            {"min_calibration_ratio": 1.25, "max_calibration_ratio": 0.8},
            "min_calibration_ratio",
        ),
        *((config.ScoreContract, {"features": {"x": kind}}, "features['x']") for kind in ("number", float, "a b")),
        *((config.ScoreContract, {"features": {name: NUMBER}}, "features") for name in ("", " ")),
        *((config.FieldMapping, {name: ""}, name) for name in ("key", "score", "label", "entity", "amount")),
        (config.JoinWindow, {"join_days": -5}, "join_days"),
        (replace, {"mining": config.MiningRules(maturity_days=181)}, "mining.maturity_days"),
    ],
)
def test_a_wrong_value_is_refused_where_the_file_is_loaded(
    make: Callable[..., Any], wrong: dict[str, Any], named: str
) -> None:
    """With threshold 50 or nan the check of alerts passed for ever: no alert on either side."""
    with pytest.raises(SettingsError) as refused:
        make(*([APPLICATION] if make is replace else []), **wrong)
    assert f".{named} is " in str(refused.value)
    assert "need " in str(refused.value)
