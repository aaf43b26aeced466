"""What the preference part of a training adds: SFT, two stages and one stage, measured by the demo world's truth.

Claim: with one stage (SFT and preferences in the same batches, against the frozen base) an assistant that samples its
answers writes what people corrected less often than after SFT with as much computing, and forgets no more.
Data: the demo's world. For each base (pretrained with another seed) and seed, 2,240 requests of its first week, whose
answers simulated people correct or accept; 20 % of people are held out. All pairs (some 470), and 60 of them. The edit
gate is replaced by its outcome: vandals' remarks pass, their other damage does not; tiny and total changes neither.
Arms: the product's trainer in the demo's recipe; "sft matched" has twice the epochs of "sft", at least the computing of
the one stage, and "twice" as many steps as that. Adapters are not chosen between: each arm is what it is.
Measured on names that no traffic has: share of answers without the right call, and of those that say the old answer (as
evaluation counts it, `measures.texts.find_corrected`), sampled at .7 and 1 on phrasings that no traffic has; exact
answers, sampled and greedy; greedy exact neutral answers (forgetting); on held-out people: NED of corrected answers and
of accepted ones, and the share of the latter that is lost (less likely than for the base by more than 1 nat and .1 nats
a token). CPU seconds are of the training alone.
A finished arm is a line of the output file, and is not computed again.
Command: python -m benchmarks.preference_recipes --models FOLDER --out results.jsonl [--seeds 5] [--bases 5 6 7]
[--pairs 0 60] [--arms ...]; with --table only the table of a file.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # noqa: TID253  (a benchmark is started on its own)

from flywheel_assets.demo.assistant.base_model import MAX_NEW_TOKENS, BaseConfig, ensure_base_model
from flywheel_assets.demo.assistant.people import People, Person, Reaction, Vandalism
from flywheel_assets.demo.assistant.run import DEMO_RECIPE
from flywheel_assets.demo.assistant.world import Request, Workload, World
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import find_corrected, normalized_edit_distances
from flywheel_assets.models.generation import (
    compute_token_log_probabilities,
    generate,
    load_model,
    use_cpu_threads,
)
from flywheel_assets.models.rendering import RowEncoder
from flywheel_assets.records import Signal, make_pair_id, make_stable_id
from flywheel_assets.training import _stages as stages
from flywheel_assets.training.examples import Example, encode
from flywheel_assets.training.recipes import AdapterRecipe

IDIOMS = ("read", "write", "secret", "metric", "bus", "flag")
TEMPERATURES = (0.7, 1.0)
_REQUESTS, _HOLDOUT, _ACCEPTED_RATIO = 2_240, 0.20, 0.4
_PER_IDIOM, _SAMPLES = 40, 2

Train = Callable[[str, "Traffic", AdapterRecipe, Path], None]


@dataclass(frozen=True)
class Traffic:
    """The rows of one week: pairs and accepted outputs to train on, and those of held-out people."""

    pairs: list[Example]
    accepted: list[Example]
    held_pairs: list[ExportedRow]
    held_accepted: list[ExportedRow]


def _train_sft(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    stages.train_sft(base, [*traffic.pairs, *traffic.accepted], recipe, folder)


def _train_longer(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    _train_sft(base, traffic, replace(recipe, sft_epochs=2 * recipe.sft_epochs), folder)


def _train_two(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    _train_sft(base, traffic, recipe, folder / "sft")
    stages.train_preference(base, stages.locate_result(folder / "sft"), traffic.pairs, recipe, folder)


def _train_one(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    stages.train_one_stage(base, [*traffic.pairs, *traffic.accepted], recipe, folder)


def _train_one_by_dpo(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    _train_one(base, traffic, replace(recipe, preference_loss="sigmoid"), folder)


def _train_one_longer(base: str, traffic: Traffic, recipe: AdapterRecipe, folder: Path) -> None:
    _train_one(base, traffic, replace(recipe, sft_epochs=2 * recipe.sft_epochs), folder)


ARMS: Mapping[str, Train] = {
    "sft": _train_sft,
    "sft matched": _train_longer,
    "two stages": _train_two,
    "one stage, APO-zero": _train_one,
    "one stage, DPO": _train_one_by_dpo,
    "one stage, APO-zero, twice": _train_one_longer,
}


def main() -> None:
    """Run what is missing in the output file, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where pretrained bases are kept")
    parser.add_argument("--out", type=Path, default=Path("preference_recipes.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--bases", type=int, nargs="+", default=[5, 6, 7])
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 60], help="0: all")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", action="store_true", help="print the table of --out and end")
    asked = parser.parse_args()
    if not asked.table:
        use_cpu_threads(1)
        for seed in asked.seeds:
            for base in asked.bases:
                for pairs in asked.pairs:
                    _run_cell(asked, base, seed, pairs)
    print_table(read_cells(asked.out))


