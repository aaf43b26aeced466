"""Reads reviewers' decisions about refused texts as training examples for a head.

A text that a check of language stopped and a reviewer rejected is harmful; one that a reviewer accepted, whatever had
stopped it, is harmless. Other rejections say nothing about harm. Of several decisions about one row the last counts.
"""

import msgspec

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, JOINED_FEEDBACK
from flywheel_assets.records import REVIEWER_SOURCE, Reason
from flywheel_assets.screening.heads.training import Example

_REASONS_OF_HARM = frozenset((Reason.TOXIC_LANGUAGE, Reason.NEUTRALITY, Reason.CLASSIFIER, Reason.JUDGE))


class _Decision(msgspec.Struct):
    """The part of a reviewer's decision that is read here; the whole is written by `review.decisions`."""

    verb: str
    row_id: str
    reason: str


def read_reviewed_examples(lake: Lake) -> list[Example]:
    """Read one example per decided row whose text is still there; texts without consent are left out."""
    where = f"source = {quote(REVIEWER_SOURCE)}"
    events = lake.read(GROUND_TRUTH, columns=["source", "received_at", "comment"], where=where)
    decided: dict[str, bool] = {}
    for event in sorted(events.to_pylist(), key=lambda row: row["received_at"]):
        try:
            decision = msgspec.json.decode(event["comment"] or "", type=_Decision)
        except msgspec.DecodeError:
            continue
        if decision.verb == "accept":
            decided[decision.row_id] = False
        elif decision.verb == "reject" and decision.reason in _REASONS_OF_HARM:
            decided[decision.row_id] = True
    if not decided:
        return []
    columns = ["feedback_event_id", "output", "final_text", "do_not_train"]
    named = ", ".join(map(quote, sorted(decided)))
    rows = lake.read(JOINED_FEEDBACK, columns=columns, where=f"feedback_event_id IN ({named}) AND NOT do_not_train")
    return [
        Example(row["final_text"] or row["output"], decided[row["feedback_event_id"]])
        for row in rows.to_pylist()
        if row["final_text"] or row["output"]
    ]
