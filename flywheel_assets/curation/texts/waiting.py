"""Keeps small edits and changed facts waiting until enough people say the same.

Such a row is in quarantine under its reason *and* in gold, marked by `held_reason`: gold is what a version pins, so
only there can it join one later (docs/adr/0014). Its `support_key` says what has to recur. Resolution admits it when
distinct subjects of all closed days share the key, and leaves it out under its reason until then.
"""

import re
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.arrow import Array, ChunkedArray
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind, Reason, SubjectKind, make_stable_id

SUPPORTERS_NEEDED = {Reason.TRIVIAL_EDIT.value: 3, Reason.UNSUPPORTED_FACT.value: 2}
"""Distinct subjects per reason. A small edit by two people may be chance; the same new fact by two is testimony."""


class AdmittedAs(StrEnum):
    """The reason that a row is in a version."""

    PREFERENCE_PAIR = ExampleKind.PREFERENCE_PAIR.value
    COMPARISON = ExampleKind.COMPARISON.value
    ACCEPTED_OUTPUT = ExampleKind.ACCEPTED_OUTPUT.value
    DEMONSTRATION = ExampleKind.DEMONSTRATION.value
    OBJECTION = ExampleKind.OBJECTION.value
    RECURRING_SMALL_EDIT = "recurring_small_edit"
    CONFIRMED_FACT = "confirmed_fact"


_ADMITTED_AS = {
    Reason.TRIVIAL_EDIT.value: AdmittedAs.RECURRING_SMALL_EDIT,
    Reason.UNSUPPORTED_FACT.value: AdmittedAs.CONFIRMED_FACT,
}

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]{2}|[^\W\d_].*[^\W\d_]")


def compute_delta(rejected: str, chosen: str) -> list[tuple[list[str], list[str]]]:
    """Compute an edit's replacements as tokens: each one once, sorted, wherever in the text it was."""
    before, after = _TOKEN.findall(rejected), _TOKEN.findall(chosen)
    replaced = {
        (tuple(before[code.src_start : code.src_end]), tuple(after[code.dest_start : code.dest_end]))
        for code in Levenshtein.opcodes(before, after)
        if code.tag != "equal"
    }
    return [(list(old), list(new)) for old, new in sorted(replaced)]


def hash_delta(rejected: str, chosen: str) -> str | None:
    """Hash a small edit's delta; None where it changes no word.

    A delta of signs and digits alone says too little to be recognised elsewhere: nine vandals who double a bracket
    would agree with each other.
    """
    changes = compute_delta(rejected, chosen)
    if not any(_WORD.search(token) for old, new in changes for token in (*old, *new)):
        return None
    return make_stable_id("delta", changes)


SUPPORT_KEYS = ["held_reason", "support_key", "subject", "subject_kind", "source"]
"""Columns of gold that decide about support."""


def mark_unsupported_rows(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark the waiting rows that lack support; all other rows are False.

    A subject counts once, whatever it sends; all subjects of one source that are no signed-in users count as one,
    because a thread costs nothing to open. One row of a reviewer is enough.

    Args:
        rows: current statements, with the columns SUPPORT_KEYS.
    """
    waiting: npt.NDArray[np.bool_] = pc.is_valid(rows["held_reason"]).to_numpy(zero_copy_only=False).copy()
    held = np.flatnonzero(waiting)
    voices: dict[str, set[tuple[str, str]]] = {}
    confirmed: set[str] = set()
    few = rows.select(SUPPORT_KEYS).take(held).to_pylist() if len(held) else []
    for row in few:
        if row["support_key"] is not None:
            is_user = row["subject_kind"] == SubjectKind.USER.value
            voice = ("user", row["subject"]) if is_user else ("source", row["source"])
            voices.setdefault(row["support_key"], set()).add(voice)
            if row["source"] == REVIEWER_SOURCE:
                confirmed.add(row["support_key"])
    for number, row in zip(held.tolist(), few, strict=True):
        key = row["support_key"]
        enough = key is not None and len(voices[key]) >= SUPPORTERS_NEEDED[row["held_reason"]]
        waiting[number] = not (enough or key in confirmed)
    return waiting


def explain_admission(example_kind: ChunkedArray, held_reason: ChunkedArray) -> Array:
    """Name the reason that each row is in a version (`AdmittedAs`)."""
    kinds = zip(example_kind.to_pylist(), held_reason.to_pylist(), strict=True)
    return pa.array([str(_ADMITTED_AS[held]) if held else kind for kind, held in kinds], pa.string())
