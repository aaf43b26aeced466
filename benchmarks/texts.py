"""Texts that compress and compare as written ones do: sentences of 100 characters from 5,000 words by Zipf's law."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_WORDS, _SENTENCES, _WORDS_OF_A_SENTENCE = 5000, 200_000, 14


class Texts:
    """A source of texts, the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        letters = self._random.integers(97, 123, (_WORDS, 11), dtype=np.uint8)
        lengths = self._random.integers(2, 12, _WORDS)
        words = np.array([row[:length].tobytes().decode() for row, length in zip(letters, lengths, strict=True)])
        drawn = words[self._random.zipf(1.2, (_SENTENCES, _WORDS_OF_A_SENTENCE)) % _WORDS]
        self._sentences = pa.array([" ".join(row).capitalize() + "." for row in drawn.tolist()])

    def draw(self, rows: int, sentences: int) -> pa.Array:
        """New texts of so many sentences each."""
        return self._joined(self._random.integers(0, _SENTENCES, (rows, sentences)))

    def draw_edited(self, rows: int, sentences: int, replaced: int) -> tuple[pa.Array, pa.Array]:
        """New texts, and the same texts with their last sentences replaced by new ones."""
        before = self._random.integers(0, _SENTENCES, (rows, sentences))
        after = before.copy()
        after[:, sentences - replaced :] = self._random.integers(0, _SENTENCES, (rows, replaced))
        return self._joined(before), self._joined(after)

    def _joined(self, numbers: npt.NDArray[np.int64]) -> pa.Array:
        rows, width = numbers.shape
        chosen = self._sentences.take(pa.array(numbers.ravel()))
        ends = np.arange(0, rows * width + 1, width, dtype=np.int32)
        return pc.binary_join(pa.ListArray.from_arrays(ends, chosen), " ")