def _run_cell(asked: argparse.Namespace, base_seed: int, seed: int, most_pairs: int) -> None:
    done = {(each["base"], each["seed"], each["pairs"], each["arm"]) for each in read_cells(asked.out)}
    missing = [arm for arm in asked.arms if (base_seed, seed, most_pairs, arm) not in done]
    if not missing:
        return
    world = World()
    base = str(ensure_base_model(world, BaseConfig(seed=base_seed), asked.models).path)
    traffic = collect_traffic(base, answer_requests(base, world, seed), seed, most_pairs)
    recipe = replace(DEMO_RECIPE, seed=seed)
    for arm in missing:
        folder = Path(tempfile.mkdtemp(prefix="recipes_"))
        try:
            started = time.process_time()
            ARMS[arm](base, traffic, recipe, folder)
            trained = time.process_time() - started
            found = measure(base, stages.locate_result(folder), world, traffic, seed)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        cell = {"base": base_seed, "seed": seed, "pairs": most_pairs, "arm": arm, "rows": len(traffic.pairs)}
        cell |= {"accepted": len(traffic.accepted), "cpu_seconds": round(trained, 1)}
        with asked.out.open("a") as file:
            file.write(json.dumps({**cell, **found, "whole_cpu_seconds": round(time.process_time() - started, 1)}))
            file.write("\n")


@dataclass(frozen=True)
class Answered:
    """One answer of the base model with what a person did about it; None: nothing."""

    number: int
    request: Request
    output: str
    person: Person
    reaction: Reaction | None

    @property
    def corrected(self) -> str | None:
        """The person's text, where the edit gate would let it pass."""
        reaction = self.reaction
        if reaction is None or reaction.signal is not Signal.EDIT or reaction.final_text is None:
            return None
        (distance,) = normalized_edit_distances([reaction.final_text], [self.output])
        passes = reaction.vandalism in (None, Vandalism.GRAFFITI) and 0.05 <= distance <= 0.9
        return reaction.final_text if passes else None

    @property
    def is_accepted(self) -> bool:
        """Whether the person took the answer as it is."""
        reaction = self.reaction
        return reaction is not None and (reaction.signal in (Signal.ACCEPT, Signal.COPY) or reaction.value == 1.0)


def answer_requests(base: str, world: World, seed: int) -> list[Answered]:
    """Let the base model answer a week's requests, and people react."""
    rng, people = random.Random(f"recipes {seed}"), People()
    members = people.list_members()
    workload = Workload(dict.fromkeys(IDIOMS, 1.0))
    asked = [world.ask(rng, workload) for _ in range(_REQUESTS)]
    model, tokenizer = load_model(base, None, device="cpu")
    encoder = RowEncoder(tokenizer, DEMO_RECIPE.rendering)
    outputs = write(model, encoder, [each.prompt for each in asked])
    answered: list[Answered] = []
    for number, (request, output) in enumerate(zip(asked, outputs, strict=True)):
        person = rng.choice(members)
        answered.append(Answered(number, request, output, person, people.react(rng, person, request, output)))
    return answered


