"""Writes the digits of all scripts as ASCII ones, so that numbers are compared by value."""

import sys
import unicodedata

_DIGITS = {
    point: str(unicodedata.digit(chr(point)))
    for point in range(0x80, sys.maxunicode + 1)
    if unicodedata.category(chr(point)) == "Nd"
}

FOREIGN_DIGIT = f"[{''.join(map(chr, _DIGITS))}]"
"""RE2 and Python: one digit of another script than ASCII's."""
_CHARACTERS = frozenset(map(chr, _DIGITS))


def write_digits(text: str) -> str:
    """Return `text` with the digits of all scripts written as ASCII ones: "१४०" is 140."""
    # To look costs a tenth of translating every character, and few texts have any.
    return text if text.isascii() or _CHARACTERS.isdisjoint(text) else text.translate(_DIGITS)
