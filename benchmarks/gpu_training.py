"""Training on a GPU: its share of the card's arithmetic, its peak memory against the estimate, and TRL's defaults.

Claim: not made yet; no GPU was available. Goals: a model FLOPs utilisation of 40 % or more on one H100 or H200, peaks
within 15 % of the estimate, 1.5 times the tokens a second of TRL's defaults in the same run.
Data: random weights of Llama's shape with 1 and 8 billion parameters; rows of random token ids, half of them prompt.
Peers: `SFTTrainer` and `DPOTrainer` with TRL's own defaults (their batch size, number format and checkpointing) and
the same adapter.
FLOPs of a step: 4 for each frozen weight and token (forward, and the gradient of the inputs), 6 for each trained one
(PaLM, Chowdhery et al. 2022, appendix B, less the frozen weights' gradients), and attention's 8 × layers × hidden ×
tokens for each token. What checkpointing computes again counts as lost.
Command: python -m benchmarks.gpu_training [--size 1b|8b|tiny] [--tokens 1024] [--rows 64] [--peak-tflops 989]
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_assets.models.generation import choose_placement
from flywheel_assets.training import _stages as stages
from flywheel_assets.training.examples import Example
from flywheel_assets.training.memory import StageShape, estimate_memory, fit_into_memory
from flywheel_assets.training.recipes import AdapterRecipe

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
_WORDS = {"tiny": 400, "1b": 128_256, "8b": 128_256}


@dataclass(frozen=True)
class Measured:
    """One training: how fast it was, and the most memory that it held."""

    tokens_per_second: float
    peak_bytes: int
    micro_batch: int


def main() -> None:
    """Measure both stages of a size, ours and TRL's, and print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of the card in bf16, dense; H100 SXM and H200"
    )
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: torch sees no CUDA device, so nothing was measured")
        if asked.size != "tiny":
            return
    with tempfile.TemporaryDirectory() as folder:
        _measure_size(Path(folder), asked)


def _measure_size(folder: Path, asked: argparse.Namespace) -> None:
    base = folder / "base"
    weights = _save_base(base, asked.size)
    device, _ = choose_placement("auto")
    recipe = AdapterRecipe(
        max_length=asked.tokens, sft_epochs=1.0, preference_epochs=1.0, checkpoint_every_steps=10_000
    )
    examples = _make_examples(asked.rows, asked.tokens, _WORDS[asked.size])
    print(f"{asked.size}, {weights / 1e9:.2f} B weights, {_name_card()}")
    print("stage       who   tokens/s   MFU    peak GiB  estimate GiB  micro-batch")
    shape = SHAPES[asked.size]
    attention = 8 * shape["num_hidden_layers"] * shape["hidden_size"] * asked.tokens
    for stage, sequences in (("sft", 1), ("preference", 2)):
        estimate = estimate_memory(str(base), recipe, StageShape(asked.rows, sequences, asked.tokens), device)
        ours = _time(lambda each=stage: _train(each, base, examples, recipe, folder / each), sequences, asked)
        theirs = _time(lambda each=stage: _train_by_trl(each, base, examples, recipe, folder), sequences, asked)
        for who, found in (("ours", ours), ("TRL", theirs)):
            share = found.tokens_per_second * (4 * weights + attention) / (asked.peak_tflops * 1e12)
            estimated = f"{estimate.total_bytes / 2**30:12.2f}" if estimate and who == "ours" else " " * 12
            print(
                f"{stage:11} {who:5} {found.tokens_per_second:8.0f} {share:6.1%} {found.peak_bytes / 2**30:9.2f}"
                f"  {estimated}  {found.micro_batch:11}"
            )
        print(f"{stage:11} ratio {ours.tokens_per_second / theirs.tokens_per_second:8.2f}")


def _save_base(folder: Path, size: str) -> int:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from flywheel_assets_tests.training.small_world import make_tokenizer

    make_tokenizer(["one two three"]).save_pretrained(folder)
    words = {"vocab_size": _WORDS[size], "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    heads = {"num_key_value_heads": max(4, SHAPES[size]["num_attention_heads"] // 4)}
    device, dtype = choose_placement("auto")
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[size], **heads, **words)).to(dtype)
    model.save_pretrained(folder)
    weights = sum(each.numel() for each in model.parameters())
    del model
    stages.release_memory()
    return weights


def _make_examples(rows: int, tokens: int, words: int) -> list[Example]:
    rng = random.Random(0)
    half = tokens // 2

    def draw(count: int) -> list[int]:
        return [rng.randrange(3, words) for _ in range(count)]

    return [Example(str(row), draw(half), draw(tokens - half), draw(tokens - half)) for row in range(rows)]


def _train(stage: str, base: Path, examples: list[Example], recipe: AdapterRecipe, folder: Path) -> tuple[float, int]:
    def run(fitting: AdapterRecipe) -> stages.StageReport:
        if stage == "sft":
            return stages.train_sft(str(base), examples, fitting, folder)
        sft = stages.locate_result(folder.parent / "sft")
        return stages.train_preference(str(base), sft, examples, fitting, folder)

    report = fit_into_memory(recipe, run)
    return report.seconds, report.micro_batch or recipe.batch_size


def _train_by_trl(
    stage: str, base: Path, examples: list[Example], recipe: AdapterRecipe, folder: Path
) -> tuple[float, int]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from flywheel_assets.models.generation import load_base, silence_libraries
    from flywheel_assets.models.rendering import load_tokenizer

    kept = {"output_dir": str(folder / "trl"), "num_train_epochs": 1, "report_to": "none", "save_strategy": "no"}
    kept |= {"disable_tqdm": True, "use_cpu": choose_placement("auto")[0] == "cpu", "max_length": None}
    with silence_libraries():
        given: dict[str, Any] = {
            "model": load_base(str(base), "auto"),
            "processing_class": load_tokenizer(str(base)),
            "peft_config": stages.build_lora_config(recipe),
        }
        if stage == "sft":
            rows = Dataset.from_dict(stages.build_sft_rows(examples))
            arguments = SFTConfig(**kept, dataset_kwargs={"skip_prepare_dataset": True})
            trainer: Any = SFTTrainer(**given, train_dataset=rows, args=arguments)
        else:
            ids = {"prompt_ids": "prompt", "chosen_ids": "chosen", "rejected_ids": "rejected"}
            rows = Dataset.from_dict({name: [getattr(each, key) for each in examples] for name, key in ids.items()})
            trainer = _encoded(DPOTrainer)(**given, train_dataset=rows, args=DPOConfig(**kept))
        started = time.monotonic()
        trainer.train()
    return time.monotonic() - started, trainer.args.per_device_train_batch_size


def _encoded(trainer: Any) -> Any:
    """TRL's trainer on rows that are token ids already; the reference's values are computed in every step."""
    return type("Encoded", (trainer,), {"_prepare_dataset": lambda self, dataset, *_, **__: dataset})


def _time(train: Callable[[], tuple[float, int]], sequences: int, asked: argparse.Namespace) -> Measured:
    import torch

    stages.release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, micro_batch = train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Measured(asked.rows * sequences * asked.tokens / seconds, peak, micro_batch)


def _name_card() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, to try the program only"


if __name__ == "__main__":
    main()