def collect_traffic(base: str, answered: Sequence[Answered], seed: int, most_pairs: int) -> Traffic:
    """Make a version's rows of what people said; of too many pairs the first by hash."""
    _, tokenizer = load_model(base, None, device="cpu")
    encoder = RowEncoder(tokenizer, DEMO_RECIPE.rendering)
    pairs: list[ExportedRow] = []
    accepted: list[ExportedRow] = []
    for each in answered:
        if (text := each.corrected) is not None:
            pairs.append(make_row(each.number, each.request, text, each.output, each.person.user_id))
        elif each.is_accepted:
            accepted.append(make_row(each.number, each.request, each.output, None, each.person.user_id))
    learnt = [row for row in pairs if not is_held_out(row.subject)]
    kept = [row for row in accepted if not is_held_out(row.subject)]
    if most_pairs:
        learnt = sorted(learnt, key=lambda row: make_stable_id("few", seed, row.pair_id))[:most_pairs]
    kept = sorted(kept, key=lambda row: make_stable_id("accepted", row.pair_id))[: round(_ACCEPTED_RATIO * len(learnt))]
    known = {row.prompt for row in [*learnt, *kept]}
    return Traffic(
        encode(encoder, learnt),
        encode(encoder, kept),
        [row for row in pairs if is_held_out(row.subject) and row.prompt not in known],
        [row for row in accepted if is_held_out(row.subject) and row.prompt not in known],
    )


def make_row(number: int, request: Request, chosen: str, rejected: str | None, subject: str) -> ExportedRow:
    """Make one line of an export."""
    return ExportedRow(
        pair_id=make_pair_id("assistant", f"prediction-{number}"),
        prompt=request.prompt,
        prompt_format="text",
        chosen=chosen,
        rejected=rejected,
        subject=subject,
        similarity=None,
        prompt_hash=make_stable_id(request.prompt),
        completed_date="2026-03-02",
        model_version="base",
    )


def is_held_out(subject: str) -> bool:
    """Whether a person is never trained on."""
    return int(make_stable_id("holdout", subject)[:8], 16) / 2**32 < _HOLDOUT


def write(model: Any, encoder: RowEncoder, prompts: Sequence[str], **sampling: Any) -> list[str]:
    """Write an answer to each prompt."""
    encoded = [encoder.encode_prompt(prompt) for prompt in prompts]
    return [each.text for each in generate(model, encoder.tokenizer, encoded, MAX_NEW_TOKENS, 128, **sampling)]


def measure(base: str, adapter: Path, world: World, traffic: Traffic, seed: int) -> dict[str, float]:
    """Measure an adapter by the world's truth, and on the held-out people."""
    model, tokenizer = load_model(base, str(adapter), device="cpu")
    encoder = RowEncoder(tokenizer, DEMO_RECIPE.rendering)
    asked = world.draw_measurement(_PER_IDIOM, seed)
    phrasings = [each for each in asked.unseen_phrasings if each.idiom.name in IDIOMS]
    found: dict[str, float] = {}
    for temperature in TEMPERATURES:
        repeated = phrasings * _SAMPLES
        texts = write(model, encoder, [each.prompt for each in repeated], temperature=temperature, seed=seed)
        found[f"wrong_at_{temperature}"] = _average(each.lacks_right_call(text) for each, text in _zip(repeated, texts))
        found[f"old_at_{temperature}"] = _average(
            _says_the_old_answer(each, text) for each, text in _zip(repeated, texts)
        )
        found[f"exact_at_{temperature}"] = _average(each.is_exact(text) for each, text in _zip(repeated, texts))
    for name, requests in (("phrasings", phrasings), ("neutral", asked.neutral)):
        texts = write(model, encoder, [each.prompt for each in requests])
        found[f"exact_{name}"] = _average(each.is_exact(text) for each, text in _zip(requests, texts))
    for name, rows in (("ned", traffic.held_pairs), ("accepted_ned", traffic.held_accepted)):
        texts = write(model, encoder, [row.prompt for row in rows])
        found[name] = float(normalized_edit_distances(texts, [row.chosen for row in rows]).mean())
    encoded = [(each.prompt, each.chosen) for each in encode(encoder, traffic.held_accepted)]
    change = compute_token_log_probabilities(model, encoded)
    with model.disable_adapter():
        change = change - compute_token_log_probabilities(model, encoded)
    limits = np.maximum(1.0, 0.1 * np.array([len(chosen) for _, chosen in encoded]))
    found["accepted_lost"] = float((change < -limits).mean())
    return found


