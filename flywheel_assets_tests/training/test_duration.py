"""The time of a training: steps, tokens and operations are counted, seconds follow from a few steps of this machine."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import SettingsError
from flywheel_assets.training import _stages as stages
from flywheel_assets.training import duration
from flywheel_assets.training.duration import (
    Operations,
    StageWork,
    calibrate,
    count_operations,
    estimate_durations,
    fit_throughput,
)
from flywheel_assets.training.examples import Example
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import RowCounts, StageReport, TimeEstimate, TrainingReport
from flywheel_assets_tests.training.small_world import RECIPE, blank_base
from flywheel_assets_tests.training.test_memory import too_small_for

EXAMPLES = [Example(f"pair-{n}", [10 + n, 11] * 4, [20 + n, 21, 2], [30 + n, 2]) for n in range(10)]
WORKS = {"sft": StageWork([(11,)] * 10, 2.0)}


def estimate(recipe: AdapterRecipe, works: Any, folder: Path, clock: Callable[[], float] = lambda: 0.0) -> Any:
    return estimate_durations(str(blank_base()), recipe, works, EXAMPLES, folder / "calibration", clock)


def test_operations_are_those_of_the_architecture() -> None:
    found = count_operations(str(blank_base()), RECIPE, "cpu")
    assert found is not None
    # Two layers: four 64 × 64 matrices of attention and three of 64 × 128, frozen, with adapters of rank 16.
    frozen = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    adapter = 2 * 16 * (4 * (64 + 64) + 3 * (64 + 128))
    head = 400 * 64
    assert found.per_token == pytest.approx(4 * frozen + 6 * adapter + 6 * head, rel=0.05)
    # Scores and values, forward and twice backward, of each layer.
    assert found.per_token_pair == pytest.approx(12 * 2 * 64)
    assert found.count(3, 50) == pytest.approx(3 * (found.per_token * 50 + found.per_token_pair * 2500))


def test_checkpointing_computes_the_layers_once_more() -> None:
    without, with_it = (
        count_operations(str(blank_base()), replace(RECIPE, gradient_checkpointing=each), "cpu")
        for each in (False, True)
    )
    assert without is not None
    assert with_it is not None
    head = 6 * 400 * 64
    assert 1.25 < (with_it.per_token - head) / (without.per_token - head) < 1.55


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs"), [(10, 4, 2, 3.0), (7, 2, 3, 1.5), (3, 16, 1, 2.0)]
)
def test_steps_are_those_that_the_trainer_makes(
    tmp_path: Path, rows: int, batch: int, accumulation: int, epochs: float
) -> None:
    recipe = replace(RECIPE, batch_size=batch, accumulation_steps=accumulation, sft_epochs=epochs)
    report = stages.train_sft(str(blank_base()), EXAMPLES[:rows], recipe, tmp_path / "sft")
    found = estimate(recipe, {"sft": StageWork([(11,)] * rows, epochs)}, tmp_path)["sft"]
    assert found.steps == report.steps


def test_a_batch_is_padded_to_its_longest_sequence_and_a_pair_is_two(tmp_path: Path) -> None:
    recipe = replace(RECIPE, batch_size=2)
    found = estimate(recipe, {"preference": StageWork([(5, 9), (4,), (6, 6), (3, 3)], 1.0)}, tmp_path)["preference"]
    order = [(5, 9), (4,), (6, 6), (3, 3)]
    duration.Random(recipe.seed).shuffle(order)
    batches = [order[:2], order[2:]]
    assert found.tokens == sum(sum(map(len, batch)) * max(map(max, batch)) for batch in batches)


def test_two_steps_give_throughput_and_pause() -> None:
    found = fit_throughput((2e9, 0.1 + 2.0), (1e9, 0.1 + 1.0))
    assert (found.flops_per_s, found.pause_s) == (pytest.approx(1e9), pytest.approx(0.1))


@pytest.mark.parametrize("seconds", [(1.0, 1.2), (1.0, 1.0), (3.0, 1.0)])
def test_where_the_pause_is_noise_all_of_the_time_is_operations(seconds: tuple[float, float]) -> None:
    found = fit_throughput((2e9, seconds[0]), (1e9, seconds[1]))
    assert (found.flops_per_s, found.pause_s) == (pytest.approx(3e9 / sum(seconds)), 0.0)


@pytest.mark.long
def test_a_calibration_runs_real_steps_and_leaves_nothing(tmp_path: Path) -> None:
    """Every reading of the clock is a second later, so each step took one."""
    folder = tmp_path / "calibration"
    found = calibrate(
        str(blank_base()),
        replace(RECIPE, batch_size=2),
        Operations(1e6, 0.0),
        WORKS,
        EXAMPLES,
        folder,
        count().__next__,
    )
    # Whole batches, of 16 and of 8 tokens.
    assert found == fit_throughput((2 * 16 * 1e6, 1.0), (2 * 8 * 1e6, 1.0))
    assert not folder.exists()


def test_a_stated_throughput_needs_no_calibration(tmp_path: Path) -> None:
    recipe = replace(RECIPE, throughput_tflops=0.5)
    found = estimate(recipe, WORKS, tmp_path, _must_not_read)["sft"]
    assert found.source == "recipe"
    assert found.seconds == pytest.approx(found.flops / 0.5e12)
    assert "at 0.5 TFLOP/s (recipe)" in found.describe()
    with pytest.raises(SettingsError, match="throughput_tflops"):
        AdapterRecipe(throughput_tflops=0.0)


def test_a_small_training_is_counted_and_not_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimate(RECIPE, WORKS, tmp_path, _must_not_read)["sft"]
    assert (found.seconds, found.steps, found.tokens) == (None, 2, 220)
    assert found.describe().endswith("; the time is not estimated.")
    # Nor is one of few batches, however large: it would be half over when the calibration is.
    monkeypatch.setattr(duration, "_WORTH_CALIBRATING", 1.0)
    assert estimate(RECIPE, WORKS, tmp_path, _must_not_read)["sft"].seconds is None


@pytest.mark.long
def test_a_larger_one_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "_WORTH_CALIBRATING", 1.0)
    monkeypatch.setattr(duration, "_FEWEST_BATCHES", 1)
    found = estimate(RECIPE, WORKS, tmp_path, count().__next__)["sft"]
    assert found.source == "calibration"
    assert found.seconds == pytest.approx(found.flops / found.flops_per_s)


def test_out_of_memory_while_calibrating_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duration, "_WORTH_CALIBRATING", 1.0)
    monkeypatch.setattr(duration, "_FEWEST_BATCHES", 1)
    too_small_for(monkeypatch, 0)
    assert estimate(RECIPE, WORKS, tmp_path)["sft"].seconds is None
    assert "did not fit into memory at once" in caplog.text


def test_an_architecture_that_cannot_be_counted_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> float:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(duration, "_count_step", refuse)
    assert estimate(RECIPE, WORKS, tmp_path) == {}
    assert "was not estimated" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "said"), [(95.0, "95 seconds"), (150.0, "2.5 minutes"), (9000.0, "2.5 hours"), (4e5, "4.6 days")]
)
def test_times_are_said_in_fitting_units(seconds: float, said: str) -> None:
    found = TimeEstimate(
        steps=1200, tokens=3_000_000, flops=2.5e15, seconds=seconds, flops_per_s=2e13, source="calibration"
    )
    assert found.describe().startswith(
        f"1,200 steps over 3,000,000 tokens (2.5e+03 TFLOP) are estimated to take {said}"
    )


def reported(times: dict[str, TimeEstimate], resumed_from_step: int) -> Any:
    report = StageReport(steps=4, resumed_from_step=resumed_from_step, loss=1.0, seconds=90.0)
    counts = RowCounts(
        pairs_exported=1, accepted_exported=0, pairs_used=1, accepted_used=0, pairs_kept_back=0, accepted_kept_back=0
    )
    texts = ("application", "version", "request_sha256", "manifest_sha256", "base_model", "base_weights_sha256")
    more = ("chosen_stage", "why", "adapter_sha256", "sft_adapter_sha256", "device")
    return TrainingReport(
        **dict.fromkeys((*texts, *more), ""),
        recipe=RECIPE,
        rows=counts,
        stages={"sft": report},
        selection={},
        delta_rows=0,
        mean_delta_chosen=0.0,
        mean_delta_rejected=0.0,
        share_chosen_fallen=0.0,
        seconds=200.0,
        libraries={},
        time=times,
    )


def test_the_report_holds_the_truth_against_the_estimate() -> None:
    estimated = TimeEstimate(steps=4, tokens=1, flops=1.0, seconds=60.0, flops_per_s=1.0, source="calibration")
    assert reported({"sft": estimated}, 0).compute_time_ratios() == {"sft": 1.5}
    assert (
        reported({"sft": estimated}, 0).describe_time() == "sft 90 seconds (1.50 of the estimate); 3.3 minutes in all."
    )
    # The seconds of a stage that went on from a checkpoint are those of its last process.
    assert reported({"sft": estimated}, 2).compute_time_ratios() == {}
    unknown = msgspec.structs.replace(estimated, seconds=None)
    assert reported({"sft": unknown}, 0).describe_time() == "sft 90 seconds; 3.3 minutes in all."


def _must_not_read() -> float:
    raise AssertionError("nothing is timed")
