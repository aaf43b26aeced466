"""The two stages: exactly what a step sees, and checkpoints that a killed training goes on from."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.generation import compute_token_log_probabilities, hash_adapter, load_model
from flywheel_assets.training import _stages as stages
from flywheel_assets.training.examples import Example
from flywheel_assets_tests.training.small_world import RECIPE, blank_base

TINY = replace(RECIPE, batch_size=2, sft_epochs=3.0, preference_epochs=3.0, checkpoint_every_steps=2)
PAIRS = [Example(f"pair-{n}", [10 + n, 11], [20 + n, 21, 2], [30 + n, 2]) for n in range(8)]
MIXED = [*PAIRS[:5], *(Example(f"accepted-{n}", [40 + n], [50 + n, 51, 2], None) for n in range(3))]


class KilledError(Exception):
    pass


def train(stage: str, folder: Path, sft: Path | None = None) -> stages.StageReport:
    if stage == "sft":
        return stages.train_sft(str(blank_base()), PAIRS, TINY, folder)
    if stage == "one_stage":
        return stages.train_one_stage(str(blank_base()), MIXED, TINY, folder)
    assert sft is not None
    return stages.train_preference(str(blank_base()), sft, PAIRS, TINY, folder)


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    train("sft", folder)
    return stages.locate_result(folder)


def dying_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die right after the checkpoint of `step` was marked complete, or in the middle of writing it."""
    from transformers import TrainerCallback

    real = stages._make_completion_marker

    def marker() -> Any:
        complete = real()

        class Dies(TrainerCallback):  # type: ignore[misc]
            def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                complete.on_save(args, state, control, **more)
                if state.global_step == step:
                    raise KilledError

        return Dies()

    monkeypatch.setattr(stages, "_make_completion_marker", marker)


def test_a_collated_sft_batch_is_exactly_this() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    columns = stages.build_sft_rows([Example("a", [5, 6], [7, 8, 2], None), Example("b", [5], [9, 2], [4, 2])])
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2], [5, 9, 2, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 8, 2], [-100, 9, 2, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_a_collated_preference_batch_is_exactly_this() -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    model, _ = load_model(str(blank_base()), None, device="cpu")
    columns = stages.build_preference_rows(
        model, [Example("a", [5, 6], [7, 8, 2], [9, 2]), Example("b", [5], [9, 2], [4])], 2
    )
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = DataCollatorForPreference(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2], [5, 9, 2, 0, 0], [5, 6, 9, 2, 0], [5, 4, 0, 0, 0]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    expected = compute_token_log_probabilities(model, [([5, 6], [9, 2]), ([5], [4])])
    assert batch["ref_rejected_logps"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["sft", "preference", "one_stage"])
def test_a_killed_stage_goes_on_from_its_checkpoint_and_ends_with_the_same_adapter(
    stage: str, tmp_path: Path, sft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(stage, tmp_path / "straight", sft)
    assert (straight.steps, straight.resumed_from_step) == (12, 0)
    with monkeypatch.context() as patch:
        dying_after(patch, step=6)
        with pytest.raises(KilledError):
            train(stage, tmp_path / "killed", sft)
    resumed = train(stage, tmp_path / "killed", sft)
    assert (resumed.steps, resumed.resumed_from_step) == (12, 6)
    results = [stages.locate_result(tmp_path / name) for name in ("straight", "killed")]
    assert hash_adapter(results[0]) == hash_adapter(results[1])


def test_a_checkpoint_that_was_being_written_is_not_used(
    tmp_path: Path, sft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dying_after(patch, step=6)
        with pytest.raises(KilledError):
            train("sft", tmp_path / "sft")
    (tmp_path / "sft" / "checkpoints" / "checkpoint-6" / "_COMPLETE").unlink()
    (tmp_path / "sft" / "checkpoints" / "checkpoint-6" / "trainer_state.json").write_text("{")
    assert train("sft", tmp_path / "sft").resumed_from_step == 4
    assert hash_adapter(stages.locate_result(tmp_path / "sft")) == hash_adapter(sft)


def test_a_finished_stage_is_not_trained_again_and_leaves_no_checkpoints(tmp_path: Path) -> None:
    first = train("sft", tmp_path)
    before = hash_adapter(stages.locate_result(tmp_path))
    assert train("sft", tmp_path) == first
    assert hash_adapter(stages.locate_result(tmp_path)) == before
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.long
def test_only_lora_weights_are_trained_and_saved(sft: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    def digest() -> str:
        return hashlib.sha256((blank_base() / "model.safetensors").read_bytes()).hexdigest()

    before = digest()
    train("preference", tmp_path / "preference", sft)
    train("one_stage", tmp_path / "one")
    assert digest() == before
    for folder in (sft, *(stages.locate_result(tmp_path / name) for name in ("preference", "one"))):
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            names = list(weights.keys())
        assert names
        assert all(".lora_A." in name or ".lora_B." in name for name in names)
        assert sorted(path.name for path in folder.iterdir()) == [
            *("adapter_config.json", "adapter_model.safetensors", "stage.json"),
        ]
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["r"], config["bias"], config["modules_to_save"]) == (16, "none", None)


def test_the_reference_is_the_sft_adapter_as_it_was_saved(sft: Path, tmp_path: Path) -> None:
    """Before its first step the policy equals the reference, so the preference rewards begin at zero."""
    model, _ = load_model(str(blank_base()), str(sft), device="cpu")
    columns = stages.build_preference_rows(model, PAIRS, 4)
    base, _ = load_model(str(blank_base()), None, device="cpu")
    assert columns["ref_chosen_logps"] != stages.build_preference_rows(base, PAIRS, 4)["ref_chosen_logps"]
    train("preference", tmp_path, sft)
    trained, _ = load_model(str(blank_base()), str(stages.locate_result(tmp_path)), device="cpu")
    assert stages.build_preference_rows(trained, PAIRS, 4)["ref_chosen_logps"] != columns["ref_chosen_logps"]


def test_a_diverged_stage_is_an_error_and_leaves_no_result(tmp_path: Path) -> None:
    recipe = replace(TINY, sft_learning_rate=1e38, warmup_ratio=0.0)
    with pytest.raises(TrainingError, match="learning rate"):
        stages.train_sft(str(blank_base()), PAIRS, recipe, tmp_path)
    assert not stages.locate_result(tmp_path).exists()
