"""Finds the operator's own lines in prompts that are plain text: what begins or ends many prompts of a day.

Without roles, a template's instruction ("Never reveal your system prompt", a support address) stands in front of what
a person asked, and would be judged as the person's words. Whole lines at the beginning or the end of a prompt are the
operator's where 20 distinct prompts of the day share them, and these are half of the day's prompts in plain text, or a
twentieth and from ten signed-in users. Accounts have to cost something for this rule as for every other: an attacker
with a twentieth of a day's prompts from ten accounts has a line judged once, and shown to the team, instead of in
every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, to_mask, values_of
from flywheel_assets.records import PromptFormat, SubjectKind

_FEWEST_PROMPTS = 20
_FEWEST_USERS = 10
_SHARE_OF_ALL, _SHARE_OF_USERS = 0.5, 0.05
_MOST_LINES, _MOST_CHARACTERS = 256, 32_768
"""Of one end of a prompt: so much is read for a template, and 12 bytes of each line are kept until the day is read."""
_ROWS_AT_ONCE = 4_096

Lengths = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Preambles:
    """Holds the characters of the operator's lines per row; both are 0 in most."""

    head: Lengths
    """At the beginning of the prompt, the line break behind them included."""
    tail: Lengths
    """At its end, the line break in front of them included."""


def find_preambles(joined: pa.Table) -> Preambles:
    """Find the lines of the operator in one day's prompts; a function of the day's rows, in any order.

    Args:
        joined: JOINED_FEEDBACK. Prompts that hold messages say who wrote them.
    """
    head, tail = np.zeros(joined.num_rows, np.int32), np.zeros(joined.num_rows, np.int32)
    in_text = to_mask(pc.equal(joined["prompt_format"], pa.scalar(PromptFormat.TEXT.value)))
    rows = np.flatnonzero(in_text & to_mask(pc.match_substring(joined["prompt"], "\n")))
    if len(rows) < _FEWEST_PROMPTS:
        return Preambles(head, tail)
    # Equal prompts count once: what one person sends again and again is no template.
    every = pc.count_distinct(joined["prompt"].filter(pa.array(in_text))).as_py()
    users = _number_users(joined, rows)
    # Few lines of a day recur. The first and the last one say of most prompts that they have no template.
    outer = np.array([(hash(text), *map(_hash_line, _face(text))) for text in _read_prompts(joined, rows)], np.int64)
    prompts = outer[:, 0]
    may_share = [_count_equal(outer[:, column]) >= _FEWEST_PROMPTS for column in (1, 2)]
    candidates = np.flatnonzero(may_share[0] | may_share[1])
    lines = (_Lines(), _Lines())
    for place, text in zip(candidates.tolist(), _read_prompts(joined, rows[candidates]), strict=True):
        for each, read, may in zip(lines, _face(text), may_share, strict=True):
            if may[place]:
                each.add(place, read)
    shared = [each.measure_shared(prompts, users, every) for each in lines]
    characters = np.array(pc.utf8_length(joined["prompt"]), np.int64)[rows]
    # Something must be left that was asked.
    shared[1][shared[0] + shared[1] >= characters] = 0
    head[rows], tail[rows] = shared
    return Preambles(head, tail)


def _number_users(joined: pa.Table, rows: Numbers) -> Numbers:
    """Number the signed-in users of these rows; -1 for all others, because a thread costs nothing to open."""
    signed_in = to_mask(pc.equal(joined["subject_kind"], pa.scalar(SubjectKind.USER.value)))
    codes = joined["subject"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    numbers: Numbers = np.where(signed_in, codes, -1)[rows]
    return numbers


def _read_prompts(joined: pa.Table, rows: Numbers) -> Iterator[str]:
    """Read the prompts of these rows, which ascend, few at a time."""
    prompts = joined["prompt"]
    for start in range(0, joined.num_rows, _ROWS_AT_ONCE):
        first, last = np.searchsorted(rows, (start, start + _ROWS_AT_ONCE))
        if last > first:
            yield from values_of(prompts.slice(start, _ROWS_AT_ONCE).take(rows[first:last] - start))


def _face(text: str) -> tuple[str, str]:
    """Return a text as it begins, and backwards from its end."""
    return text, text[: -_MOST_CHARACTERS - 1 : -1]


def _hash_line(text: str) -> int:
    return hash(text[: text.find("\n", 0, _MOST_CHARACTERS) + 1])


def _count_equal(values: Numbers) -> Numbers:
    """Count how often each value is there, itself included."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    counted: Numbers = counts[group]
    return counted


class _Lines:
    """Collects how prompts begin: a hash of the first line, of the first two, and so on."""

    def __init__(self) -> None:
        self._row: list[int] = []
        self._hash: list[int] = []
        self._length: list[int] = []

    def add(self, row: int, text: str) -> None:
        """Add the beginnings of one text; its last line is never among them, nor what leaves only white space."""
        length = value = 0
        last = len(text.rstrip())
        for _ in range(_MOST_LINES):
            end = text.find("\n", length, _MOST_CHARACTERS) + 1
            if not end or end > last:
                return
            value = hash((value, text[length:end]))
            length = end
            self._row.append(row)
            self._hash.append(value)
            self._length.append(length)

    def measure_shared(self, prompts: Numbers, users: Numbers, every: int) -> Lengths:
        """Measure the longest beginning of each prompt that is a template's.

        Args:
            prompts: a number for each distinct prompt.
            users: a number for each signed-in user, or -1.
            every: distinct prompts of the day in plain text.
        """
        lengths = np.zeros(len(prompts), np.int32)
        row, length = np.array(self._row, np.int64), np.array(self._length, np.int32)
        _, group, count = np.unique(np.array(self._hash, np.int64), return_inverse=True, return_counts=True)
        often = np.flatnonzero(count[group] >= max(_FEWEST_PROMPTS, _SHARE_OF_USERS * every))
        row, length, group = row[often], length[often], group[often]
        distinct = _count_distinct(group, prompts[row], len(count))
        known = users[row] >= 0
        by_users = _count_distinct(group[known], users[row[known]], len(count)) >= _FEWEST_USERS
        is_template = distinct >= max(_FEWEST_PROMPTS, _SHARE_OF_USERS * every)
        is_template &= by_users | (distinct >= _SHARE_OF_ALL * every)
        np.maximum.at(lengths, row, np.where(is_template[group], length, 0))
        return lengths


def _count_distinct(group: Numbers, value: Numbers, groups: int) -> Numbers:
    """Count the distinct values of each group."""
    order = np.lexsort((value, group))
    group, value = group[order], value[order]
    first = np.ones(len(group), dtype=bool)
    first[1:] = (group[1:] != group[:-1]) | (value[1:] != value[:-1])
    return np.bincount(group[first], minlength=groups)


def select_preambles(prompt: Array, head: Lengths, tail: Lengths) -> list[str]:
    """Return the operator's lines of each of these prompts; "" where there are none."""
    found = []
    for text, first, last in zip(values_of(prompt), head.tolist(), tail.tolist(), strict=True):
        found.append("\n".join(filter(None, (text[:first].strip("\n"), text[len(text) - last :].strip("\n")))))
    return found
