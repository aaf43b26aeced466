"""Reads the review queue from the lake: refused rows that a reviewer may admit, and unanswered complaints.

With them, and apart from them, come rows of gold that were drawn for review: see `samples`.

Not in the queue, and never shown: rows without consent, rows that hold a secret (the policy rejects them for good), and
reviewers' own rows. Rows that only teach nothing (`trivial_edit`, `duplicate`, …) are decided by other people's edits
or not at all.

A decided row leaves at once, because the index of decisions is read as well as the lake; see `decisions`. A complaint
also leaves when it is taken back, when its person says something positive about the output later, when a newer
revision of it says something else, and when a correction of the output is there.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import pyarrow as pa

from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.likeness.normalization import make_prompts_readable
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    GROUND_TRUTH,
    PREFERENCE_TABLES,
    QUARANTINE,
    ApplicationTables,
)
from flywheel_assets.lake.whatif.trace import Traced
from flywheel_assets.records import CURATION_STAGE, REVIEWER_SOURCE, Reason, Signal
from flywheel_assets.review.decisions import (
    CORRECTABLE,
    SAMPLED,
    Decision,
    DecisionIndex,
    Verb,
    find_standing,
    read_decision,
    read_labels,
)
from flywheel_assets.review.samples import select_sample

THUMBS_DOWN = "thumbs_down"
"""A reason besides the reason codes: a user said no and did not say what would have been right."""

REASONS = {
    Reason.PROMPT_INJECTION.value: "prompt injection",
    Reason.DESTRUCTIVE_COMMAND.value: "destructive command",
    Reason.TOXIC_LANGUAGE.value: "toxic language",
    Reason.NEUTRALITY.value: "neutrality",
    Reason.PERSONAL_DATA.value: "personal data",
    Reason.STRUCTURAL_ABUSE.value: "structural abuse",
    Reason.CLASSIFIER.value: "classifier check",
    Reason.JUDGE.value: "judge",
    Reason.DISPUTED.value: "disputed label",
    Reason.HELD_FOR_REVIEW.value: "label held for review",
    Reason.UNSUPPORTED_FACT.value: "changed fact",
    Reason.REMARK.value: "remark instead of an answer",
    Reason.CANNED_TEXT.value: "same text on many requests",
    Reason.WRONG_LANGUAGE.value: "another language than asked for",
    Reason.UNSCREENED_LANGUAGE.value: "language that no check reads",
    Reason.REWRITE.value: "rewrite",
    Reason.CHECK_UNAVAILABLE.value: "check unavailable",
    THUMBS_DOWN: "thumbs down",
    SAMPLED: "sample of gold",
}
"""The reasons that people look at, the severest first, in their words. `policy` is missing: a check of ours broke, and
curating the day again repairs it."""

_RANK = {reason: rank for rank, reason in enumerate(REASONS)}
_LABEL_REASONS = (Reason.DISPUTED.value, Reason.HELD_FOR_REVIEW.value)
_FRESH_S = 5.0
MOST_ITEMS = 50_000


class Order(StrEnum):
    """The order of the queue."""

    SEVEREST = "severest"
    OLDEST = "oldest"


@dataclass(frozen=True)
class Reviewed:
    """One application whose rows are reviewed here."""

    lake: Lake
    join_days: int
    """A label later than this after its prediction is matched with nothing; such items leave the queue undecided,
    and so do approvals that a check stopped. Edits carry their text."""
    contract: ScoreContract | None = None
    """The classifier's contract; None: predictions are texts."""
    traced: Traced | None = None
    """The places in which an event leaves traces; None: the pages trace nothing."""
    sampled_share: float = 0.02
    """Part of the admitted rows that are drawn for review; of a classifier none are."""

    @property
    def name(self) -> str:
        """The application's name."""
        return self.lake.application

    @property
    def tables(self) -> ApplicationTables:
        """Its tables, by its kind."""
        return PREFERENCE_TABLES if self.contract is None else CLASSIFICATION_TABLES


