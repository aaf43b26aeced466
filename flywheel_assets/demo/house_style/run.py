"""Runs `flywheel demo -a house_style`: SmolLM2 answers, people cut its answers to one sentence, and it learns to.

Traffic, capture and the daily steps are left out (the assistant's story shows them): the edits go straight into a
version's export, then the real trainer and the real evaluation run, on the CPU, in minutes.
"""

import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flywheel_assets.demo.house_style._smollm2 import ensure_smollm2
from flywheel_assets.evaluation.adapter import evaluate_adapter
from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest, Scored, Stratum
from flywheel_assets.lake.versions.exports import (
    ExportedRow,
    ExportSet,
    build_json_lines_writer,
    hash_manifest,
    write_export,
)
from flywheel_assets.measures.texts import normalized_edit_distances
from flywheel_assets.models.generation import generate, load_model, require_train_extra
from flywheel_assets.models.rendering import RowEncoder
from flywheel_assets.records import make_pair_id, make_stable_id
from flywheel_assets.settings import read_settings
from flywheel_assets.training.adapter import train_adapter
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import TrainingReport, TrainingRequest

_APPLICATION, _VERSION = "house_style", "dpo_gold_v1"
_DAY = "2026-03-02"
_TOPICS = (
    *("the sea", "bread", "a bicycle", "the moon", "coffee", "a library", "winter", "bees", "trains", "a guitar"),
    *("rivers", "glass", "chess", "honey", "maps", "candles", "mountains", "paper", "clocks", "gardens"),
    *("rain", "horses", "salt", "windows", "bridges", "tea", "islands", "shoes"),
)
_QUESTIONS = ("Describe {} briefly.", "Why do people like {}?", "What is {} good for?", "Tell me something about {}.")
_MAX_NEW_TOKENS = 48

RECIPE = AdapterRecipe(
    max_length=160,
    batch_size=4,
    sft_epochs=1.0,
    # Few steps: a rate between the default's and that of a model of half a million parameters.
    sft_learning_rate=1e-3,
    preference_epochs=0.0,
    device="cpu",
)


@dataclass(frozen=True)
class HouseStyleReport:
    """Holds the reports of trainer and evaluation, and how often each model breaks the rule."""

    training: TrainingReport
    evaluation: EvaluationReport
    pairs: int
    held_out: int
    broken_before: float
    """Share of the base's answers to held-out prompts with more than one sentence, or cut off."""
    broken_after: float
    examples: list[tuple[str, str]]
    """(answer of the base, answer of the challenger) to held-out prompts."""


def run(seed: int, console: Console) -> HouseStyleReport:
    """Play the story in the demo's home; the converted model stays in the models folder.

    Raises:
        SettingsError: the extra `train`, or a package of the model, is not installed.
    """
    require_train_extra("the demo")
    where = read_settings()
    base = ensure_smollm2(where.resolve_models_dir())
    root = where.resolve_home() / "house_style"
    shutil.rmtree(root, ignore_errors=True)
    console.print(f"SmolLM2 (135 M parameters) from {base}; everything is computed on the CPU, for some minutes.")
    report = play(base, root, seed=seed, pairs=48, held_out=24)
    show(report, console)
    return report


