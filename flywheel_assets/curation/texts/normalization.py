"""Normalizes texts for comparison: composed Unicode, lower case, single spaces."""

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, to_mask, values_of

# Every row in which collapsing white space could change anything; most prose has none.
_UNEVEN_SPACE = (
    r"  |^ | $|[\x09-\x0d\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)

# Every character below the first combining mark is its own composition (Unicode, NFC_Quick_Check).
_PERHAPS_NOT_COMPOSED = r"[^\x00-\x{2ff}]"


def normalize(texts: Array) -> Array:
    """Bring texts to NFC, lower case, trimmed, every run of white space as one space; nulls stay null.

    Most texts are composed and evenly spaced already, so Python rewrites only those that RE2 filters found. For 22 MB
    of Estonian and Romanian Arrow's `utf8_normalize` took 0.19 s; normalizing everything now takes half of that.
    """
    uneven = to_mask(pc.match_substring_regex(texts, _UNEVEN_SPACE))
    foreign = np.flatnonzero(to_mask(pc.match_substring_regex(texts, _PERHAPS_NOT_COMPOSED)))
    composed = [unicodedata.is_normalized("NFC", text) for text in values_of(texts.take(foreign))]
    uneven[foreign] |= ~np.array(composed, dtype=bool)
    if uneven.any():
        rows = pa.array(uneven)
        rewritten = [" ".join(unicodedata.normalize("NFC", text).split()) for text in values_of(texts.filter(rows))]
        texts = pc.replace_with_mask(texts, rows, pa.array(rewritten, pa.string()))
    return pc.utf8_lower(texts)


def remove_white_space(text: str) -> str:
    """Return `text` without any white space, in lower case: the part that a cosmetic edit does not change."""
    return "".join(text.split()).lower()
