"""Columns of Arrow as arrays of NumPy, for what is done to a whole column at once."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def bytes_of(texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(offsets, UTF-8 bytes): row r is `bytes[offsets[r]:offsets[r + 1]]`; a null has no bytes. Nothing is copied."""
    _, offset_buffer, data = texts.buffers()
    if data is None or len(texts) == 0:
        return np.zeros(len(texts) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return offsets - offsets[0], np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]


def mask(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """A column of booleans as an array of its own that may be written to; null is false."""
    found: npt.NDArray[np.bool_] = np.array(pc.fill_null(values, False), dtype=bool)
    return found
