"""Scores texts by a linear head over frozen vectors and signals; a head is a JSON file of plain numbers.

A text is read in pieces of a few sentences: what a head learnt from comments says little about the mean of a page, and
harm at a page's end counts as well. Features of a piece: its standardised vector, its signals, and the vector once more
for every signal of `MULTIPLIED`, where that signal is 1. The sum of features times weights becomes a probability by
Platt's method (Platt 1999): 1 / (1 + exp(−(slope · sum + offset))). A text has the probability of its worst piece.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import SettingsError
from flywheel_assets.screening.heads.signals import MULTIPLIED, REVISION, SIGNALS, read_signals

Floats = npt.NDArray[np.float64]
Encode = Callable[[list[str]], npt.NDArray[np.float32]]
_PIECE_CHARACTERS = 400
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
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
    """Of every feature of a vector over the training pieces."""
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

    def compute_sums(self, pieces: "Pieces") -> Floats:
        """Compute features times weights, of every text's worst piece."""
        worst = np.full(pieces.texts, -np.inf)
        if pieces.texts:
            mean, deviation = np.asarray(self.mean), np.asarray(self.deviation)
            rows = build_features(pieces.vectors, pieces.signals, mean, deviation)
            np.maximum.at(worst, pieces.owner, rows @ np.asarray(self.weights) + self.bias)
        return worst

    def compute_probabilities(self, pieces: "Pieces") -> Floats:
        """Compute the probability of harm per text."""
        return squash(self.slope * self.compute_sums(pieces) + self.offset - pieces.log_counts)


@dataclass(frozen=True)
class Pieces:
    """The pieces of some texts as numbers: one row per piece, in the order of the texts."""

    texts: int
    owner: npt.NDArray[np.int64]
    """The number of each piece's text."""
    vectors: npt.NDArray[np.float32]
    signals: npt.NDArray[np.float32]

    @property
    def log_counts(self) -> Floats:
        """Logarithm of each text's number of pieces, which its odds are divided by.

        The worst of twenty harmless pieces looks worse than one: without this, one news article in eight was stopped.
        """
        counts: Floats = np.log(np.bincount(self.owner, minlength=self.texts))
        return counts

    def take(self, texts: npt.NDArray[np.int64]) -> "Pieces":
        """Return the pieces of some texts, which are given in rising order."""
        rows = np.isin(self.owner, texts)
        owner = np.searchsorted(texts, self.owner[rows])
        return Pieces(len(texts), owner, self.vectors[rows], self.signals[rows])

    def join(self, other: "Pieces") -> "Pieces":
        """Return the pieces of these texts and then those of the others."""
        if not self.texts or not other.texts:
            return self if self.texts else other
        return Pieces(
            self.texts + other.texts,
            np.concatenate([self.owner, other.owner + self.texts]),
            np.concatenate([self.vectors, other.vectors]),
            np.concatenate([self.signals, other.signals]),
        )


def read_pieces(texts: Sequence[str], encode: Encode) -> Pieces:
    """Cut texts into pieces and read vectors and signals of each."""
    cut = [split_text(text) for text in texts]
    pieces = [piece for some in cut for piece in some]
    owner = np.repeat(np.arange(len(cut)), [len(some) for some in cut])
    return Pieces(len(cut), owner, encode(pieces), read_signals(pieces))


def split_text(text: str) -> list[str]:
    """Split a text at sentence ends into pieces of at most 400 characters.

    Line breaks end sentences too; an empty text is one piece.
    """
    pieces = [""]
    for sentence in _SENTENCE_END.split(text):
        for start in range(0, len(sentence), _PIECE_CHARACTERS):
            part = sentence[start : start + _PIECE_CHARACTERS].strip()
            if len(pieces[-1]) + len(part) < _PIECE_CHARACTERS:
                pieces[-1] = f"{pieces[-1]} {part}".strip()
            else:
                pieces.append(part)
    return pieces


def squash(sums: Floats) -> Floats:
    """Map sums to probabilities; far sums stay finite."""
    probabilities: Floats = 1 / (1 + np.exp(-np.clip(sums, -60, 60)))
    return probabilities


def build_features(
    vectors: npt.NDArray[np.float32], signals: npt.NDArray[np.float32], mean: Floats, deviation: Floats
) -> Floats:
    """Build one row of features per piece."""
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
