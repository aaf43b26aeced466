"""Decides which of several labels about one prediction holds: pure SQL over the label events that it is given.

Labels are append-only. A user who corrects a label sends another one. The label that holds is computed on every
read, so that a version cut last month still says what was known last month:

1. of each source only its newest label counts: correcting oneself is no dispute;
2. the most trusted tier with a label decides;
3. within a trusted tier a contradiction is a *dispute*: the row is not trained on, and people look at it;
4. among sources that are in no tier the newest label wins; silence holds only where there is no label at all.
"""

from dataclasses import dataclass

from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.ranges import Checked
from flywheel_assets.records import SILENCE, Signal


@dataclass(frozen=True, kw_only=True)
class LabelRules(Checked):
    """Ranks the sources of labels by trust."""

    trusted_tiers: tuple[tuple[str, ...], ...] = (
        ("reviewer",),
        ("analyst", "chargeback", "user_dispute_confirmed_by_analyst"),
    )
    """Labeling sources, the most trusted tier first; within a tier they are equals. All others rank below."""

    def _check_together(self) -> None:
        named = [source for tier in self.trusted_tiers for source in tier]
        if repeated := {source for source in named if named.count(source) > 1}:
            valid = f"each source in one tier; {', '.join(sorted(repeated))} is there more than once"
            raise self.build_range_error("trusted_tiers", self.trusted_tiers, valid)
        if SILENCE in named:
            raise self.build_range_error(
                "trusted_tiers", self.trusted_tiers, f"no {SILENCE!r}, which is the absence of a source"
            )

    def write_tier_sql(self, source: str = "labeling_source") -> str:
        """Write the rank of a source as a DuckDB expression of type INTEGER; smaller is more trusted."""
        unlisted = len(self.trusted_tiers)
        tiers = [f"WHEN ({source}) = {quote(SILENCE)} THEN {unlisted + 1}"]
        for rank, tier in enumerate(self.trusted_tiers):
            tiers.extend(f"WHEN ({source}) = {quote(name)} THEN {rank}" for name in tier)
        return f"CASE {' '.join(tiers)} ELSE {unlisted} END"


def write_label_events_sql(contract: ScoreContract, joined: str = "joined_feedback") -> str:
    """Select the label events among joined feedback, as `resolved_labels_sql` reads them; other words are no labels.

    Args:
        contract: its two label words.
        joined: a relation with the columns of `records.JOINED_LABELS` that are asked for.
    """
    positive, negative = quote(contract.positive_label), quote(contract.negative_label)
    return f"""(
    SELECT prediction_id, feedback_event_id AS label_event_id, label = {positive} AS is_positive,
           coalesce(labeling_source, source) AS labeling_source, feedback_received_at AS label_received_at,
           feedback_received_date AS label_received_date, completed_date, do_not_train
    FROM {joined} WHERE signal = {quote(Signal.LABEL)} AND label IN ({positive}, {negative})
)"""


def write_resolved_labels_sql(rules: LabelRules, label_events: str) -> str:
    """Write a query that marks every label event as holding or not.

    Args:
        rules: whose label outranks whose.
        label_events: a relation with `prediction_id`, `label_event_id` (null: silence), `is_positive`,
            `labeling_source` and `label_received_at`; one row per event.

    Returns:
        Its rows with `is_disputed` (of the prediction) and `holds`: true for exactly one row of every prediction that
        is not disputed, for none of the others.
    """
    unlisted = len(rules.trusted_tiers)
    newest_first = "label_received_at DESC, label_event_id DESC NULLS LAST"
    return f"""
WITH ranked AS (
    SELECT *, {rules.write_tier_sql()} AS tier,
           row_number() OVER (PARTITION BY prediction_id, labeling_source ORDER BY {newest_first}) = 1 AS is_newest
    FROM {label_events}
),
decisive AS (
    SELECT *, is_newest AND tier = min(tier) OVER (PARTITION BY prediction_id) AS is_decisive FROM ranked
),
judged AS (
    SELECT *,
           count(DISTINCT is_positive) FILTER (is_decisive AND tier < {unlisted})
               OVER (PARTITION BY prediction_id) > 1 AS is_disputed,
           row_number() OVER (PARTITION BY prediction_id, is_decisive ORDER BY {newest_first}) = 1 AS is_first
    FROM decisive
)
SELECT * EXCLUDE (tier, is_newest, is_decisive, is_first), is_decisive AND is_first AND NOT is_disputed AS holds
FROM judged
"""
