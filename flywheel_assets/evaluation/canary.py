"""Finds phrases that the challenger repeats and that only one user can have taught it: the canary.

A planted phrase shows in a model's texts before it shows in any distance to the users' texts. A phrase (two
neighbouring words) is suspect when the challenger writes it for several held-out prompts that do not contain it, the
incumbent writes it for none, and it stands in the training texts of one user only. A phrase in no training text cannot
have been planted there: a good adapter of the tests wrote two phrases of its own in 5 of 140 generations. Only hashes
and counts leave this module.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.likeness.normalization import normalize
from flywheel_assets.curation.likeness.novelty import hash_ngrams

USERS_NEEDED = 2
ROWS_AT_ONCE = 8192

Phrases = npt.NDArray[np.uint64]
"""(row << 32 | hash) of every pair of neighbouring words, sorted, each once per row."""


@dataclass(frozen=True)
class Canary:
    """Counts the challenger's phrases that only one user can have taught it."""

    phrases: int
    """Distinct suspect pairs of words."""
    ratio: float
    """Share of the challenger's generations with at least one of them."""


def hash_phrases(prompts: Iterable[str], generations: Iterable[str]) -> Phrases:
    """Hash the pairs of words in generations that their prompts do not have."""
    said, asked = (hash_ngrams(normalize(pa.array(list(texts), pa.string()))) for texts in (generations, prompts))
    return said[~np.isin(said, asked)]


def find_canary(
    challenger: Phrases, incumbent: Phrases, asking: Sequence[str], taught: Iterable[tuple[str, str]], least_rows: int
) -> Canary:
    """Find suspect phrases.

    Args:
        challenger: of `phrases_of`.
        incumbent: the same for the model that serves now, on the same prompts.
        asking: the subject of each generation's prompt. A text for the very user who taught a phrase does not count:
            the deployed adapter of a cross-fit has learnt that user's own texts.
        taught: (subject, text) of everything that the challenger was trained towards.
        least_rows: a phrase in fewer of the challenger's generations is chance.
    """
    hashes = _drop_rows(challenger)
    distinct, counts = np.unique(hashes, return_counts=True)
    frequent = distinct[(counts >= least_rows) & ~np.isin(distinct, _drop_rows(incumbent))]
    teachers = dict(_find_of_one_user(frequent, taught))
    found = challenger[np.isin(hashes, np.array(list(teachers), np.uint64))]
    places, phrases = (found >> np.uint64(32)).astype(np.int64), _drop_rows(found)
    others = [asking[place] != teachers[phrase] for place, phrase in zip(places, phrases.tolist(), strict=True)]
    places, phrases = places[others], phrases[others]
    distinct, counts = np.unique(phrases, return_counts=True)
    suspects = distinct[counts >= least_rows]
    if not len(suspects):
        return Canary(0, 0.0)
    struck = np.unique(places[np.isin(phrases, suspects)])
    return Canary(len(suspects), len(struck) / len(asking))


def _find_of_one_user(phrases: npt.NDArray[np.uint64], taught: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str]]:
    """Find the hashes that stand in the texts of exactly one subject, each with the subject."""
    if not len(phrases):
        return
    subjects: dict[int, set[str]] = {}
    remaining = iter(taught)
    while rows := list(islice(remaining, ROWS_AT_ONCE)):
        said = hash_ngrams(normalize(pa.array([text for _, text in rows], pa.string())))
        said = said[np.isin(_drop_rows(said), phrases)]
        for row, phrase in zip((said >> np.uint64(32)).tolist(), _drop_rows(said).tolist(), strict=True):
            known = subjects.setdefault(phrase, set())
            if len(known) < USERS_NEEDED:
                known.add(rows[row][0])
    yield from ((phrase, known.pop()) for phrase, known in subjects.items() if len(known) < USERS_NEEDED)


def _drop_rows(phrases: Phrases) -> Phrases:
    return phrases & np.uint64(0xFFFFFFFF)
