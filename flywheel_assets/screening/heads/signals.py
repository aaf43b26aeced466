"""Says about a text what a word list can say: which of its lists hit, and how the text speaks.

These values are features of a head next to the encoder's vector. Three of them are also multiplied with the vector: the
same words mean something else about people, in a quotation, and under a negation.
"""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.policy.language import GROUPS, NEUTRALITY, TOXIC_LANGUAGE
from flywheel_assets.curation.policy.policy import build_word_list
from flywheel_assets.curation.policy.verdicts import TEXTS

_LISTS = tuple(pattern.name for pattern in TOXIC_LANGUAGE + NEUTRALITY)
_MANNERS = (
    ("names_people", re.compile(rf"\b(?:{GROUPS}|you|he|she|they|them)\b", re.ASCII)),
    (
        "reports_speech",
        re.compile(
            r"\"|\b(?:say|says|said|saying|claim(?:s|ed|ing)?|wr(?:o|i)te(?:s)?|writing|tol[d]|call(?:s|ed|ing)?|lie|wrong"
            r"|racist|hateful|bigots?|prejudice|hate speech|banned|reported|true|believe|propaganda)\b",
            re.ASCII,
        ),
    ),
    ("negates", re.compile(r"\b(?:not?|never|cannot|without)\b|n't\b", re.ASCII)),
)
SIGNALS = (*_LISTS, *(name for name, _ in _MANNERS))
MULTIPLIED = tuple(name for name, _ in _MANNERS)
REVISION = 1
"""Raised by hand when a signal could say something else: part of the version of every head."""


def read_signals(texts: list[str]) -> npt.NDArray[np.float32]:
    """Read the signals of every text: one row per text, one column per name in SIGNALS, 0 or 1."""
    found = np.zeros((len(texts), len(SIGNALS)), np.float32)
    if not texts:
        return found
    table = pa.table({"prompt": [""] * len(texts), "chosen": texts, "rejected": [None] * len(texts)}, schema=TEXTS)
    for check in build_word_list():
        for row, verdict in check.judge(table).verdicts.items():
            for evidence in verdict.evidence:
                found[row, SIGNALS.index(evidence.check)] = 1
    for row, text in enumerate(texts):
        plain = text.lower().replace("’", "'").replace("“", '"')
        for name, expression in _MANNERS:
            found[row, SIGNALS.index(name)] = bool(expression.search(plain))
    return found


def list_word_hits(texts: list[str]) -> npt.NDArray[np.bool_]:
    """Return for every text whether the word list of toxic language alone would stop it."""
    columns = [SIGNALS.index(pattern.name) for pattern in TOXIC_LANGUAGE]
    return np.asarray(read_signals(texts)[:, columns].any(axis=1), dtype=bool)