def play(base: Path, root: Path, *, seed: int, pairs: int, held_out: int) -> HouseStyleReport:
    """Let people cut answers to one sentence, train on their edits, and score base and challenger.

    Args:
        base: the model's folder.
        root: gets export, adapter and evaluation.
        seed: of the prompts' order and of the adapter.
        pairs: most edits to train on.
        held_out: most edits of other people to score on.
    """
    prompts = [question.format(topic) for topic in _TOPICS for question in _QUESTIONS]
    random.Random(seed).shuffle(prompts)
    asked = prompts[: pairs + held_out]
    answers = _answer(base, None, asked)
    rows = list(_let_people_edit(asked, answers, pairs))
    export = root / "export"
    write_export(
        export,
        version=_VERSION,
        application=_APPLICATION,
        snapshot_id=0,
        write_files=build_json_lines_writer(_VERSION, rows),
        dropped={},
        days={},
        rules={},
        code_version="demo",
    )
    recipe = RECIPE
    trained = train_adapter(
        TrainingRequest(
            application=_APPLICATION,
            version=_VERSION,
            export_dir=str(export),
            manifest_sha256=hash_manifest(export),
            base_model=str(base),
            recipe=recipe,
            output_dir=str(root / "training"),
            work_dir=str(root / "work"),
        )
    )
    adapter = root / "training" / "adapter"
    evaluated = evaluate_adapter(
        EvaluationRequest(
            export_dir=str(export),
            manifest_sha256=hash_manifest(export),
            base_model=str(base),
            sft_adapter=str(root / "training" / "sft_adapter"),
            challenger_adapter=str(adapter),
            output_dir=str(root / "evaluation"),
            work_dir=str(root / "work"),
            rendering=recipe.rendering,
            options=EvaluationOptions(generation_rows_per_batch=16, device="cpu"),
        )
    )
    tested = asked[pairs:]
    before, after = answers[pairs:], _answer(base, adapter, tested)
    return HouseStyleReport(
        trained,
        evaluated,
        sum(which is ExportSet.TRAIN for which, _ in rows),
        sum(which is ExportSet.HOLDOUT for which, _ in rows),
        _measure_broken(before),
        _measure_broken(after),
        list(zip(before, after, strict=True)),
    )


def show(report: HouseStyleReport, console: Console) -> None:
    """Print what came out, two answers before and after among it."""
    table = Table("", "base", "challenger")
    table.add_row("answers that break the rule", f"{report.broken_before:.0%}", f"{report.broken_after:.0%}")
    scores = {model: report.evaluation.scores[model].get(Stratum.PRIMARY) for model in (Scored.BASE, Scored.CHALLENGER)}
    base, challenger = scores[Scored.BASE], scores[Scored.CHALLENGER]
    if base is not None and challenger is not None:
        table.add_row("edit distance to people's texts", f"{base.ned:.3f}", f"{challenger.ned:.3f}")
        table.add_row("log p of people's texts", f"{base.log_p_chosen:.1f}", f"{challenger.log_p_chosen:.1f}")
    console.print(table)
    console.print(f"Trained on {report.pairs} edits, scored on {report.held_out} of other people.")
    for before, after in report.examples[:2]:
        console.print(f"before: {before!r}\nafter:  {after!r}", markup=False)


def _answer(base: Path, adapter: Path | None, prompts: Sequence[str]) -> list[str]:
    model, tokenizer = load_model(str(base), None if adapter is None else str(adapter), device="cpu")
    encoder = RowEncoder(tokenizer, RECIPE.rendering)
    encoded = [encoder.encode_prompt(prompt) for prompt in prompts]
    written = generate(model, tokenizer, encoded, _MAX_NEW_TOKENS, batch_size=16)
    return [generation.text.strip() for generation in written]


def _let_people_edit(
    prompts: Sequence[str], answers: Sequence[str], pairs: int
) -> Iterator[tuple[ExportSet, ExportedRow]]:
    """Cut each answer to its first sentence; one without any end of a sentence gets no reaction."""
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        wanted = _cut_to_a_sentence(answer)
        if not wanted.endswith((".", "!", "?")):
            continue
        is_trained, is_edited = number < pairs, wanted != answer
        if is_trained:
            which = ExportSet.TRAIN if is_edited else ExportSet.ACCEPTED
        else:
            which = ExportSet.HOLDOUT if is_edited else ExportSet.REGRESSION
        similarity = 1 - float(normalized_edit_distances([answer], [wanted])[0])
        yield (
            which,
            ExportedRow(
                pair_id=make_pair_id(_APPLICATION, f"prediction-{number}"),
                prompt=json.dumps([{"role": "user", "content": prompt}]),
                prompt_format="messages",
                chosen=wanted,
                rejected=answer if is_edited else None,
                subject=f"{'reader' if is_trained else 'editor'}-{number % 48}",
                similarity=similarity if is_edited else None,
                prompt_hash=make_stable_id(prompt),
                completed_date=_DAY,
                model_version="base",
            ),
        )


def _cut_to_a_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def _measure_broken(answers: Sequence[str]) -> float:
    broken = [answer != _cut_to_a_sentence(answer) or not answer.endswith((".", "!", "?")) for answer in answers]
    return sum(broken) / len(broken)