@dataclass(frozen=True)
class Item:
    """One row that waits for a decision; no text."""

    row_id: str
    prediction_id: str
    day: date
    reason: str
    detail: str | None
    evidence: tuple[dict[str, Any], ...]
    received_at: datetime
    decide_until: date | None
    """Last day on which a decision still meets its prediction; None: edits carry their text and are never late."""
    confirm_until: date | None = None
    """Last day on which a confirmed complaint still meets its prediction; None: the row is no complaint."""

    @property
    def severity(self) -> tuple[float, ...]:
        """Sort key: the severest reason first, then the surest finding, then the oldest."""
        if self.reason == SAMPLED:
            # By id, which is a hash: any first part of the sample is a sample.
            return (_RANK[self.reason],)
        surest = max((float(finding.get("score") or 0.0) for finding in self.evidence), default=0.0)
        return (_RANK[self.reason], -surest, self.received_at.timestamp())

    @property
    def is_about_prediction(self) -> bool:
        """True where one decision about its prediction settles it, whichever row showed it."""
        return self.reason == THUMBS_DOWN or self.reason in _LABEL_REASONS


class ReviewQueue:
    """The queue of one application. It reads the lake again when its tables changed; blocking, safe between threads."""

    def __init__(
        self, reviewed: Reviewed, index: DecisionIndex, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.reviewed = reviewed
        self.index = index
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._snapshots: tuple[int | None, ...] | None = None
        self._items: list[Item] = []
        self._materialized: list[Decision] = []

    def list_waiting(self, today: date, reason: str | None = None, order: Order = Order.SEVEREST) -> list[Item]:
        """List the undecided rows, in order; those drawn from gold only where `reason` asks for them."""
        with self._lock:
            self._refresh()
            standing = find_standing([*self._materialized, *self.index.read_decisions()])
            items = self._items
        rows = set(standing)
        predictions = {decision.prediction_id for decision in standing.values()}
        found = [
            item
            for item in items
            if item.row_id not in rows
            and not (item.is_about_prediction and item.prediction_id in predictions)
            and (item.decide_until is None or item.decide_until >= today)
            and (item.reason == reason if reason is not None else item.reason != SAMPLED)
        ]
        if order is Order.OLDEST:
            return sorted(found, key=lambda item: (item.received_at, item.row_id))
        return sorted(found, key=lambda item: (item.severity, item.row_id))

    def list_decided(self) -> list[Decision]:
        """List all decisions, the newest first, materialized or not."""
        with self._lock:
            self._refresh()
            known = dict.fromkeys([*self._materialized, *self.index.read_decisions()])
        return sorted(known, key=lambda each: (each.at, each.earlier_undone, each.verb is Verb.UNDO), reverse=True)

    def find_undoable(self) -> dict[str, Decision]:
        """Find the decisions that stand and can be taken back, by the id of their event."""
        standing = find_standing(self.list_decided()).values()
        return {decision.event_id: decision for decision in standing if decision.event_id is not None}

    def count_undone(self, row_id: str) -> int:
        """Count the decisions about a row that were undone."""
        return sum(each.verb is Verb.UNDO and each.row_id == row_id for each in self.list_decided())

    def read_row(self, item: Item) -> dict[str, Any] | None:
        """Read the joined row of an item, with `readable_prompt`; None where its day was replaced since."""
        where = f"feedback_event_id = {quote(item.row_id)}"
        found = self.reviewed.lake.read(self.reviewed.tables.joined, [item.day], where=where)
        if not found.num_rows:
            return None
        row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
        if self.reviewed.contract is None:
            prompts = make_prompts_readable(pa.array([row["prompt"]]), pa.array([row["prompt_format"]]))
            row["readable_prompt"] = prompts[0].as_py()
        return row

    def read_changes(self, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
        """Read the texts of some items' rows, or their score and label, by row id.

        It is one statement for all of them, over their days only. A row that is gone is absent.
        """
        if not items:
            return {}
        said = ["output", "final_text"] if self.reviewed.contract is None else ["score", "label", "labeling_source"]
        where = f"feedback_event_id IN ({_write_in(tuple(item.row_id for item in items))})"
        columns = ["feedback_event_id", "completed_date", *said]
        found = self.reviewed.lake.read(
            self.reviewed.tables.joined, sorted({item.day for item in items}), columns, where=where
        )
        days = {item.row_id: item.day for item in items}
        return {
            row["feedback_event_id"]: row
            for row in found.to_pylist()
            if row["completed_date"] == days[row["feedback_event_id"]]
        }

    def read_labels(self, prediction_id: str) -> list[dict[str, Any]]:
        """Read all labels about one prediction so far, the oldest first."""
        columns = ["prediction_id", "signal", "label", "labeling_source", "source", "occurred_at", "comment"]
        where = f"prediction_id = {quote(prediction_id)} AND signal = {quote(Signal.LABEL)}"
        found = self.reviewed.lake.read(self.reviewed.tables.joined, columns=columns, where=where)
        return sorted(found.to_pylist(), key=lambda row: row["occurred_at"])

    def _refresh(self) -> None:
        now = self._monotonic()
        if self._looked_at is not None and now - self._looked_at < _FRESH_S:
            return
        lake, tables = self.reviewed.lake, self.reviewed.tables
        specs = (QUARANTINE, tables.joined, GROUND_TRUTH, tables.gold)
        if not all(lake.has_table(spec) for spec in specs):
            self._looked_at = now
            return
        heads = [lake.load_table(spec).current_snapshot() for spec in specs]
        snapshots = tuple(None if head is None else head.snapshot_id for head in heads)
        if snapshots != self._snapshots:
            self._items = self._read_items()
            self._materialized = self._read_decisions()
            self._snapshots = snapshots
        self._looked_at = self._monotonic()

    def _read_items(self) -> list[Item]:
        is_text = self.reviewed.contract is None
        with self.reviewed.lake.connect() as connection:
            self.reviewed.lake.register(connection, QUARANTINE)
            columns = [
                *("completed_date", "feedback_event_id", "prediction_id", "prediction_received_date"),
                *("feedback_received_at", "signal", "source", "do_not_train", "value"),
                *(_STATED if is_text else ()),
            ]
            self.reviewed.lake.register(connection, self.reviewed.tables.joined, columns=columns, view="joined")
            query = _TEXT_ITEMS if is_text else _LABEL_ITEMS
            rows = connection.sql(query).fetchall()
        return [*self._build_items(rows), *(self._read_sample() if is_text else ())]

    def _read_sample(self) -> list[Item]:
        """Read the rows of gold that were drawn, in the order in which they are reviewed."""
        if not self.reviewed.sampled_share:
            return []
        with self.reviewed.lake.connect() as connection:
            columns = [
                *("completed_date", "feedback_event_id", "prediction_id", "feedback_received_at"),
                *("example_kind", "source", "held_reason"),
            ]
            self.reviewed.lake.register(connection, self.reviewed.tables.gold, columns=columns, view="gold")
            rows = connection.sql(select_sample(self.reviewed.sampled_share, _COLUMNS, MOST_ITEMS)).fetchall()
        return [
            Item(row_id, prediction_id, day, reason, "drawn by chance", (), received_at, None)
            for row_id, prediction_id, day, reason, received_at in rows
        ]

    def _build_items(self, rows: Sequence[tuple[Any, ...]]) -> list[Item]:
        return [
            Item(
                row_id=row_id,
                prediction_id=prediction_id,
                day=day,
                reason=reason,
                # The part that has to recur is a hash, which means nothing to a reader.
                detail=None if detail is None else detail.partition("; waits for")[0],
                evidence=tuple(read_labels(evidence)),
                received_at=received_at,
                decide_until=None if is_complaint else self._find_last_day(predicted_on),
                confirm_until=self._find_last_day(predicted_on) if is_complaint else None,
            )
            for row_id, prediction_id, day, reason, detail, evidence, received_at, predicted_on in rows
            for is_complaint in [reason == THUMBS_DOWN]
        ]

    def _find_last_day(self, predicted_on: date | None) -> date | None:
        return None if predicted_on is None else predicted_on + timedelta(days=self.reviewed.join_days)

    def _read_decisions(self) -> list[Decision]:
        where = f"source = {quote(REVIEWER_SOURCE)}"
        rows = self.reviewed.lake.read(GROUND_TRUTH, columns=["source", "comment"], where=where)
        found = (read_decision(comment) for comment in rows["comment"].to_pylist())
        return [decision for decision in found if decision is not None]


def _write_in(values: tuple[str, ...]) -> str:
    return ", ".join(quote(value) for value in values)


_COLUMNS = "feedback_event_id, prediction_id, completed_date"
_REFUSED = f"""
SELECT {_COLUMNS}, q.reason, q.detail, q.evidence, feedback_received_at,
       CASE WHEN NOT ({{is_correction}}) THEN prediction_received_date END
FROM quarantine q JOIN joined j ON j.feedback_event_id = q.row_id AND j.completed_date = q.day
WHERE j.source <> {quote(REVIEWER_SOURCE)} AND NOT j.do_not_train
"""
_STATED = ("statement_id", "revision", "retracts", "occurred_at", "subject", "subject_kind", "final_text", "output")
"""What a complaint's person said before and after it; the two texts are compared for thumbs and ratings only."""
_CORRECTS = f"""signal = {quote(Signal.EDIT)}
    OR (signal IN ({_write_in(tuple(each.value for each in CORRECTABLE))})
        AND trim(final_text) <> '' AND final_text <> output)"""
"""As `decisions.is_correction`; null where there is no text."""
_APPROVING_RATING = 0.8
"""As `GateRules.accepting_rating` by default."""
# One row per statement, the newest revision; no statement of a reviewer.
_COMPLAINTS = f"""
WITH corrected AS (
    SELECT prediction_id FROM joined WHERE ({_CORRECTS})
    -- A reviewer's correction that was undone is none.
    AND coalesce(statement_id, feedback_event_id) NOT IN (SELECT retracts FROM joined WHERE retracts IS NOT NULL)
),
said AS (
    SELECT * EXCLUDE (final_text, output), coalesce(statement_id, feedback_event_id) AS statement,
           subject_kind || ' ' || subject AS person,
           (occurred_at, feedback_received_at, feedback_event_id) AS moment,
           signal IN ({_write_in((Signal.ACCEPT.value, Signal.COPY.value))})
               OR (signal = {quote(Signal.THUMB)} AND value > 0)
               OR (signal = {quote(Signal.RATING)} AND value >= {_APPROVING_RATING}) AS is_approval
    FROM joined WHERE signal <> {quote(Signal.COMMENT)}
    QUALIFY row_number() OVER (
        PARTITION BY coalesce(statement_id, feedback_event_id)
        ORDER BY coalesce(revision, 0) DESC, occurred_at DESC, feedback_received_at DESC, feedback_event_id DESC
    ) = 1
),
complaints AS (
    SELECT * FROM said
    WHERE signal = {quote(Signal.THUMB)} AND value < 0 AND source <> {quote(REVIEWER_SOURCE)} AND NOT do_not_train
)
SELECT {_COLUMNS}, {quote(THUMBS_DOWN)}, NULL, NULL, feedback_received_at, prediction_received_date
FROM complaints c
WHERE prediction_id NOT IN (SELECT prediction_id FROM corrected)
  AND NOT EXISTS (
        SELECT 1 FROM said s
        WHERE s.prediction_id = c.prediction_id AND s.person = c.person AND s.is_approval AND s.moment > c.moment
          AND s.source <> {quote(REVIEWER_SOURCE)}
    )
  AND NOT EXISTS (
        SELECT 1 FROM said r
        WHERE r.signal = {quote(Signal.RETRACT)} AND r.moment >= c.moment
          AND (r.retracts = c.statement
               OR (r.retracts IS NULL AND r.prediction_id = c.prediction_id AND r.person = c.person))
    )
QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY feedback_received_at, feedback_event_id) = 1
"""
_TEXT_ITEMS = f"""
{_REFUSED.format(is_correction=f"coalesce({_CORRECTS}, false)")}
  AND q.stage = {quote(CURATION_STAGE)} AND q.reason IN ({_write_in(tuple(REASONS))})
UNION ALL
SELECT * FROM ({_COMPLAINTS})
LIMIT {MOST_ITEMS}
"""
# Of a prediction's rows the newest: a dispute is shown once, with all its labels.
_LABEL_ITEMS = f"""
SELECT * FROM ({_REFUSED.format(is_correction="false")} AND q.reason IN ({_write_in(_LABEL_REASONS)}))
QUALIFY row_number() OVER (
    PARTITION BY prediction_id ORDER BY feedback_received_at DESC, feedback_event_id DESC
) = 1
LIMIT {MOST_ITEMS}
"""
