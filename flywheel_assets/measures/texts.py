"""Measures generated text against the users' texts, and the interval around a paired difference."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Indel, Levenshtein
from rapidfuzz.process import cpdist

Floats = npt.NDArray[np.float64]

# Draws are made in blocks of this many cluster indices, so that many subjects do not cost memory.
_BLOCK_INDICES = 4_000_000
_MOST_DRAWS = 400_000
_LEAST_DRAWS_IN_TAIL = 10

_WORD = re.compile(r"\w+|[^\w\s]")
_LEAST_SPAN_LETTERS = 4
_REPEATED_SHARE = 0.5


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; None where there were no rows (JSON knows no NaN)."""

    mean: float | None
    low: float | None
    high: float | None
    rows: int
    clusters: int


@dataclass(frozen=True)
class SubjectMeans:
    """The mean of each subject's rows, ascending and without names: what a bound at any level is computed from."""

    values: tuple[float, ...]
    rows: int

    @property
    def mean(self) -> float:
        """The mean over subjects."""
        return sum(self.values) / len(self.values)

    def bound_below(self, *, least: float, alpha: float, worth: float = 1.0) -> float:
        """Compute `bound_mean_below` of these means; a bound that was asked for before is remembered."""
        return _bound_again(self.values, least, alpha, worth)

    def to_interval(self, *, least: float, greatest: float, confidence: float = 0.95, draws: int = 4000) -> Interval:
        """Compute the mean with a bound on either side."""
        tail = (1 - confidence) / 2
        low = bound_mean_below(self.values, least=least, alpha=tail, draws=draws)
        high = -bound_mean_below([-value for value in self.values], least=-greatest, alpha=tail, draws=draws)
        return Interval(self.mean, low, high, self.rows, len(self.values))


# The champion often is the anchor, and both routes and all reports ask for the bounds of the same few means.
@lru_cache(maxsize=64)
def _bound_again(values: tuple[float, ...], least: float, alpha: float, worth: float) -> float:
    return bound_mean_below(values, least=least, alpha=alpha, worth=worth)


