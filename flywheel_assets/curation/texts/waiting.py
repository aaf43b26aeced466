"""Keeps small edits and changed facts waiting until enough people say the same.

Such a row is in quarantine under its reason *and* in gold, marked by `held_reason`: gold is what a version pins, so
only there can it join one later (docs/adr/0014). Its `support_key` says what has to recur. Resolution admits it when
distinct subjects of all closed days share the key, and leaves it out under its reason until then.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.arrow import Array, ChunkedArray
from flywheel_assets.curation.texts.alignment import count_shared, find_hunks
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind, Reason, make_stable_id

SUPPORTERS_NEEDED = {Reason.TRIVIAL_EDIT.value: 3, Reason.UNSUPPORTED_FACT.value: 2}
"""Distinct subjects per reason. A small edit by two people may be chance; the same new fact by two is testimony."""


class AdmittedAs(StrEnum):
    """The reason that a row is in a version."""

    PREFERENCE_PAIR = ExampleKind.PREFERENCE_PAIR.value
    COMPARISON = ExampleKind.COMPARISON.value  # one answer was preferred: it may be wrong, too
    CONFIRMED_COMPARISON = "confirmed_comparison"  # and people accepted it for itself
    ACCEPTED_OUTPUT = ExampleKind.ACCEPTED_OUTPUT.value
    DEMONSTRATION = ExampleKind.DEMONSTRATION.value
    OBJECTION = ExampleKind.OBJECTION.value
    RECURRING_SMALL_EDIT = "recurring_small_edit"
    CONFIRMED_FACT = "confirmed_fact"


_ADMITTED_AS = {
    Reason.TRIVIAL_EDIT.value: AdmittedAs.RECURRING_SMALL_EDIT,
    Reason.UNSUPPORTED_FACT.value: AdmittedAs.CONFIRMED_FACT,
}

# Han and kana have no spaces: each character is a token.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]{2}|[^\W\d_].*[^\W\d_]")
_FEW_TOKENS, _MANY_TOKENS = 2, 12


@dataclass(frozen=True)
class _Replacement:
    old: tuple[str, ...]
    new: tuple[str, ...]
    before: tuple[str, ...]
    """The tokens before it, in the user's text."""
    after: tuple[str, ...]


def _find_replacements(rejected: str, chosen: str) -> list[_Replacement]:
    """Find an edit's replacements in the lines that differ, with the tokens around them."""
    found = []
    old_lines, new_lines = rejected.split("\n"), chosen.split("\n")
    for hunk in find_hunks(old_lines, new_lines):
        old, new = (_TOKEN.findall("\n".join(lines)) for lines in (hunk.old, hunk.new))
        begin, end = count_shared(old, new)
        for src, src_end, dest, dest_end in _join_neighbours(old[begin : len(old) - end], new[begin : len(new) - end]):
            first, last = begin + dest, begin + dest_end
            reach = _FEW_TOKENS if _say_enough(new, first, last, _FEW_TOKENS) else _MANY_TOKENS
            found.append(
                _Replacement(
                    tuple(old[begin + src : begin + src_end]),
                    tuple(new[first:last]),
                    tuple(new[max(0, first - reach) : first]),
                    tuple(new[last : last + reach]),
                )
            )
    return found


def _join_neighbours(old: list[str], new: list[str]) -> list[tuple[int, int, int, int]]:
    """Align tokens, and join an insertion with the replacement next to it.

    `0` → `-1` is one replacement, not an inserted `-` and `0` → `1`.
    """
    joined: list[tuple[int, int, int, int]] = []
    for code in Levenshtein.opcodes(old, new):
        if code.tag == "equal":
            continue
        if joined and joined[-1][1] == code.src_start and joined[-1][3] == code.dest_start:
            joined[-1] = (joined[-1][0], code.src_end, joined[-1][2], code.dest_end)
        else:
            joined.append((code.src_start, code.src_end, code.dest_start, code.dest_end))
    return joined


def _say_enough(tokens: list[str], first: int, last: int, reach: int) -> bool:
    around = (*tokens[max(0, first - reach) : first], *tokens[last : last + reach])
    return any(token.isalnum() for token in around)


def compute_delta(rejected: str, chosen: str) -> list[tuple[list[str], list[str]]]:
    """Compute an edit's replacements as tokens: each one once, sorted, wherever in the text it was."""
    replaced = {(each.old, each.new) for each in _find_replacements(rejected, chosen)}
    return [(list(old), list(new)) for old, new in sorted(replaced)]


def hash_delta(rejected: str, chosen: str) -> str | None:
    """Hash each replacement of a small edit; None where no token differs, or there are more than 16.

    The keys are in one text, sorted, a space between them. A replacement of words is the same wherever it stands.
    Signs, digits and single letters say too little to be recognised elsewhere, nine vandals who double a bracket would
    agree with each other: their key covers the two tokens on either side, twelve where these are signs too.
    """
    keys = set()
    for each in _find_replacements(rejected, chosen):
        if any(_WORD.search(token) for token in (*each.old, *each.new)):
            keys.add(make_stable_id("delta", each.old, each.new))
        else:
            keys.add(make_stable_id("delta", each.old, each.new, each.before, each.after))
    return " ".join(sorted(keys)) if 0 < len(keys) <= _MOST_REPLACEMENTS else None


_MOST_REPLACEMENTS = 16


SUPPORT_KEYS = ["held_reason", "support_key", "source", "voice"]
"""Columns that decide about support; the last one is that of `resolution`."""


def mark_unsupported_rows(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark the waiting rows that lack support; all other rows are False.

    Each replacement of a small edit recurs by itself, in whatever edits: a row is supported when all of its own are.
    A voice counts once, whatever it sends: all that is merely claimed through one key is one, because a name or a
    thread costs nothing. One row of a reviewer is enough.

    Args:
        rows: current statements, with the columns SUPPORT_KEYS.
    """
    waiting: npt.NDArray[np.bool_] = pc.is_valid(rows["held_reason"]).to_numpy(zero_copy_only=False).copy()
    held = np.flatnonzero(waiting)
    voices: dict[str, set[str]] = {}
    confirmed: set[str] = set()
    few = rows.select(SUPPORT_KEYS).take(held).to_pylist() if len(held) else []
    for row in few:
        if row["support_key"] is not None:
            for key in row["support_key"].split():
                voices.setdefault(key, set()).add(row["voice"])
                if row["source"] == REVIEWER_SOURCE:
                    confirmed.add(key)
    for number, row in zip(held.tolist(), few, strict=True):
        keys = (row["support_key"] or "").split()
        needed = SUPPORTERS_NEEDED[row["held_reason"]]
        waiting[number] = not keys or not all(key in confirmed or len(voices[key]) >= needed for key in keys)
    return waiting


def explain_admission(
    example_kind: ChunkedArray, held_reason: ChunkedArray, is_winner_accepted: npt.NDArray[np.bool_]
) -> Array:
    """Name the reason that each row is in a version (`AdmittedAs`)."""
    kinds = pc.if_else(
        pc.and_(pc.equal(example_kind, pa.scalar(ExampleKind.COMPARISON.value)), pa.array(is_winner_accepted)),
        AdmittedAs.CONFIRMED_COMPARISON.value,
        example_kind,
    )
    both = zip(kinds.to_pylist(), held_reason.to_pylist(), strict=True)
    return pa.array([str(_ADMITTED_AS[held]) if held else kind for kind, held in both], pa.string())
