"""Fits, calibrates and measures a head; pure but for the encoder that is given.

A head learns from one half of the functional suite and from all examples. Its thresholds and its calibration come from
texts that it was not fitted on: the suite's other half, and the examples by cross-fitting (each is scored by a fit on
the other folds). The same scores are its figures: the last fit has seen more than any that was measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import TrainingError
from flywheel_assets.ranges import Checked, Count, Positive, ShareBelowOne
from flywheel_assets.screening.heads._language_guess import guess_language
from flywheel_assets.screening.heads.functional_suite import Case, write_suite
from flywheel_assets.screening.heads.head import Head, build_features, squash
from flywheel_assets.screening.heads.signals import MULTIPLIED, read_signals

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Encode = Callable[[list[str]], list[npt.NDArray[np.float32]]]
SUITE_LANGUAGE = "en"


@dataclass(frozen=True)
class Example:
    """One text that people judged."""

    text: str
    is_harmful: bool
    language: str = ""
    """ISO 639-1; empty: guessed from the text, else English."""


@dataclass(frozen=True, kw_only=True)
class TrainingRules(Checked):
    """The choices of a training."""

    strength: Positive = 0.1
    """Inverse of the L2 penalty (scikit-learn's C), for features of length about 4."""
    folds: Count = 5
    most_harmless_suite: ShareBelowOne = 0.07
    """Share of the suite's harmless texts that a threshold may stop."""
    most_harmless_examples: ShareBelowOne = 0.015
    """Share of a language's harmless examples that a threshold may stop."""
    min_examples: Count = 50
    """Harmful and harmless examples each, from which a language counts as evaluated."""


@dataclass(frozen=True)
class Measured:
    """A head with the held-out scores that it is judged by; arrays are parallel to `examples` or `suite`."""

    head: Head
    examples: tuple[Example, ...]
    languages: tuple[str, ...]
    """Of every example."""
    stopped: Bools
    """Examples that the head would stop, by scores of fits that had not seen them."""
    suite: tuple[Case, ...]
    suite_stopped: Bools


def train_head(examples: Sequence[Example], encode: Encode, encoder: str, rules: TrainingRules) -> Measured:
    """Train a head.

    Args:
        examples: texts that people judged; equal texts count once, the last judgement is taken.
        encode: the frozen encoder.
        encoder: its digest.
        rules: the choices.

    Raises:
        TrainingError: there are examples, but only harmful or only harmless ones.
    """
    given = tuple({example.text: example for example in examples if example.text.strip()}.values())
    truth = np.array([example.is_harmful for example in given], dtype=bool)
    if len(given) and truth.all() | ~truth.any():
        kind = "harmful" if truth.all() else "harmless"
        raise TrainingError(f"all {len(given)} examples are {kind}: add texts of the other kind, with --from FILE")
    languages = tuple(example.language or guess_language(example.text) or SUITE_LANGUAGE for example in given)
    learnt, suite = write_suite(0), tuple(write_suite(1))
    known = _Features([case.text for case in learnt], np.array([case.is_harmful for case in learnt]), encode)
    held = _Features([case.text for case in suite], np.array([case.is_harmful for case in suite]), encode)
    real = _Features([example.text for example in given], truth, encode)

    final = _fit(known.join(real), encoder, rules)
    sums = _compute_held_out_sums(known, real, encoder, rules) if len(given) else np.zeros(0)
    suite_sums = final.compute_sums(held.vectors, held.signals)
    slope, offset = _calibrate(np.concatenate([sums, suite_sums]), np.concatenate([truth, held.truth]))
    thresholds = {}
    for language in sorted({*languages, SUITE_LANGUAGE}):
        of_language = np.array([each == language for each in languages], dtype=bool)
        limits = []
        if language == SUITE_LANGUAGE:
            limits.append(_find_limit(suite_sums[~held.truth], rules.most_harmless_suite))
        if min((of_language & truth).sum(), (of_language & ~truth).sum()) >= rules.min_examples:
            limits.append(_find_limit(sums[of_language & ~truth], rules.most_harmless_examples))
        if limits:
            thresholds[language] = float(squash(np.array([slope * max(limits) + offset]))[0])
    head = msgspec.structs.replace(final, slope=slope, offset=offset, thresholds=thresholds)
    return Measured(
        head,
        given,
        languages,
        _stop(squash(slope * sums + offset), languages, thresholds),
        suite,
        _stop(squash(slope * suite_sums + offset), (SUITE_LANGUAGE,) * len(suite), thresholds),
    )


def find_stopped(head: Head, texts: Sequence[str], languages: Sequence[str], encode: Encode) -> Bools:
    """Return for every text whether this head stops it; a language without a threshold stops nothing."""
    probabilities = head.compute_probabilities(encode(list(texts)), read_signals(list(texts)))
    return _stop(probabilities, languages, head.thresholds)


class _Features:
    """Texts as vectors and signals, with the truth about them."""

    def __init__(self, texts: list[str], truth: Bools, encode: Encode) -> None:
        self.vectors = encode(texts)
        self.signals = read_signals(texts)
        self.truth = truth.astype(bool)

    def join(self, other: "_Features", rows: Bools | None = None) -> "_Features":
        """Return the texts of both; of the other, the rows that are named."""
        numbers = range(len(other.vectors)) if rows is None else np.flatnonzero(rows).tolist()
        joined = object.__new__(_Features)
        joined.vectors = [*self.vectors, *(other.vectors[number] for number in numbers)]
        joined.signals = np.concatenate([self.signals, other.signals[list(numbers)]])
        joined.truth = np.concatenate([self.truth, other.truth[list(numbers)]])
        return joined


def _fit(features: _Features, encoder: str, rules: TrainingRules) -> Head:
    from sklearn.linear_model import LogisticRegression

    # A label is about the whole text, so a long text is its mean window here; serving takes the worst one.
    vectors = np.stack([windows.mean(axis=0) for windows in features.vectors])
    mean, deviation = vectors.mean(axis=0).astype(np.float64), vectors.std(axis=0).astype(np.float64) + 1e-6
    rows = build_features(vectors, features.signals, mean, deviation)
    model = LogisticRegression(C=rules.strength, max_iter=1000, class_weight="balanced").fit(rows, features.truth)
    assert len(model.coef_[0]) == len(mean) * (1 + len(MULTIPLIED)) + features.signals.shape[1]
    return Head(
        encoder=encoder,
        mean=[round(value, 6) for value in mean.tolist()],
        deviation=[round(value, 6) for value in deviation.tolist()],
        weights=[round(value, 6) for value in model.coef_[0].tolist()],
        bias=round(float(model.intercept_[0]), 6),
    )


def _compute_held_out_sums(known: _Features, real: _Features, encoder: str, rules: TrainingRules) -> Floats:
    """Score every example by a fit on the other folds."""
    fold = np.random.default_rng(0).permutation(len(real.truth)) % rules.folds
    sums = np.zeros(len(real.truth))
    for number in range(rules.folds):
        head = _fit(known.join(real, fold != number), encoder, rules)
        rows = np.flatnonzero(fold == number)
        sums[rows] = head.compute_sums([real.vectors[row] for row in rows], real.signals[rows])
    return sums


def _calibrate(sums: Floats, truth: Bools) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(sums[:, None], truth)
    # A slope below zero would turn the order around: such scores say nothing, and stay as they are.
    return max(float(model.coef_[0][0]), 1e-3), float(model.intercept_[0])


def _find_limit(harmless: Floats, most: float) -> float:
    """Find the sum from which at most this share of harmless texts is stopped."""
    return float(np.nextafter(np.quantile(harmless, 1 - most, method="higher"), np.inf))


def _stop(probabilities: Floats, languages: Sequence[str], thresholds: dict[str, float]) -> Bools:
    limits = np.array([thresholds.get(language, np.inf) for language in languages])
    stopped: Bools = probabilities >= limits
    return stopped
