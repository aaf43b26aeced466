"""Ranks the sources of feedback by trust, for rows that disagree about the same output."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

REVIEWER_SOURCE = "reviewer"
IMPORT_PREFIX = "import:"


def rank_sources(sources: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int8]:
    """Return 2 for a reviewer, 0 for an import of old telemetry, 1 for all others; one value per row."""
    trust = pc.if_else(pc.equal(sources, REVIEWER_SOURCE), 2, pc.if_else(is_import(sources), 0, 1))
    return trust.to_numpy(zero_copy_only=False).astype(np.int8)  # type: ignore[no-any-return]


def is_import(sources: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return whether each row came from an imported file and not from people using the application."""
    return pc.starts_with(sources, IMPORT_PREFIX)
