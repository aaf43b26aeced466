"""Estimates how long a training will take before it begins: steps, tokens, floating-point operations, seconds.

The operations of one step are counted on torch's meta device, where tensors have shapes and no data: of each matrix
product, forward and backward, with recomputation under checkpointing. What a token costs grows with its sequence
(attention), so two lengths are counted and a straight line is laid through them. The output layer is counted in closed
form: two products forward and backward, and one that TRL computes a second time.

    seconds = micro-batches · pause + operations / throughput

Both constants come from a calibration: a few steps of the product's own SFT on whole batches of equal rows, of the
usual length and of half of it. That costs about four and a half steps, and loading the base twice. A training below
10¹² operations or 50 batches is not worth it. A quarter of a batch would cost less, and was off by 2.3 times where
the vocabulary is large. Or the recipe states the throughput; then the pause is 0.

Not counted: loading, the reference's log probabilities, saving, and the generations that compare the stages.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from flywheel_assets.models.generation import choose_placement, silence_libraries
from flywheel_assets.models.process_failures import is_out_of_memory
from flywheel_assets.training._stages import release_memory, train_sft
from flywheel_assets.training.examples import Example
from flywheel_assets.training.memory import build_on_meta
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import TimeEstimate

_log = logging.getLogger(__name__)

_WORTH_CALIBRATING = 1e12
"""Operations: some ten seconds on one core of a CPU, less than a tenth of one on a GPU."""
_COUNTED_LENGTHS = (64, 256)
_FEWEST_BATCHES = 50
_TIMED_STEPS = 2
_HEAD_PRODUCTS = 3
_FEWEST_TOKENS = 8


@dataclass(frozen=True)
class StageWork:
    """The rows of a stage, each by the tokens of its sequences: one, or two of a pair."""

    rows: Sequence[tuple[int, ...]]
    epochs: float


@dataclass(frozen=True)
class Throughput:
    """The speed of this machine at this model."""

    flops_per_s: float
    pause_s: float
    """Of one micro-batch, whatever its size."""
    source: str
    """"calibration" or "recipe"."""


@dataclass(frozen=True)
class Operations:
    """The floating-point operations of a sequence: `per_token` · length + `per_token_pair` · length²."""

    per_token: float
    per_token_pair: float

    def count(self, sequences: float, tokens: int) -> float:
        """Count those of sequences that are padded to `tokens`."""
        return sequences * (self.per_token * tokens + self.per_token_pair * tokens**2)


def estimate_durations(
    base_model: str,
    recipe: AdapterRecipe,
    works: Mapping[str, StageWork],
    examples: Sequence[Example],
    folder: Path,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, TimeEstimate]:
    """Estimate every stage, and say so in the log.

    Args:
        base_model: path or hub id.
        recipe: of the training.
        works: by stage.
        examples: that are trained on; the calibration takes token ids of theirs.
        folder: for the calibration; it does not exist, and is deleted.
        clock: in seconds.

    Returns:
        The estimates by stage; empty for an architecture whose steps depend on data.
    """
    device, _ = choose_placement(recipe.device)
    operations = count_operations(base_model, recipe, device)
    if operations is None:
        _log.warning("The time of the training was not estimated: its steps depend on data.")
        return {}
    plans = {stage: _plan(work, recipe, operations) for stage, work in works.items()}
    throughput: Throughput | None = None
    if recipe.throughput_tflops is not None:
        throughput = Throughput(recipe.throughput_tflops * 1e12, 0.0, "recipe")
    elif (
        sum(plan.flops for plan in plans.values()) >= _WORTH_CALIBRATING
        and sum(plan.micro_batches for plan in plans.values()) >= _FEWEST_BATCHES
    ):
        throughput = calibrate(base_model, recipe, operations, works, examples, folder, clock)
    estimates: dict[str, TimeEstimate] = {}
    for stage, plan in plans.items():
        estimates[stage] = TimeEstimate(
            steps=plan.steps,
            tokens=plan.tokens,
            flops=plan.flops,
            seconds=None
            if throughput is None
            else plan.micro_batches * throughput.pause_s + plan.flops / throughput.flops_per_s,
            flops_per_s=None if throughput is None else throughput.flops_per_s,
            source=None if throughput is None else throughput.source,
        )
        _log.info("Stage %s: %s", stage, estimates[stage].describe())
    return estimates


def count_operations(base_model: str, recipe: AdapterRecipe, device: str) -> Operations | None:
    """Count the operations of one sequence's step, forward and backward.

    Args:
        base_model: path or hub id; only its configuration is read.
        recipe: of the training.
        device: "cuda" or "cpu".

    Returns:
        None where the architecture cannot run without data (some mixtures of experts).
    """
    _, dtype = choose_placement(recipe.device)
    short, long = _COUNTED_LENGTHS
    try:
        with silence_libraries():
            model = build_on_meta(base_model, recipe, dtype, device, None)
            of_short, of_long = (_count_step(model, tokens) / tokens for tokens in (short, long))
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        _log.debug("no step of %s can be counted on the meta device", base_model, exc_info=error)
        return None
    slope = (of_long - of_short) / (long - short)
    words, hidden = model.get_base_model().get_output_embeddings().weight.shape
    return Operations(of_short - slope * short + 2 * _HEAD_PRODUCTS * words * hidden, slope)


def calibrate(
    base_model: str,
    recipe: AdapterRecipe,
    operations: Operations,
    works: Mapping[str, StageWork],
    examples: Sequence[Example],
    folder: Path,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput | None:
    """Measure the throughput and the pause between batches on a few steps of SFT; see the module's docstring.

    Returns:
        None where a batch does not fit into memory at once.
    """
    rows = recipe.batch_size
    lengths = sorted(max(row) for work in works.values() for row in work.rows)
    # Batches are padded, so the mean row is shorter than what is computed.
    usual = max(2 * _FEWEST_TOKENS, lengths[min(len(lengths) - 1, int(0.75 * len(lengths)))])
    measured: list[tuple[float, float]] = []
    try:
        for tokens in (usual, usual // 2):
            seconds = _time_steps(base_model, recipe, _make_rows(examples, rows, tokens), folder, clock)
            measured.append((operations.count(rows, tokens), seconds))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _log.warning("The time of the training was not estimated: %d rows did not fit into memory at once.", rows)
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release_memory()
    return fit_throughput(*measured)


def fit_throughput(large: tuple[float, float], small: tuple[float, float]) -> Throughput:
    """Fit throughput and pause to the (operations, seconds) of two steps.

    A pause below 0, or longer than the small step, is noise: then all of the time is operations.
    """
    (more, slow), (less, fast) = large, small
    if slow > fast:
        rate = (more - less) / (slow - fast)
        pause = slow - more / rate
        if 0 <= pause <= fast:
            return Throughput(rate, pause, "calibration")
    return Throughput((more + less) / (slow + fast), 0.0, "calibration")


@dataclass(frozen=True)
class _Plan:
    steps: int
    micro_batches: int
    tokens: int
    flops: float


def _plan(work: StageWork, recipe: AdapterRecipe, operations: Operations) -> _Plan:
    """Plan a stage as transformers does: rows in random order, each batch padded to its longest sequence."""
    rows = list(work.rows)
    Random(recipe.seed).shuffle(rows)
    tokens, flops = 0, 0.0
    batches = [rows[start : start + recipe.batch_size] for start in range(0, len(rows), recipe.batch_size)]
    for batch in batches:
        longest, sequences = max(map(max, batch)), sum(map(len, batch))
        tokens += sequences * longest
        flops += operations.count(sequences, longest)
    steps = ceil(work.epochs * ceil(len(batches) / recipe.accumulation_steps))
    passes = min(work.epochs, steps * recipe.accumulation_steps / len(batches))
    return _Plan(steps, ceil(passes * len(batches)), round(passes * tokens), passes * flops)


def _count_step(model: Any, tokens: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    # With a finished mask nothing looks at its values.
    mask = torch.zeros((1, 1, tokens, tokens), dtype=torch.bool, device="meta")
    with FlopCounterMode(display=False) as counter:
        hidden = model.get_base_model().base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        hidden.last_hidden_state.sum().backward()
    return float(counter.get_total_flops())


def _make_rows(examples: Sequence[Example], count: int, tokens: int) -> list[Example]:
    """Make rows of exactly so many tokens, with ids of the examples and their share of completion."""
    ids = [token for each in examples[:count] for token in (*each.prompt, *each.chosen)]
    answers = sum(len(each.chosen) for each in examples) / sum(len(each.prompt) + len(each.chosen) for each in examples)
    written = min(tokens - 1, max(1, round(answers * tokens)))
    whole = [ids[place % len(ids)] for place in range(tokens)]
    steps = 1 + _TIMED_STEPS
    return [
        Example(f"calibration-{number}", whole[:-written], whole[-written:], None) for number in range(count * steps)
    ]


def _time_steps(
    base_model: str, recipe: AdapterRecipe, rows: Sequence[Example], folder: Path, clock: Callable[[], float]
) -> float:
    """Return the seconds of a step on a batch of equal rows, the mean of two after the first."""
    from transformers import TrainerCallback

    device, _ = choose_placement(recipe.device)
    seconds: list[float] = []

    class _Watch(TrainerCallback):  # type: ignore[misc, no-any-unimported]
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = _read(clock, device)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(_read(clock, device) - self.began)

    size = len(rows) // (1 + _TIMED_STEPS)
    short = replace(recipe, sft_epochs=1.0, batch_size=size, accumulation_steps=1)
    shutil.rmtree(folder, ignore_errors=True)
    train_sft(base_model, rows, short, folder, callbacks=[_Watch()])
    # The first step allocates what the others use again.
    return fmean(seconds[1:])


def _read(clock: Callable[[], float], device: str) -> float:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return clock()
