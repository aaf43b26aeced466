"""Runs the stages of a training, each with checkpoints from which a later process can continue.

A stage's folder in the work folder:

    checkpoints/checkpoint-<step>/    transformers' Trainer state; usable only with the file `_COMPLETE`
    result/                           the stage's adapter and stage.json; appears by one rename

On pickle: Trainer writes a checkpoint's optimizer, scheduler, random state and own arguments with `torch.save`,
which is a zipped pickle. None is ever loaded as one: weights are safetensors, Trainer reads the other states with
`torch.load(weights_only=True)`, an unpickler that builds nothing but tensors and plain containers, `training_args.bin`
is never read, the work folder is this project's own, and checkpoints are removed as soon as their stage is finished.
"""

import gc
import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.storage.files import write_folder
from flywheel_assets.models.generation import (
    choose_placement,
    compute_token_log_probabilities,
    load_base,
    require_gpu_extra,
    silence_libraries,
)
from flywheel_assets.models.rendering import load_tokenizer
from flywheel_assets.training._one_stage import (
    build_one_stage_rows,
    build_unpaired_term,
    collate,
    make_one_stage_trainer_class,
)
from flywheel_assets.training.examples import Example
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import StageReport

_log = logging.getLogger(__name__)

_COMPLETE = "_COMPLETE"
_IGNORED_LABEL = -100  # of a token that no loss looks at
_STAGE_FILE = "stage.json"


def train_sft(
    base_model: str,
    examples: Sequence[Example],
    recipe: AdapterRecipe,
    folder: Path,
    callbacks: Sequence[Any] = (),
) -> StageReport:
    """Run SFT: a fresh adapter learns to write the chosen texts.

    A stage that is finished already is not run again. `callbacks` are transformers', for what watches the steps.
    """
    if finished := _read_finished(folder):
        return finished
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(recipe.seed)
    with silence_libraries():
        trainer = SFTTrainer(
            model=load_base(base_model, recipe.device, recipe.quantization),
            args=keep_to_one_gpu(
                SFTConfig(
                    **_build_arguments(recipe, folder, recipe.sft_epochs, recipe.sft_learning_rate),
                    # Rows are token ids already, encoded as in evaluation and at the cut.
                    dataset_kwargs={"skip_prepare_dataset": True},
                )
            ),
            train_dataset=Dataset.from_dict(build_sft_rows(examples)),
            processing_class=load_tokenizer(base_model),
            peft_config=build_lora_config(recipe),
            callbacks=[_make_completion_marker(), *callbacks],
        )
        return _run_trainer(trainer, folder)


def train_preference(
    base_model: str, sft_adapter: Path, examples: Sequence[Example], recipe: AdapterRecipe, folder: Path
) -> StageReport:
    """Run the preference stage: the SFT adapter learns to prefer the chosen text, against itself as saved."""
    if finished := _read_finished(folder):
        return finished
    from datasets import Dataset
    from peft import PeftModel
    from transformers import set_seed
    from trl import DPOConfig

    set_seed(recipe.seed)
    tokenizer = load_tokenizer(base_model)
    with silence_libraries():
        # From disk: a deepcopy of a model that a trainer had would go on computing with the original's weights.
        base = load_base(base_model, recipe.device, recipe.quantization)
        model = PeftModel.from_pretrained(base, str(sft_adapter), is_trainable=True)
        pairs = [example for example in examples if example.rejected is not None]
        rows = build_preference_rows(model, pairs, recipe.batch_size)
        trainer = _make_preference_trainer_class()(
            model=model,
            args=keep_to_one_gpu(
                DPOConfig(
                    **_build_arguments(recipe, folder, recipe.preference_epochs, recipe.preference_learning_rate),
                    loss_type=list(recipe.loss_types),
                    loss_weights=list(recipe.loss_weights),
                    beta=recipe.beta,
                    precompute_ref_log_probs=True,
                )
            ),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
            callbacks=[_make_completion_marker()],
        )
        return _run_trainer(trainer, folder)


def train_one_stage(base_model: str, examples: Sequence[Example], recipe: AdapterRecipe, folder: Path) -> StageReport:
    """Run the one stage: a fresh adapter learns to write and to prefer the chosen texts, against the base.

    Rows without a rejected text are written only; objections are there only where the recipe weighs them. Epochs and
    rate are those of SFT.
    """
    if finished := _read_finished(folder):
        return finished
    from functools import partial

    from datasets import Dataset
    from transformers import set_seed
    from trl import DPOConfig

    set_seed(recipe.seed)
    tokenizer = load_tokenizer(base_model)
    with silence_libraries():
        base = load_base(base_model, recipe.device, recipe.quantization)
        unpaired = build_unpaired_term(examples, recipe)
        rows = build_one_stage_rows(base, examples, recipe.batch_size, unpaired)
        trainer = make_one_stage_trainer_class(recipe.preference_loss, recipe.preference_weight, unpaired)(
            model=base,
            args=keep_to_one_gpu(
                DPOConfig(
                    **_build_arguments(recipe, folder, recipe.sft_epochs, recipe.sft_learning_rate),
                    beta=recipe.beta,
                    precompute_ref_log_probs=True,
                    remove_unused_columns=False,
                )
            ),
            data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
            peft_config=build_lora_config(recipe),
            callbacks=[_make_completion_marker()],
        )
        return _run_trainer(trainer, folder)


