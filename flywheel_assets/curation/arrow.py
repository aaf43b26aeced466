"""Gives access to the bytes under a column of strings, for work on a whole column at once."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def view_bytes(texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return (offsets, UTF-8 bytes) of a column without a copy.

    Row r is `bytes[offsets[r]:offsets[r + 1]]`; a null has no bytes.
    """
    _, offset_buffer, data = texts.buffers()
    if data is None or len(texts) == 0:
        return np.zeros(len(texts) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return offsets - offsets[0], np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
