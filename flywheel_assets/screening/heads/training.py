"""Fits, calibrates and measures a head; pure but for the encoder that is given.

A head learns from one part of the functional suite and from all examples. Its thresholds and its calibration come from
texts that it was not fitted on: a second part of the suite, and the examples by cross-fitting (each is scored by a fit
on the other folds). Its figures are those scores of the examples, and the suite's third part, which decided nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import TrainingError
from flywheel_assets.ranges import Checked, Count, Positive, ShareBelowOne
from flywheel_assets.screening.heads._language_guess import guess_language
from flywheel_assets.screening.heads.functional_suite import Case, write_suite
from flywheel_assets.screening.heads.head import Encode, Head, Pieces, build_features, read_pieces, squash
from flywheel_assets.screening.heads.signals import MULTIPLIED

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
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
    most_harmless_examples: ShareBelowOne = 0.02
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
    """The part for tests: neither the fit nor a threshold has seen it."""
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
    (known, known_truth), (held, held_truth) = (_read_suite(part, encode) for part in (0, 1))
    real = read_pieces([example.text for example in given], encode)

    final = _fit(known.join(real), np.concatenate([known_truth, truth]), encoder, rules)
    sums = np.zeros(len(given))
    fold = np.random.default_rng(0).permutation(len(given)) % rules.folds
    for number in range(rules.folds if given else 0):
        others, own = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fitted = _fit(known.join(real.take(others)), np.concatenate([known_truth, truth[others]]), encoder, rules)
        sums[own] = fitted.compute_sums(real.take(own))
    suite_sums = final.compute_sums(held)
    slope, offset = _calibrate(np.concatenate([sums, suite_sums]), np.concatenate([truth, held_truth]))
    logits = slope * sums + offset - real.log_counts
    suite_logits = slope * suite_sums + offset - held.log_counts
    thresholds = {}
    for language in sorted({*languages, SUITE_LANGUAGE}):
        of_language = np.array([each == language for each in languages], dtype=bool)
        limits = []
        if language == SUITE_LANGUAGE:
            limits.append(_find_limit(suite_logits[~held_truth], rules.most_harmless_suite))
        if min((of_language & truth).sum(), (of_language & ~truth).sum()) >= rules.min_examples:
            limits.append(_find_limit(logits[of_language & ~truth], rules.most_harmless_examples))
        if limits:
            thresholds[language] = float(squash(np.array([max(limits)]))[0])
    head = msgspec.structs.replace(final, slope=slope, offset=offset, thresholds=thresholds)
    suite = tuple(write_suite(2))
    suite_stopped = find_stopped(head, [case.text for case in suite], (SUITE_LANGUAGE,) * len(suite), encode)
    return Measured(head, given, languages, _stop(squash(logits), languages, thresholds), suite, suite_stopped)


def _read_suite(part: int, encode: Encode) -> tuple[Pieces, Bools]:
    cases = write_suite(part)
    return read_pieces([case.text for case in cases], encode), np.array([case.is_harmful for case in cases])


def find_stopped(head: Head, texts: Sequence[str], languages: Sequence[str], encode: Encode) -> Bools:
    """Return for every text whether this head stops it; a language without a threshold stops nothing."""
    return _stop(head.compute_probabilities(read_pieces(texts, encode)), languages, head.thresholds)


def _fit(pieces: Pieces, truth: Bools, encoder: str, rules: TrainingRules) -> Head:
    """Fit on pieces: each gets its text's label, and its share of the text's weight."""
    from sklearn.linear_model import LogisticRegression

    mean = pieces.vectors.mean(axis=0).astype(np.float64)
    deviation = pieces.vectors.std(axis=0).astype(np.float64) + 1e-6
    rows = build_features(pieces.vectors, pieces.signals, mean, deviation)
    share = 1 / np.bincount(pieces.owner)[pieces.owner]
    model = LogisticRegression(C=rules.strength, max_iter=1000, class_weight="balanced")
    model.fit(rows, truth[pieces.owner], sample_weight=share)
    assert len(model.coef_[0]) == len(mean) * (1 + len(MULTIPLIED)) + pieces.signals.shape[1]
    return Head(
        encoder=encoder,
        mean=[round(value, 6) for value in mean.tolist()],
        deviation=[round(value, 6) for value in deviation.tolist()],
        weights=[round(value, 6) for value in model.coef_[0].tolist()],
        bias=round(float(model.intercept_[0]), 6),
    )


def _calibrate(sums: Floats, truth: Bools) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(sums[:, None], truth)
    # A slope below zero would turn the order around: such scores say nothing, and stay as they are.
    return max(float(model.coef_[0][0]), 1e-3), float(model.intercept_[0])


def _find_limit(harmless: Floats, most: float) -> float:
    """Find the sum from which at most this share of harmless texts is stopped, in the middle of a gap."""
    ordered = np.sort(harmless)[::-1]
    allowed = int(most * len(ordered))
    highest = ordered[allowed - 1] if allowed else ordered[0] + 1.0
    return float(highest + ordered[allowed]) / 2


def _stop(probabilities: Floats, languages: Sequence[str], thresholds: dict[str, float]) -> Bools:
    limits = np.array([thresholds.get(language, np.inf) for language in languages])
    stopped: Bools = probabilities >= limits
    return stopped