def normalized_edit_distances(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Compute Levenshtein(text, reference) / length of the longer one, per row; 0 = equal, 1 = nothing in common.

    1 minus the similarity of the records. Two empty texts are equal. Unit: code points.
    """
    if not texts:
        return np.zeros(0)
    return cpdist(texts, references, scorer=Levenshtein.normalized_distance, dtype=np.float64)


def length_ratios(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Divide the code points of each text by those of its reference; an empty reference counts as one."""
    return np.array([len(a) / max(1, len(b)) for a, b in zip(texts, references, strict=True)], dtype=np.float64)


def measure_repetition(text: str) -> float:
    """Compute the share of adjacent word pairs that occurred before: 0 for prose, near 1 for a stuck model."""
    words = text.split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


@dataclass(frozen=True)
class Corrected:
    """The part of an output that a person corrected, as words without their spacing; see `find_corrected`."""

    rejected: str
    spans: Mapping[str, int]
    """Each deleted span, and how many letters and digits were deleted in it, at least 1."""

    def is_repeated_in(self, text: str) -> bool:
        """Return whether a text still says what was corrected.

        It does if it is the whole rejected text, or if it has spans with at least half of the deleted letters.
        """
        words = _join_words(_WORD.findall(text))
        if words == self.rejected:
            return True
        repeated = sum(letters for span, letters in self.spans.items() if span in words)
        return bool(self.spans) and repeated >= _REPEATED_SHARE * sum(self.spans.values())


def find_corrected(rejected: str, chosen: str) -> Corrected | None:
    """Find what a person's text took out of an output.

    Both are compared word by word, where a word is a run of letters, digits and underscores, or one other sign; spacing
    does not count, case does. A deleted span is a longest run of words that the alignment with the fewest deleted and
    inserted words leaves out. One with fewer than four letters or digits takes its neighbours along, first the word
    before it, until it has four: "set" says nothing, "cache . set" does. Spans that overlap then are one. Those in the
    person's text are no fault; a pure insertion deletes nothing, so that only the whole rejected text is a repetition.

    Returns:
        None where the two differ in their spacing only.
    """
    before, after = _WORD.findall(rejected), _WORD.findall(chosen)
    if before == after:
        return None
    kept = _join_words(after)
    spans: dict[str, int] = {}
    for first, last, letters in _list_spans(before, after):
        span = _join_words(before[first:last])
        if span not in kept and _count_letters(before[first:last]) >= _LEAST_SPAN_LETTERS:
            spans[span] = max(1, letters)
    return Corrected(_join_words(before), spans)


@dataclass(frozen=True)
class KnownCorrections:
    """Holds the rejected texts and the deleted spans of earlier corrections."""

    rejected: frozenset[str]
    spans: frozenset[str]

    @classmethod
    def collect(cls, corrections: Iterable[tuple[str, str]]) -> "KnownCorrections":
        """Collect them from (rejected, chosen) texts; pairs that differ in their spacing only have none."""
        found = [each for each in itertools.starmap(find_corrected, corrections) if each is not None]
        return cls(frozenset(each.rejected for each in found), frozenset(span for each in found for span in each.spans))

    def are_corrected_again(self, output: str, final_text: str) -> bool:
        """Return whether an edit takes out what an earlier correction took out.

        It does if the output is a whole rejected text, or if at least half of the letters that the edit deletes are in
        spans that were deleted before.
        """
        now = find_corrected(output, final_text)
        if now is None:
            return False
        again = sum(letters for span, letters in now.spans.items() if span in self.spans)
        return now.rejected in self.rejected or (again > 0 and again >= _REPEATED_SHARE * sum(now.spans.values()))


def _list_spans(before: list[str], after: list[str]) -> list[tuple[int, int, int]]:
    """List (first word, end, deleted letters) of every span."""
    spans: list[tuple[int, int, int]] = []
    for start, end in _list_deletions(before, after):
        first, last = _widen(before, start, end)
        letters = _count_letters(before[start:end])
        if spans and first < spans[-1][1]:
            earlier = spans.pop()
            first, last, letters = earlier[0], max(last, earlier[1]), letters + earlier[2]
        spans.append((first, last, letters))
    return spans


def _list_deletions(before: list[str], after: list[str]) -> list[tuple[int, int]]:
    """List [start, end) of every run of words that is left out; insertions do not part a run."""
    runs: list[tuple[int, int]] = []
    for operation in Indel.opcodes(before, after):
        if operation.tag != "delete":
            continue
        if runs and runs[-1][1] == operation.src_start:
            runs[-1] = (runs[-1][0], operation.src_end)
        else:
            runs.append((operation.src_start, operation.src_end))
    return runs


def _widen(words: list[str], first: int, last: int) -> tuple[int, int]:
    takes_before = True
    while _count_letters(words[first:last]) < _LEAST_SPAN_LETTERS and (first > 0 or last < len(words)):
        if first > 0 and (takes_before or last == len(words)):
            first -= 1
        else:
            last += 1
        takes_before = not takes_before
    return first, last


def _count_letters(words: Sequence[str]) -> int:
    return sum(each.isalnum() for word in words for each in word)


def _join_words(words: Sequence[str]) -> str:
    # Spaces at both ends: a span is found as whole words only.
    return f" {' '.join(words)} "


def average_by_subject(values: npt.ArrayLike, subjects: Sequence[str]) -> SubjectMeans | None:
    """Compute the mean of each subject's rows: one vote a person, however much they write; None without rows."""
    if not len(subjects):
        return None
    _, member = np.unique(np.asarray(subjects, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64))
    return SubjectMeans(tuple(np.sort(sums / np.bincount(member)).tolist()), len(member))


def bound_mean_below(
    means: npt.ArrayLike,
    *,
    least: float,
    alpha: float,
    draws: int | None = None,
    seed: int = 0,
    worth: float = 1.0,
) -> float:
    """Compute a lower bound of a mean for any distribution of values from `least` up: Gaffke's.

    It is the α quantile of the mean under random weights (uniform on the simplex), with one more subject who has
    `least`: the person who was not drawn may have lost everything. Intervals that estimate a spread from the sample
    cannot see that person: where 5 % of people lose much, none of them is among 20 subjects in 36 % of samples.
    Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable";
    for two possible values it is Clopper and Pearson's bound. Its level is proven for these and conjectured for all
    (Learned-Miller and Thomas 2019, arXiv 1905.06208); `benchmarks/text_gate.py` holds it against others. With equal
    seeds, raising any value never lowers the bound.

    Args:
        means: one value per subject, none below `least`.
        least: the lowest possible value.
        alpha: probability, one-sided, that the true mean is lower.
        draws: random weightings; None: 50 / α, but from 20,000 to 400,000. Fewer than 10 / α show nothing: `least`.
        seed: of the weights.
        worth: independent subjects that each value stands for; below 1 where values depend on each other. Then its
            weight is drawn from a gamma distribution of this shape, as if there were `worth` times as many subjects.
    """
    draws = min(_MOST_DRAWS, max(20_000, int(50 / alpha))) if draws is None else draws
    if draws * alpha < _LEAST_DRAWS_IN_TAIL:
        return float(least)
    ordered = np.concatenate([[least], np.sort(np.asarray(means, dtype=np.float64))])
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    block = max(1, _BLOCK_INDICES // len(ordered))
    for start in range(0, draws, block):
        shape = (min(block, draws - start), len(ordered))
        if worth == 1:
            weights = generator.standard_exponential(shape)
        else:
            weights = generator.standard_gamma(np.where(np.arange(len(ordered)), worth, 1.0), shape)
        found[start : start + len(weights)] = weights @ ordered / weights.sum(axis=1)
    return float(np.quantile(found, alpha, method="lower"))


def find_least_provable_mean(subjects: float, *, floor: float, least: float, alpha: float) -> float:
    """Compute the smallest mean whose `bound_mean_below` exceeds `floor`, where every subject has the same mean.

    Closed form: the subject who was not drawn has the random weight W ~ Beta(1, n), whose 1 − α quantile is
    q = 1 − α^(1/n), so that n equal means v have the bound v (1 − q) + least · q. A spread among the subjects asks for
    more. Infinite without subjects, and where α is so small that `bound_mean_below` shows nothing. With a `worth` below
    1 it is that of `worth` times as many subjects, which need not be a whole number.
    """
    if not subjects or _MOST_DRAWS * alpha < _LEAST_DRAWS_IN_TAIL:
        return math.inf
    kept: float = alpha ** (1 / subjects)
    return (floor - least * (1 - kept)) / kept


def count_subjects_to_prove(
    *, floor: float, least: float, greatest: float, alpha: float, worth: float = 1.0
) -> int | None:
    """Count the subjects from which a bound can exceed `floor` at all, with `greatest` for each; None: no number can.

    By `find_least_provable_mean`: α^(1/n) must exceed (floor − least) / (greatest − least).
    """
    needed = (floor - least) / (greatest - least)
    if not needed < 1 or _MOST_DRAWS * alpha < _LEAST_DRAWS_IN_TAIL:
        return None
    return 1 if needed <= 0 else math.floor(math.log(alpha) / math.log(needed) / worth) + 1


def bootstrap_clustered_mean(
    differences: npt.ArrayLike, clusters: Sequence[str], *, draws: int = 4000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Compute the percentile interval of the mean of paired differences, resampling whole clusters (subjects).

    One person's rows resemble each other, so rows are no independent evidence; people are. The statistic of one draw is
    the sum over the drawn clusters' rows by their number (ratio estimator). Equal seeds and clusters draw the same
    clusters, so that raising any difference never lowers a bound.

    Args:
        differences: one value per row.
        clusters: the cluster of each row.
        draws: bootstrap samples.
        confidence: two-sided.
        seed: of the drawn clusters.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return Interval(None, None, None, 0, 0)
    names, member = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member)
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    block = max(1, _BLOCK_INDICES // len(names))
    for start in range(0, draws, block):
        drawn = generator.integers(0, len(names), (min(block, draws - start), len(names)))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values), len(names))