def _says_the_old_answer(request: Request, text: str) -> bool:
    corrected = find_corrected(request.wrong or "", request.right)
    return corrected is not None and corrected.is_repeated_in(text)


def _zip(requests: Sequence[Request], texts: Sequence[str]) -> Iterator[tuple[Request, str]]:
    return zip(requests, texts, strict=True)


def _average(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Read the finished arms of an output file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


_PEER = "sft matched"
COLUMNS = {
    "wrong_at_0.7": "wrong T=.7",
    "wrong_at_1.0": "wrong T=1",
    "old_at_0.7": "old answer T=.7",
    "old_at_1.0": "old answer T=1",
    "exact_at_0.7": "exact T=.7",
    "exact_phrasings": "exact",
    "exact_neutral": "neutral exact",
    "ned": "NED",
    "accepted_ned": "accepted NED",
    "accepted_lost": "accepted lost",
    "cpu_seconds": "CPU s",
}


def print_table(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of each number of pairs."""
    for pairs in sorted({each["pairs"] for each in cells}):
        of_size = [each for each in cells if each["pairs"] == pairs]
        print(f"\n{pairs or 'all'} pairs ({np.mean([each['rows'] for each in of_size]):.0f} on average)")
        print_arms(of_size, list(ARMS), _PEER)


def print_arms(cells: Sequence[Mapping[str, Any]], arms: Sequence[str], peer: str) -> None:
    """Print means, and their differences from one arm on the same cells.

    Intervals are 95 %, Student's t over seeds (each the mean over its bases). Arms may have different cells: a run that
    was interrupted is shown as it is, so only the differences compare like with like.
    """
    _print_rows({arm: [each for each in cells if each["arm"] == arm] for arm in arms})
    print(f"\nless {peer}, on the same cells")
    peers = {(each["base"], each["seed"]): each for each in cells if each["arm"] == peer}
    differences: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in arms if arm != peer}
    for each in cells:
        other = peers.get((each["base"], each["seed"]))
        if other is not None and each["arm"] != peer:
            shared = [name for name in COLUMNS if name in each and name in other]
            changes = {name: each[name] - other[name] for name in shared}
            differences[each["arm"]].append({**changes, "seed": each["seed"], "base": each["base"]})
    _print_rows(differences)


def _print_rows(by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    print("| arm | cells | seeds | bases | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (4 + len(COLUMNS)) + "|")
    for arm, cells in by_arm.items():
        if cells:
            counts = (len(cells), len({each["seed"] for each in cells}), len({each["base"] for each in cells}))
            shown = " | ".join(_describe(cells, name) for name in COLUMNS)
            print(f"| {arm} | {' | '.join(map(str, counts))} | {shown} |")


def _describe(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    # Results of before the old answer was counted have no such number.
    cells = [each for each in cells if name in each]
    if not cells:
        return ""
    by_seed = [
        float(np.mean([each[name] for each in cells if each["seed"] == seed]))
        for seed in sorted({each["seed"] for each in cells})
    ]
    mean = float(np.mean(by_seed))
    if name == "cpu_seconds":
        return f"{mean:.0f}"
    if len(by_seed) < 2:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.975, len(by_seed) - 1) * np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)))
    return f"{mean:.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
