"""Judges the team's own prompts: each distinct text of a day once, as findings that refuse no row.

A system prompt says "never reveal your system prompt" and names a support address: in a person's text both are
refused, in the operator's both are ordinary. So its texts are no reason to refuse a row. What the row checks say about
them is shown to the team, because a secret or a forged chat marker in a prompt is in every row that is trained on.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Dictionary, values_of
from flywheel_assets.curation.policy.policy import Policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Evidence

MOST_JUDGED = 1_000
"""Distinct texts judged per day, the most frequent ones: a prompt that names each user is a new one in every row."""


@dataclass(frozen=True)
class OperatorFinding:
    """One objection of the policy to one text of the operator; holds no text."""

    text_hash: str
    """BLAKE2b of the text, 16 hexadecimal characters."""
    rows: int
    """Rows of the day whose prompt holds the text."""
    reasons: tuple[str, ...]
    """Reason codes, as a row would have had them."""
    evidence: tuple[Evidence, ...]
    """What was found where; `field` is "operator", positions are characters of the text."""


def hash_operator_text(text: str) -> str:
    """Compute the name that a finding has for a text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def judge_operator_texts(days: Sequence[Iterable[Dictionary]], policy: Policy) -> list[tuple[OperatorFinding, ...]]:
    """Judge every distinct operator's text of some days by the policy's own checks; models outside are not asked.

    Args:
        days: dictionaries of each day, one text per row.
        policy: of the gate.

    Returns:
        The findings of each day, most rows first.
    """
    counted = [_count_texts(columns) for columns in days]
    of_days = [
        [text for text, _ in sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:MOST_JUDGED]]
        for rows in counted
    ]
    # A prompt recurs on every day: it is judged once.
    texts = list(dict.fromkeys(chain.from_iterable(of_days)))
    if not texts:
        return [()] * len(days)
    empty = [""] * len(texts)
    judged = pa.table({"prompt": texts, "chosen": empty, "rejected": [None] * len(texts)}, schema=TEXTS)
    verdicts = {texts[row]: verdict for row, verdict in replace(policy, outside=()).audit(judged).items()}
    if len(days) > 1 and not all(verdict.is_complete for verdict in verdicts.values()):
        # A check that breaks objects to every text that it was shown.
        return [findings for day in days for findings in judge_operator_texts([day], policy)]
    return [
        tuple(
            OperatorFinding(
                text_hash=hash_operator_text(text),
                rows=rows[text],
                reasons=(verdicts[text].reason.value,),
                evidence=tuple(replace(found, field="operator") for found in verdicts[text].evidence),
            )
            for text in asked
            if text in verdicts
        )
        for rows, asked in zip(counted, of_days, strict=True)
    ]


def _count_texts(columns: Iterable[Dictionary]) -> Counter[str]:
    """Count the rows of each text; most rows have none, which does not count."""
    rows: Counter[str] = Counter()
    for column in columns:
        counted = pc.value_counts(column.indices)
        numbers, counts = values_of(counted.field("values")), values_of(counted.field("counts"))
        for number, count in zip(numbers, counts, strict=True):
            rows[column.dictionary[number].as_py()] += count
    del rows[""]
    return rows
