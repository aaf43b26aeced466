"""The recipe: typed, checked, and the same after a round trip through JSON."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import SettingsError
from flywheel_assets.training import adapter
from flywheel_assets.training.recipes import AdapterRecipe, add_younger_fields
from flywheel_assets.training.requests import TrainingRequest


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
        ({"quantization": "8bit"}, "quantization"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"lr_scheduler_type": "step"}, "lr_scheduler_type"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"stages": "three_stages"}, "stages"),
        ({"preference_loss": "ipo"}, "preference_loss"),
        ({"preference_weight": -1.0}, "preference_weight"),
        ({"serving_temperature": 0.0}, "serving_temperature"),
        ({"selection_samples": -1}, "selection_samples"),
        ({"gradient_checkpointing": "auto"}, "gradient_checkpointing"),
        ({"written_comparisons": "some"}, "written_comparisons"),
        ({"objection_loss": "dpo"}, "objection_loss"),
        ({"stages": "two_stages", "objection_weight": 1.0}, 'objection_weight .* only with stages="one_stage"'),
        ({"stages": "one_stage", "preference_epochs": 0.0, "objection_weight": 1.0}, "objection_weight"),
    ],
)
def test_impossible_recipes_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        replace(AdapterRecipe(), **changes)


OLDER = """{"lora_rank":16,"lora_alpha":32,"lora_targets":"all-linear","batch_size":16,"accumulation_steps":1,
"max_length":1024,"wrap_text_prompts":true,"chat_template_kwargs":{},"sft_epochs":3.0,"sft_learning_rate":0.0002,
"preference_epochs":1.0,"preference_learning_rate":0.00005,"loss_types":["apo_zero","sft"],"loss_weights":[0.2,1.0],
"beta":0.1,"warmup_ratio":0.1,"selection_share":0.08,"selection_min_rows":10,"selection_margin":0.01,
"selection_max_accepted_fallen":0.02,"max_selection_rows":500,"checkpoint_every_steps":100,"max_delta_rows":5000,
"gradient_checkpointing":false,"device":"auto","cpu_threads":1,"seed":0}"""
"""A recipe as the report of a training of November 2026 holds it."""


def test_a_finished_training_answers_its_request_after_recipes_got_new_fields() -> None:
    """The digest was made from every field, so each upgrade that added one refused all finished trainings."""
    text = OLDER.replace("\n", "")
    older = msgspec.convert(add_younger_fields(msgspec.json.decode(text)), AdapterRecipe)
    asked = TrainingRequest(
        application="assistant",
        version="dpo_gold_v1",
        export_dir="",
        manifest_sha256="a",
        base_model="",
        recipe=older,
        output_dir="",
        work_dir="",
    )
    recorded = hashlib.sha256(msgspec.json.encode(["assistant", "dpo_gold_v1", "a", "b", text])).hexdigest()
    assert adapter._compute_identity(asked, "b") == recorded
    by_device = msgspec.structs.replace(asked, recipe=replace(older, gradient_checkpointing=None))
    assert adapter._compute_identity(by_device, "b") == recorded
    for changes in (
        *({"use_dora": True}, {"weight_decay": 0.1}, {"quantization": "4bit"}, {"lora_rank": 8}),
        *(
            {"stages": "one_stage"},
            {"selection_samples": 2},
            {"preference_weight": 0.5},
            {"preference_loss": "sigmoid"},
            {"stages": "one_stage", "objection_weight": 1.0},
            {"written_comparisons": "confirmed"},
        ),
    ):
        other = msgspec.structs.replace(asked, recipe=replace(older, **changes))
        assert adapter._compute_identity(other, "b") != recorded


def test_a_recorded_recipe_says_what_was_done_then_whatever_the_default_is_now() -> None:
    younger = add_younger_fields(msgspec.json.decode(OLDER.replace("\n", "")))
    assert younger["stages"] == "two_stages"
    assert younger["lora_rank"] == 16
    assert (younger["written_comparisons"], younger["objection_weight"]) == ("all", 0.0)
    assert add_younger_fields({**younger, "stages": "one_stage"})["stages"] == "one_stage"


def test_a_recipe_without_stages_meant_two_and_a_new_one_always_writes_them() -> None:
    assert AdapterRecipe().stages == "one_stage"
    assert msgspec.json.decode(msgspec.json.encode(AdapterRecipe()))["stages"] == "one_stage"
    assert "stages" in AdapterRecipe().list_deciding_fields()


@pytest.mark.parametrize(
    ("changes", "recorded", "followed"),
    [
        ({}, {"lora_rank": 16}, "two_stages"),
        ({}, {"stages": "one_stage"}, "one_stage"),
        ({}, {"stages": "two_stages"}, "one_stage"),
        ({"stages": "sft"}, {"lora_rank": 16}, "sft"),
        ({"stages": "two_stages"}, {"lora_rank": 16}, "two_stages"),
    ],
    ids=["older and unnamed", "the same", "named then, unnamed now", "named now", "the older one named now"],
)
def test_only_a_default_that_was_not_recorded_is_read_as_it_was_then(
    changes: dict[str, Any], recorded: dict[str, Any], followed: str
) -> None:
    asked = replace(AdapterRecipe(), lora_rank=8, weight_decay=0.1, **changes)
    # None of them has recorded `written_comparisons`: all winners were written.
    assert asked.follow_recorded(recorded) == replace(asked, stages=followed, written_comparisons="all")


@pytest.mark.parametrize(
    ("stages", "preference_epochs", "trains"),
    [("one_stage", 1.0, True), ("two_stages", 0.5, True), ("sft", 1.0, False), ("one_stage", 0.0, False)],
)
def test_which_recipes_train_preferences(stages: Any, preference_epochs: float, trains: bool) -> None:
    assert AdapterRecipe(stages=stages, preference_epochs=preference_epochs).trains_preferences is trains


def test_recipes_and_requests_load_without_torch() -> None:
    code = "import sys, flywheel_assets.training.requests; print('torch' in sys.modules, 'trl' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False", "False"]
