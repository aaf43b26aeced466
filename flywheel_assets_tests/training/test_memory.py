"""The memory of a training: estimated before it, refused with the setting that helps, and halved batches on the way."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.generation import load_base, silence_libraries
from flywheel_assets.training import _stages as stages
from flywheel_assets.training import memory
from flywheel_assets.training.examples import Example
from flywheel_assets.training.memory import StageShape, check_memory, estimate_memory, fit_into_memory, halve_batch
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets_tests.training.small_world import RECIPE, blank_base

BATCH = StageShape(rows=16, sequences=1, tokens=64)
EXAMPLES = [Example(f"pair-{n}", [10 + n, 11], [20 + n, 21, 2], [30 + n, 2]) for n in range(8)]


def estimate(shape: StageShape = BATCH, **changes: Any) -> Any:
    found = estimate_memory(str(blank_base()), replace(RECIPE, **changes), shape, "cpu")
    assert found is not None
    return found


def test_weights_and_the_adapter_are_counted_exactly() -> None:
    found = estimate()
    saved = (blank_base() / "model.safetensors").read_bytes()
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    assert found.weights_bytes == sum(
        each["data_offsets"][1] - each["data_offsets"][0] for name, each in header.items() if name != "__metadata__"
    )
    # Per layer four 64 × 64 matrices of attention and three of 64 × 128, rank 16; weights, gradients and two moments.
    trained = 2 * 16 * (4 * (64 + 64) + 3 * (64 + 128))
    assert found.adapter_bytes == 16 * trained
    assert estimate(optimizer="sgd").adapter_bytes == 8 * trained


def test_activations_grow_with_rows_and_tokens_and_shrink_with_checkpointing() -> None:
    full = estimate()
    assert full.sequences == 16
    assert estimate(batch_size=8).activations_bytes == pytest.approx(full.activations_bytes / 2, rel=0.05)
    pairs = estimate(StageShape(rows=16, sequences=2, tokens=64))
    assert pairs.activations_bytes == pytest.approx(2 * full.activations_bytes, rel=0.05)
    # No matrix of all pairs of tokens: a fused attention keeps none.
    longer = estimate(StageShape(rows=16, sequences=1, tokens=128))
    assert longer.activations_bytes == pytest.approx(2 * full.activations_bytes, rel=0.05)
    assert estimate(gradient_checkpointing=True).activations_bytes < 0.8 * full.activations_bytes


def test_a_training_that_cannot_fit_is_refused_with_a_setting_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An 8 B model died in its first long batch, was tried four times, and nothing named the setting that helps."""
    recipe = replace(RECIPE, batch_size=16)
    quarter = estimate(batch_size=4).total_bytes
    monkeypatch.setattr(memory, "read_free_memory", lambda _device: quarter)
    with pytest.raises(TrainingError, match=r"16 sequences of 64 tokens .*activations.*free") as refused:
        check_memory(str(blank_base()), recipe, {"sft": BATCH})
    assert "Set batch_size=4, accumulation_steps=4 in the recipe" in str(refused.value)
    assert check_memory(str(blank_base()), replace(recipe, batch_size=4), {"sft": BATCH})["sft"].sequences == 4


def test_where_nothing_fits_every_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read_free_memory", lambda _device: 1000)
    with pytest.raises(TrainingError, match=r"Lower `max_length` \(now 64\); take a smaller base model"):
        check_memory(str(blank_base()), RECIPE, {"sft": BATCH})


def test_an_architecture_that_cannot_be_counted_is_trained_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(memory, "_count_step", refuse)
    assert check_memory(str(blank_base()), RECIPE, {"sft": BATCH}) == {}
    assert "was not estimated" in caplog.text


def test_free_memory_is_read() -> None:
    assert (memory.read_free_memory("cpu") or 0) > 2**20


@pytest.mark.parametrize(
    ("batch", "accumulation", "halved"),
    [(16, 1, (8, 2)), (6, 2, (3, 4)), (3, 1, (1, 3)), (9, 2, (3, 6)), (2, 4, (1, 8))],
)
def test_halving_keeps_the_rows_of_a_step(batch: int, accumulation: int, halved: tuple[int, int]) -> None:
    found = halve_batch(AdapterRecipe(batch_size=batch, accumulation_steps=accumulation))
    assert (found.batch_size, found.accumulation_steps) == halved


