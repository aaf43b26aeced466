"""The estimate of a training's time against what it took, on a CPU.

Claim: actual CPU seconds over estimated ones, per stage, on four shapes of random Llamas; see `docs/training.md`. The
calibration runs SFT only, on rows of equal length: preference stages and padding are not fitted to.
Shape `held_out` was run after the last change of the estimate.
Data: random weights; rows of random token ids with lognormal lengths.
Clock: CPU seconds of the process, as other work shares the machine.
Command: python -m benchmarks.training_time [SHAPE …]
"""

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from flywheel_assets.models.generation import use_cpu_threads
from flywheel_assets.training import _stages as stages
from flywheel_assets.training import duration
from flywheel_assets.training.duration import StageWork, estimate_durations
from flywheel_assets.training.examples import Example
from flywheel_assets.training.recipes import AdapterRecipe


@dataclass(frozen=True)
class Shape:
    """A model and its rows."""

    hidden: int
    layers: int
    words: int
    rows: int
    mean_tokens: int
    batch: int
    accumulation: int = 1
    checkpointing: bool | None = None


SHAPES = {
    "small": Shape(192, 4, 4_000, rows=32, mean_tokens=120, batch=8),
    "large_head": Shape(128, 2, 32_000, rows=32, mean_tokens=100, batch=8),
    "deep": Shape(96, 12, 1_000, rows=32, mean_tokens=200, batch=8, checkpointing=True),
    "held_out": Shape(160, 8, 4_000, rows=36, mean_tokens=140, batch=4, accumulation=3),
}


def main() -> None:
    """Estimate and train each shape, and print the table."""
    use_cpu_threads(1)
    # These shapes are small, so that the table takes minutes.
    duration._WORTH_CALIBRATING = duration._FEWEST_BATCHES = 0
    # Reports tell wall time, which other work on the machine makes longer.
    stages.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    print("shape        stage        steps    TFLOP  estimate s  actual s  actual / estimate", flush=True)
    for name in sys.argv[1:] or SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            _measure(name, SHAPES[name], Path(folder))


def _measure(name: str, shape: Shape, folder: Path) -> None:
    base, examples = str(_save_base(folder / "base", shape)), _make_examples(shape)
    recipe = AdapterRecipe(
        batch_size=shape.batch,
        accumulation_steps=shape.accumulation,
        gradient_checkpointing=shape.checkpointing,
        sft_epochs=1.0,
        device="cpu",
    )
    pairs = [(len(each.prompt) + len(each.chosen), len(each.prompt) + len(each.rejected or ())) for each in examples]
    single = StageWork([(chosen,) for chosen, _ in pairs], 1.0)
    works = {"sft": single, "preference": StageWork(pairs, 1.0), "one_stage": StageWork(pairs, 1.0)}
    began = time.process_time()
    estimates = estimate_durations(base, recipe, works, examples, folder / "calibration", time.process_time)
    calibration_s = time.process_time() - began

    def show(stage: str, report: stages.StageReport) -> None:
        found = estimates[stage]
        assert found.steps == report.steps, (found, report)
        seconds = found.seconds or float("nan")
        print(
            f"{name:12} {stage:11} {report.steps:6} {found.flops / 1e12:8.2f} {seconds:11.1f} {report.seconds:9.1f} "
            f"{report.seconds / seconds:18.2f}",
            flush=True,
        )

    show("sft", stages.train_sft(base, examples, recipe, folder / "sft"))
    adapter = stages.locate_result(folder / "sft")
    show("preference", stages.train_preference(base, adapter, examples, recipe, folder / "preference"))
    show("one_stage", stages.train_one_stage(base, examples, recipe, folder / "one_stage"))
    rate = (estimates["sft"].flops_per_s or 0.0) / 1e9
    print(f"{name:12} calibration {calibration_s:.1f} s CPU with loading; {rate:.1f} GFLOP/s", flush=True)


def _save_base(folder: Path, shape: Shape) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from flywheel_assets_tests.training.small_world import make_tokenizer

    make_tokenizer(["one two three"]).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        intermediate_size=4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _make_examples(shape: Shape) -> list[Example]:
    rng = random.Random(0)
    examples: list[Example] = []
    for row in range(shape.rows):
        tokens = min(1024, max(16, round(shape.mean_tokens * rng.lognormvariate(-0.125, 0.5))))
        prompt, chosen, rejected = (
            [rng.randrange(3, shape.words) for _ in range(max(4, count))]
            for count in (tokens * 2 // 3, tokens // 3, round(tokens / 3 * rng.uniform(0.7, 1.3)))
        )
        examples.append(Example(str(row), prompt, chosen, rejected))
    return examples


if __name__ == "__main__":
    main()
