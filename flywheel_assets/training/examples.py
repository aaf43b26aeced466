"""Turns the rows of an export into token ids, whole or not at all. Needs no model."""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass

from flywheel_assets.curation.texts.waiting import AdmittedAs
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.rendering import RowEncoder, encode_rows
from flywheel_assets.records import ExampleKind
from flywheel_assets.training.recipes import AdapterRecipe, WrittenComparisons


@dataclass(frozen=True)
class Example:
    """One row as token ids; `rejected` is None where there is no rejected text, `chosen` empty in an objection."""

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int] | None
    is_written: bool = True
    """The model learns to write the chosen text; False: it learns only to prefer it, or there is none."""


@dataclass(frozen=True)
class Split:
    """Rows to train on, and rows of the subjects kept back."""

    train: list[ExportedRow]
    kept_back: list[ExportedRow]


def keep_back(pairs: Sequence[ExportedRow], others: Sequence[ExportedRow], recipe: AdapterRecipe) -> frozenset[str]:
    """Choose the subjects kept out of training to compare the stages; none, where they would have too few pairs.

    A hashed share of the *training* subjects, whole, because one person's edits resemble each other. The holdout stays
    out of every choice: a stage chosen on it would be scored on what chose it.
    """
    if not recipe.trains_preferences:
        return frozenset()
    subjects = frozenset(row.subject for row in pairs if _hash_fraction(row.subject) < recipe.selection_share)
    halves = split(pairs, subjects)
    if not halves.train or len(select_unseen(halves, split(others, subjects))) < recipe.selection_min_rows:
        return frozenset()
    return subjects


def select_unseen(pairs: Split, others: Split) -> list[ExportedRow]:
    """Select the kept-back pairs whose prompt is in no training row: remembering must not pass for learning."""
    trained = {row.prompt_hash for row in [*pairs.train, *others.train]}
    return [row for row in pairs.kept_back if row.prompt_hash not in trained]


def split(rows: Sequence[ExportedRow], subjects: Set[str]) -> Split:
    """Part rows by whether their subject is kept back."""
    return Split([row for row in rows if row.subject not in subjects], [row for row in rows if row.subject in subjects])


def encode(encoder: RowEncoder, rows: Sequence[ExportedRow], written: WrittenComparisons = "all") -> list[Example]:
    """Encode rows in their order; raises the error of `encode_rows`: nothing is ever cut short or left out."""
    encoded = encode_rows(encoder, rows)
    return [
        Example(row.pair_id, each.prompt, each.chosen, each.rejected, bool(each.chosen) and is_written(row, written))
        for row, each in zip(rows, encoded, strict=True)
    ]


def is_written(row: ExportedRow, written: WrittenComparisons) -> bool:
    """Return whether the model learns to write a row's chosen text, not only to prefer it.

    Of two answers one is better, and may be wrong all the same. Its text is confirmed where people accepted it, too
    (`AdmittedAs.CONFIRMED_COMPARISON`). Exports from before there was that evidence hold no confirmed comparison.
    """
    if written == "all" or row.example_kind != ExampleKind.COMPARISON:
        return True
    return written == "confirmed" and row.admitted_as == AdmittedAs.CONFIRMED_COMPARISON


def _hash_fraction(subject: str) -> float:
    digest = hashlib.sha256(b"selection:" + subject.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
