"""Draws rows of gold for review by chance, and measures the share that reviewers called wrong.

The queue's other rows are there because a check or a person doubted them, so that what is decided about them says
nothing about gold. The sample does: of the last four weeks the rows with the lowest hashes of their ids wait, until
people have decided about them. A hash knows nothing of a row's content, and the home's id is in it, so that no sender
can choose ids that are never drawn. A reviewer who skips rows chooses among them; the figure is about the others then.

For texts, edits and accepted outputs are drawn; for scores, labelled rows. Rows that wait and reviewers' own rows are
not in gold by a check's word alone, and are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, ApplicationTables
from flywheel_assets.measures.shares import bound_share
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind
from flywheel_assets.review.decisions import SAMPLED, Decision, Verb, find_standing, read_decision

SAMPLE_DAYS = 28
"""Days of gold, back from the newest one, that the sample is drawn from."""
ERROR_DAYS = 90
"""Days of decisions that the error rate counts."""


@dataclass(frozen=True)
class GoldError:
    """The share of sampled gold rows that reviewers called wrong, with its exact 95 % interval."""

    decided: int
    wrong: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return the share itself."""
        return self.wrong / self.decided


def draw_sample(
    lake: Lake, connection: duckdb.DuckDBPyConnection, tables: ApplicationTables, most: int
) -> list[tuple[Any, ...]]:
    """Draw the sampled rows of gold, decided or not.

    Args:
        lake: the application's tables.
        connection: reads them.
        tables: of its kind of application.
        most: rows that are drawn; 0 draws none.

    Returns:
        per row its event's id, prediction, day, `SAMPLED`, no detail, no evidence, the feedback's receipt, and for
        scores the day of the prediction.
    """
    if not most or not lake.has_table(tables.gold):
        return []
    days = sorted(lake.count_rows_per_day(tables.gold))
    recent = [day for day in days if day > days[-1] - timedelta(days=SAMPLE_DAYS)]
    columns, query = (_TEXT_COLUMNS, _TEXTS) if tables.is_text else (_LABEL_COLUMNS, _LABELS)
    lake.register(connection, tables.gold, recent, columns=columns, view="gold")
    return connection.execute(query, [SAMPLED, lake.home_id, most]).fetchall()


def read_materialized_decisions(lake: Lake) -> list[Decision]:
    """Read the decisions of all reviewers that `ground_truth` has."""
    where = f"source = {quote(REVIEWER_SOURCE)}"
    rows = lake.read(GROUND_TRUTH, columns=["source", "comment"], where=where)
    found = (read_decision(comment) for comment in rows["comment"].to_pylist())
    return [decision for decision in found if decision is not None]


def measure_gold_error(decisions: Iterable[Decision], now: datetime) -> GoldError | None:
    """Measure how often sampled rows of gold were called wrong in the last 90 days; None: none was decided.

    Wrong is a row that was rejected, corrected or given another label. A label that "cannot be decided" counts as
    wrong, too. 0 of 20 is [0, .168].
    """
    since = now - timedelta(days=ERROR_DAYS)
    decided = [each for each in find_standing(decisions).values() if each.reason == SAMPLED and each.at >= since]
    if not decided:
        return None
    wrong = sum(each.verb is not Verb.ACCEPT for each in decided)
    return GoldError(len(decided), wrong, *bound_share(wrong, len(decided)))


_ORDER = "ORDER BY md5(? || {name}), {name} LIMIT ?"
_TEXT_COLUMNS = [
    *("feedback_event_id", "prediction_id", "completed_date", "feedback_received_at", "example_kind"),
    *("source", "held_reason", "refused_reason"),
]
_DRAWN_KINDS = ", ".join(quote(each.value) for each in (ExampleKind.PREFERENCE_PAIR, ExampleKind.ACCEPTED_OUTPUT))
_TEXTS = f"""
SELECT feedback_event_id, prediction_id, completed_date, ?, NULL, NULL, feedback_received_at, NULL
FROM gold
WHERE example_kind IN ({_DRAWN_KINDS}) AND held_reason IS NULL AND refused_reason IS NULL
  AND source <> {quote(REVIEWER_SOURCE)}
{_ORDER.format(name="feedback_event_id")}
"""
_LABEL_COLUMNS = [
    *("label_event_id", "prediction_id", "completed_date", "label_received_at", "labeling_source"),
    "prediction_received_date",
]
_LABELS = f"""
SELECT label_event_id, prediction_id, completed_date, ?, NULL, NULL, label_received_at, prediction_received_date
FROM gold
WHERE label_event_id IS NOT NULL AND labeling_source <> {quote(REVIEWER_SOURCE)}
{_ORDER.format(name="label_event_id")}
"""