def too_small_for(monkeypatch: pytest.MonkeyPatch, most_rows: int) -> list[int]:
    """Let the base model's forward run out of memory as torch does on a GPU, from so many rows on."""
    import torch
    from transformers import LlamaModel

    seen: list[int] = []
    forward: Callable[..., Any] = LlamaModel.forward

    def limited(self: Any, input_ids: Any = None, **more: Any) -> Any:
        if self.training and input_ids.device.type != "meta":
            seen.append(len(input_ids))
            if len(input_ids) > most_rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaModel, "forward", limited)
    return seen


def train(recipe: AdapterRecipe, folder: Path) -> Any:
    return fit_into_memory(recipe, lambda fitting: stages.train_sft(str(blank_base()), EXAMPLES, fitting, folder))


def test_a_batch_that_does_not_fit_is_halved_and_the_adapter_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file

    recipe = replace(RECIPE, batch_size=8, sft_epochs=3.0)
    straight = train(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        seen = too_small_for(patch, 2)
        halved = train(recipe, tmp_path / "halved")
    assert seen[:3] == [8, 4, 2]
    assert (straight.steps, straight.micro_batch) == (3, 8)
    assert (halved.steps, halved.micro_batch) == (3, 2)
    assert "going on with 2 rows and 4 accumulation steps" in caplog.text
    one, other = (
        load_file(stages.locate_result(tmp_path / name) / "adapter_model.safetensors")
        for name in ("straight", "halved")
    )
    for name, weights in one.items():
        assert weights.allclose(other[name], rtol=1e-3, atol=1e-4), name


def test_out_of_memory_with_one_row_is_permanent_and_names_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's error was taken for a transient one: a training that can never fit was started four times."""
    too_small_for(monkeypatch, 0)
    with pytest.raises(TrainingError, match=r"one row.*gradient_checkpointing=True.*max_length"):
        train(replace(RECIPE, batch_size=4), tmp_path)


def test_checkpointing_is_on_for_a_gpu_and_changes_no_weight(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert AdapterRecipe().uses_checkpointing("cuda")
    assert not AdapterRecipe().uses_checkpointing("cpu")
    assert not AdapterRecipe(gradient_checkpointing=False).uses_checkpointing("cuda")
    results = []
    for name, checkpointing in (("off", None), ("on", True)):
        train(replace(RECIPE, sft_epochs=2.0, gradient_checkpointing=checkpointing), tmp_path / name)
        results.append(load_file(stages.locate_result(tmp_path / name) / "adapter_model.safetensors"))
    for name, weights in results[0].items():
        assert weights.allclose(results[1][name], atol=1e-6), name


def test_several_gpus_never_become_one_large_batch(caplog: pytest.LogCaptureFixture) -> None:
    """transformers wraps a model in DataParallel where it sees n GPUs: the batch was n times the recipe's."""
    import torch

    class Arguments:
        device = torch.device("cuda:0")
        _n_gpu = 4

        @property
        def n_gpu(self) -> int:
            return self._n_gpu

    assert stages.keep_to_one_gpu(Arguments()).n_gpu == 1
    assert "4 GPUs are visible" in caplog.text


def test_transformers_still_reads_the_number_of_gpus_from_there(tmp_path: Path) -> None:
    from trl import SFTConfig

    with silence_libraries():
        arguments = SFTConfig(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.device.type == "cpu"
    arguments._n_gpu = 4
    assert (arguments.n_gpu, arguments.train_batch_size) == (4, 4 * arguments.per_device_train_batch_size)


def test_the_options_of_the_adapter_reach_peft_and_transformers(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE, use_rslora=True, use_dora=True, lr_scheduler_type="cosine", weight_decay=0.1, optimizer="adamw_torch"
    )
    arguments = stages._build_arguments(recipe, tmp_path, 1.0, 1e-3)
    assert (arguments["lr_scheduler_type"], arguments["weight_decay"], arguments["optim"]) == (
        "cosine",
        0.1,
        "adamw_torch",
    )
    train(recipe, tmp_path)
    config = json.loads((stages.locate_result(tmp_path) / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (True, True)


def test_what_needs_a_gpu_says_so_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='quantization="4bit" needs a CUDA device'):
        load_base(str(blank_base()), "cpu", "4bit")
    with pytest.raises(SettingsError, match='optimizer="paged_adamw_8bit" needs a CUDA device'):
        train(replace(RECIPE, device="cpu", optimizer="paged_adamw_8bit"), tmp_path)


def test_what_needs_bitsandbytes_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_assets import extras
    from flywheel_assets.models import generation

    monkeypatch.setattr(generation, "choose_placement", lambda _device: ("cuda", None))
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"pip install 'flywheel_assets\[gpu\]'"):
        generation.require_gpu_extra("quantization", "auto")
