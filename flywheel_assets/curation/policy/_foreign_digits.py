"""Looks for personal data whose digits are written in another script: full-width, Devanagari, Arabic and others.

Every decimal digit of Unicode has a value. The few rows that have one outside ASCII are searched once more with all
digits in ASCII, character by character, so that places stay the same.
"""

import sys
import unicodedata
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask, values_of, view_bytes
from flywheel_assets.curation.policy._pattern_check import PatternCheck
from flywheel_assets.curation.policy._personal_data import PERSONAL_DATA
from flywheel_assets.curation.policy.verdicts import TEXTS, TRAINED_FIELDS, Judgement

# RE2: Arabic, Persian, Devanagari, Bengali, Thai, full-width and mathematical digits.
_FOREIGN_DIGIT = "[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59\uff10-\uff19\U0001d7ce-\U0001d7ff]"

_FIRST_BYTE = 0xD9  # of U+0660 in UTF-8


@dataclass(frozen=True)
class ForeignDigitsCheck:
    """Finds what the patterns of personal data find, after all digits became ASCII digits."""

    name: str = "foreign_digits"
    inner: PatternCheck = field(default_factory=lambda: PatternCheck("personal_data", PERSONAL_DATA))

    @property
    def version(self) -> str:
        """Follows the patterns."""
        return f"1-{self.inner.version}"

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; only those with a foreign digit are read."""
        suspects = np.zeros(len(texts), dtype=bool)
        for name in TRAINED_FIELDS:
            column = texts[name].combine_chunks().fill_null("")
            starts, content = view_bytes(column)
            # Bytes below begin only characters before the first foreign digit: most texts are not read at all.
            places = np.flatnonzero(content >= _FIRST_BYTE)
            hit = np.unique(np.searchsorted(starts, places, side="right") - 1)
            some = pa.array(values_of(column.take(hit)), pa.string())
            digits = to_mask(pc.match_substring_regex(some, _FOREIGN_DIGIT))
            suspects[hit[digits]] = True
        rows = np.flatnonzero(suspects)
        table = _build_digits()
        read = {
            name: [_translate(text, table) for text in values_of(texts[name].take(rows))] for name in TRAINED_FIELDS
        }
        found = self.inner.judge(pa.table(read, schema=TEXTS)) if len(rows) else Judgement(suspects[:0], {})
        passed = np.ones(len(texts), dtype=bool)
        verdicts = {int(rows[row]): verdict for row, verdict in found.verdicts.items()}
        passed[list(verdicts)] = False
        return Judgement(passed, verdicts)


def _translate(text: str | None, table: dict[int, str]) -> str | None:
    return None if text is None else text.translate(table)


@cache
def _build_digits() -> dict[int, str]:
    return {
        point: str(unicodedata.digit(chr(point)))
        for point in range(0x660, sys.maxunicode + 1)
        if unicodedata.category(chr(point)) == "Nd"
    }
