"""Scores texts by a linear head over frozen vectors and signals; a head is a JSON file of plain numbers.

Features of one window: its standardised vector, the text's signals, and the vector once more for every signal of
`MULTIPLIED`, where that signal is 1. The sum of features times weights becomes a probability by Platt's method
(Platt 1999): 1 / (1 + exp(−(slope · sum + offset))). A text has the probability of its worst window.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import SettingsError
from flywheel_assets.screening.heads.signals import MULTIPLIED, REVISION, SIGNALS

Floats = npt.NDArray[np.float64]
_VECTOR_SCALE = 4.0
"""Length of a standardised vector: the strength of regularization is chosen for it."""
_SIGNAL_SCALE = 1.5


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A trained head with everything that decides about a text; grain: one file."""

    encoder: str
    """Digest of the encoder's files that it was trained with."""
    signals: tuple[str, ...] = SIGNALS
    signals_revision: int = REVISION
    mean: list[float]
    """Of every feature of a vector over the training windows."""
    deviation: list[float]
    weights: list[float]
    bias: float
    slope: float = 1.0
    offset: float = 0.0
    thresholds: dict[str, float] = {}
    """Language → probability from which a text waits. A language that is missing was not evaluated."""

    @property
    def version(self) -> str:
        """Digest of all of the above."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def compute_sums(self, vectors: Sequence[npt.NDArray[np.float32]], signals: npt.NDArray[np.float32]) -> Floats:
        """Compute features times weights, of every text's worst window.

        Args:
            vectors: per text, one row per window.
            signals: one row per text, columns SIGNALS.
        """
        if not vectors:
            return np.zeros(0)
        owner = np.repeat(np.arange(len(vectors)), [len(windows) for windows in vectors])
        mean, deviation = np.asarray(self.mean), np.asarray(self.deviation)
        sums = build_features(np.concatenate(vectors), signals[owner], mean, deviation) @ np.asarray(self.weights)
        worst = np.full(len(vectors), -np.inf)
        np.maximum.at(worst, owner, sums + self.bias)
        return worst

    def compute_probabilities(
        self, vectors: Sequence[npt.NDArray[np.float32]], signals: npt.NDArray[np.float32]
    ) -> Floats:
        """Compute the probability of harm per text."""
        return squash(self.slope * self.compute_sums(vectors, signals) + self.offset)


def squash(sums: Floats) -> Floats:
    """Map sums to probabilities; far sums stay finite."""
    probabilities: Floats = 1 / (1 + np.exp(-np.clip(sums, -60, 60)))
    return probabilities


def build_features(
    vectors: npt.NDArray[np.float32], signals: npt.NDArray[np.float32], mean: Floats, deviation: Floats
) -> Floats:
    """Build one row of features per window."""
    standard = (vectors - mean) / deviation * (_VECTOR_SCALE / np.sqrt(vectors.shape[1]))
    parts = [standard, signals * _SIGNAL_SCALE]
    parts += [standard * signals[:, [SIGNALS.index(name)]] for name in MULTIPLIED]
    features: Floats = np.concatenate(parts, axis=1)
    return features


def read_head(path: Path) -> Head:
    """Read a head that this version of the code can score with.

    Raises:
        SettingsError: the file is no head, or its signals are others than today's.
    """
    try:
        head = msgspec.json.decode(path.read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"{path} is no head ({type(error).__name__}): train one with `flywheel screen train`"
        ) from None
    if (head.signals, head.signals_revision) != (SIGNALS, REVISION):
        raise SettingsError(f"{path} was trained with other signals: train a new head with `flywheel screen train`")
    return head