def build_sft_rows(examples: Sequence[Example]) -> dict[str, list[list[int]]]:
    """Build the columns of SFT's data; the loss looks at completions only."""
    return {
        "input_ids": [example.prompt + example.chosen for example in examples],
        "labels": [[_IGNORED_LABEL] * len(example.prompt) + example.chosen for example in examples],
    }


def build_preference_rows(model: Any, pairs: Sequence[Example], batch_size: int) -> dict[str, list[Any]]:
    """Build the columns of the preference stage's data: token ids, and log probabilities under the reference model."""
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [(pair.prompt, pair.rejected or []) for pair in pairs]
    return {
        "prompt_ids": [pair.prompt for pair in pairs],
        "chosen_ids": [pair.chosen for pair in pairs],
        "rejected_ids": [pair.rejected for pair in pairs],
        "ref_chosen_logps": compute_token_log_probabilities(model, chosen, batch_size).tolist(),
        "ref_rejected_logps": compute_token_log_probabilities(model, rejected, batch_size).tolist(),
    }


def locate_result(folder: Path) -> Path:
    """Return the folder of a finished stage's adapter."""
    return folder / "result"


def _read_finished(folder: Path) -> StageReport | None:
    report = locate_result(folder) / _STAGE_FILE
    return msgspec.json.decode(report.read_bytes(), type=StageReport) if report.exists() else None


def _make_preference_trainer_class() -> Any:
    from trl import DPOTrainer

    class _EncodedPreferenceTrainer(DPOTrainer):  # type: ignore[misc, no-any-unimported]
        """DPOTrainer on rows that are token ids with reference log probabilities already.

        TRL would encode the texts again in its own way (prompt and completion together) and keep the reference's values
        in a cache file outside the work folder.
        """

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return _EncodedPreferenceTrainer


def _make_completion_marker() -> Any:
    from transformers import TrainerCallback

    class _CompletionMarker(TrainerCallback):  # type: ignore[misc, no-any-unimported]
        """Marks a checkpoint when all of its files are written: a kill in the middle leaves one without the mark."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()

    return _CompletionMarker()


def build_lora_config(recipe: AdapterRecipe) -> Any:
    """Build PEFT's configuration of the adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules=recipe.lora_targets if isinstance(recipe.lora_targets, str) else list(recipe.lora_targets),
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        task_type="CAUSAL_LM",
    )


def keep_to_one_gpu(arguments: Any) -> Any:
    """Return a trainer's arguments, on a machine with several GPUs set to use the first.

    transformers would wrap the model in `DataParallel`: a batch becomes n times as large, and the learning rate no
    longer fits. To use another GPU, set `CUDA_VISIBLE_DEVICES`.
    """
    # Reading the device counts the GPUs.
    if arguments.device.type == "cuda" and arguments.n_gpu > 1:
        _log.warning("%d GPUs are visible; the training uses the first, as one batch fits the recipe.", arguments.n_gpu)
        arguments._n_gpu = 1
    return arguments


def _build_arguments(recipe: AdapterRecipe, folder: Path, epochs: float, learning_rate: float) -> dict[str, Any]:
    target, dtype = choose_placement(recipe.device)
    if "8bit" in recipe.optimizer:
        require_gpu_extra(f'optimizer="{recipe.optimizer}"', recipe.device)
    return {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler_type,
        "optim": recipe.optimizer,
        "weight_decay": recipe.weight_decay,
        "warmup_steps": recipe.warmup_ratio,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        "gradient_checkpointing": recipe.uses_checkpointing(target),
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": recipe.seed,
        "use_cpu": target == "cpu",
        "bf16": str(dtype) == "torch.bfloat16",
        "dataloader_pin_memory": target != "cpu",
        # Longer rows left the version when it was cut; none is ever cut short.
        "max_length": None,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_every_steps,
        # The newest may be half written when the process is killed; the one before it is whole.
        "save_total_limit": 2,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _run_trainer(trainer: Any, folder: Path) -> StageReport:
    from transformers import PrinterCallback

    started = time.monotonic()
    # It prints to stdout what the report holds already.
    trainer.remove_callback(PrinterCallback)
    checkpoint = _find_newest_complete(folder / "checkpoints")
    output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not math.isfinite(output.training_loss) or not _is_finite(trainer.model):
        raise TrainingError(
            f"the loss or the adapter of stage {folder.name} is not a number after {output.global_step} steps; "
            "lower the stage's learning rate in the recipe"
        )
    report = StageReport(
        steps=output.global_step,
        resumed_from_step=int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0,
        loss=output.training_loss,
        seconds=time.monotonic() - started,
        micro_batch=trainer.args.per_device_train_batch_size,
    )
    with write_folder(locate_result(folder)) as building:
        # Only "default": a trainer that was given an adapter also holds a frozen copy of it.
        trainer.model.save_pretrained(building, selected_adapters=["default"], save_embedding_layers=False)
        (building / "README.md").unlink(missing_ok=True)
        (building / _STAGE_FILE).write_bytes(msgspec.json.encode(report))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return report


def _find_newest_complete(checkpoints: Path) -> Path | None:
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for torn in (path for path in found if not (path / _COMPLETE).exists()):
        shutil.rmtree(torn)
    return next((path for path in reversed(found) if path.exists()), None)


def release_memory() -> None:
    """Free the last model's memory on the accelerator; trainers are full of reference cycles."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_finite(model: Any) -> bool:
    return all(bool(weights.isfinite().all()) for weights in model.parameters() if weights.requires_grad)
