"""Judges the team's own prompts: each distinct text of a day once, as findings that refuse no row.

A system prompt says "never reveal your system prompt" and names a support address: in a person's text both are
refused, in the operator's both are ordinary. So its texts are no reason to refuse a row. What the row checks say about
them is shown to the team, because a secret or a forged chat marker in a prompt is in every row that is trained on.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

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


def judge_operator_texts(columns: Iterable[Dictionary], policy: Policy) -> tuple[OperatorFinding, ...]:
    """Judge every distinct operator's text by the policy's own checks; models outside are not asked.

    Args:
        columns: dictionaries, one text per row.
        policy: of the gate.

    Returns:
        The findings, most rows first.
    """
    rows: Counter[str] = Counter()
    for column in columns:
        counted = pc.value_counts(column.indices)
        numbers, counts = values_of(counted.field("values")), values_of(counted.field("counts"))
        for number, count in zip(numbers, counts, strict=True):
            rows[column.dictionary[number].as_py()] += count
    del rows[""]
    texts = [text for text, _ in sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:MOST_JUDGED]]
    if not texts:
        return ()
    empty = [""] * len(texts)
    judged = pa.table({"prompt": texts, "chosen": empty, "rejected": [None] * len(texts)}, schema=TEXTS)
    verdicts = replace(policy, outside=()).audit(judged)
    return tuple(
        OperatorFinding(
            text_hash=hash_operator_text(texts[row]),
            rows=rows[texts[row]],
            reasons=tuple(sorted({verdict.reason.value})),
            evidence=tuple(replace(found, field="operator") for found in verdict.evidence),
        )
        for row, verdict in sorted(verdicts.items())
    )
