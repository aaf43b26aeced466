"""Gives types to columns of Arrow, and their bytes and truth values as arrays of NumPy."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    # Generic in pyarrow-stubs only. The element's type is that of a schema, which no checker sees.
    Array: TypeAlias = pa.Array[Any]
    ChunkedArray: TypeAlias = pa.ChunkedArray[Any]
    Dictionary: TypeAlias = pa.DictionaryArray[Any, Any]
else:
    Array, ChunkedArray, Dictionary = pa.Array, pa.ChunkedArray, pa.DictionaryArray

Column: TypeAlias = Array | ChunkedArray
"""A column of a table, in one piece or in several."""


def as_dictionary(column: Array) -> Dictionary:
    """Return a column that is a dictionary, under its own type."""
    assert isinstance(column, pa.DictionaryArray)
    return column


def values_of(column: Column) -> list[Any]:
    """Return a column as Python values, None for null; the schema says which of them may be null."""
    return column.to_pylist()


def view_bytes(texts: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return (offsets, UTF-8 bytes) of a column without a copy.

    Row r is `bytes[offsets[r]:offsets[r + 1]]`; a null has no bytes.
    """
    _, offset_buffer, data = texts.buffers()
    if data is None or len(texts) == 0:
        return np.zeros(len(texts) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)  # type: ignore[call-overload]
    return offsets - offsets[0], np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]  # type: ignore[call-overload]


def to_mask(values: Column) -> npt.NDArray[np.bool_]:
    """Give a column of booleans as an array of its own that may be written to; null is false."""
    found: npt.NDArray[np.bool_] = np.array(values.fill_null(pa.scalar(False)), dtype=bool)
    return found
