"""Draws admitted rows of gold for review, and estimates how many of them are wrong.

A row is drawn by the hash of its event's id: the same rows on every machine and after every backfill, and a larger
share keeps those of a smaller one. Nothing waits for the verdict: a drawn row is in gold and is trained on, like every
other.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.measures.shares import bound_share
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind
from flywheel_assets.review.decisions import SAMPLED, Decision, Verb, find_standing

_HASH_DIGITS = 8
_EXAMPLES = (ExampleKind.PREFERENCE_PAIR, ExampleKind.ACCEPTED_OUTPUT)
"""What one person said of one output, which one decision can call right or wrong."""


@dataclass(frozen=True)
class ErrorRate:
    """The share of admitted rows that reviewers called wrong."""

    reviewed: int
    wrong: int
    low: float
    """Of the 95 % interval by Clopper and Pearson."""
    high: float

    @property
    def share(self) -> float | None:
        """Return the share in the sample; None: nothing was reviewed."""
        return self.wrong / self.reviewed if self.reviewed else None


def measure_error_rate(decisions: Iterable[Decision]) -> ErrorRate:
    """Estimate the error rate of gold from the decisions that stand about drawn rows.

    A row is wrong where a reviewer said so, or wrote another answer.
    """
    verdicts = [each.verb is not Verb.ACCEPT for each in find_standing(decisions).values() if each.reason == SAMPLED]
    wrong = sum(verdicts)
    return ErrorRate(len(verdicts), wrong, *bound_share(wrong, len(verdicts)))


def select_sample(share: float, columns: str, most: int) -> str:
    """Write the statement that selects drawn rows of the view `gold`, in the order of their hashes.

    In that order, so that the first rows of a sample are a sample, too.

    Args:
        share: part of the rows that are drawn, 0 to 1.
        columns: of the row.
        most: rows at most.
    """
    drawn = f"substr(md5(feedback_event_id), 1, {_HASH_DIGITS})"
    highest = f"{min(int(share * 16**_HASH_DIGITS), 16**_HASH_DIGITS - 1):0{_HASH_DIGITS}x}"
    kinds = ", ".join(quote(each.value) for each in _EXAMPLES)
    return f"""
SELECT {columns}, {quote(SAMPLED)} AS reason, feedback_received_at FROM gold
WHERE {drawn} {"<=" if share >= 1 else "<"} {quote(highest)} AND held_reason IS NULL
  AND example_kind IN ({kinds}) AND source <> {quote(REVIEWER_SOURCE)}
ORDER BY md5(feedback_event_id)
LIMIT {most}
"""
