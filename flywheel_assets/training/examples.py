"""Turns the rows of an export into token ids, and counts every row that is left out or cut. Needs no model."""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.generation import encode_completion, encode_prompt, parse_prompt
from flywheel_assets.training.recipes import AdapterRecipe


@dataclass(frozen=True)
class Example:
    """One row as token ids, cut to the recipe's length; `rejected` is None for an accepted output."""

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int] | None


@dataclass(frozen=True)
class Encoded:
    """Examples in the order of their rows, and what `max_length` cost."""

    examples: list[Example]
    dropped: int
    """Rows whose prompt leaves no room for a completion."""
    chosen_truncated: int
    rejected_truncated: int


@dataclass(frozen=True)
class Split:
    """Rows to train on, and rows of the subjects kept back."""

    train: list[ExportedRow]
    kept_back: list[ExportedRow]


def keep_back(pairs: Sequence[ExportedRow], accepted: Sequence[ExportedRow], recipe: AdapterRecipe) -> frozenset[str]:
    """Choose the subjects kept out of training to compare the stages; none, where they would have too few pairs.

    A hashed share of the *training* subjects, whole, because one person's edits resemble each other. The holdout stays
    out of every choice: a stage chosen on it would be scored on what chose it.
    """
    if not recipe.preference_epochs:
        return frozenset()
    subjects = frozenset(row.subject for row in pairs if _hash_fraction(row.subject) < recipe.selection_share)
    halves = split(pairs, subjects)
    if not halves.train or len(select_unseen(halves, split(accepted, subjects))) < recipe.selection_min_rows:
        return frozenset()
    return subjects


def select_unseen(pairs: Split, accepted: Split) -> list[ExportedRow]:
    """Select the kept-back pairs whose prompt is in no training row: remembering must not pass for learning."""
    trained = {row.prompt_hash for row in [*pairs.train, *accepted.train]}
    return [row for row in pairs.kept_back if row.prompt_hash not in trained]


def split(rows: Sequence[ExportedRow], subjects: Set[str]) -> Split:
    """Part rows by whether their subject is kept back."""
    return Split([row for row in rows if row.subject not in subjects], [row for row in rows if row.subject in subjects])


def encode(tokenizer: Any, rows: Sequence[ExportedRow], max_length: int) -> Encoded:
    """Encode rows; a prompt that leaves no room for a completion drops its row, a longer completion is cut.

    A cut completion loses its end token: teaching the model to end in mid-sentence would be worse.
    """
    examples: list[Example] = []
    chosen_truncated = rejected_truncated = 0
    for row in rows:
        prompt = encode_prompt(tokenizer, parse_prompt(row.prompt, row.prompt_format))
        room = max_length - len(prompt)
        if room <= 0:
            continue
        chosen = encode_completion(tokenizer, row.chosen)
        rejected = None if row.rejected is None else encode_completion(tokenizer, row.rejected)
        chosen_truncated += len(chosen) > room
        rejected_truncated += rejected is not None and len(rejected) > room
        examples.append(Example(row.pair_id, prompt, chosen[:room], None if rejected is None else rejected[:room]))
    return Encoded(examples, len(rows) - len(examples), chosen_truncated, rejected_truncated)


def _hash_fraction(subject: str) -> float:
    digest = hashlib.sha256(b"selection:" + subject.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
