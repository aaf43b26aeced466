"""Decides which of several labels about one prediction holds: pure SQL over the label events that it is given.

Labels are append-only. A user who corrects a label sends another one. The label that holds is computed on every
read, so that a version cut last month still says what was known last month:

1. of each source only its newest *statement* counts: correcting oneself is no dispute. A statement is as new as the
   time when it was known (`label_known_at`: the claimed `known_at`, else the claimed time of the label, else its
   receipt), then its receipt. Equal statements in a row are one, made when the first of them was: a retry changes
   nothing, and true, false, true again is true.
2. the most trusted tier with a label decides;
3. within a trusted tier `LabelRules.disagreement` decides about a contradiction: it is a *dispute* (the row is not
   trained on, and people look at it), the majority of sources holds, or both classes train with their shares; of
   several classes, two that are both positive contradict each other, too;
4. among sources that are in no tier `LabelRules.unlisted_disagreement` decides, by default for the newest statement;
   silence holds only where there is no label at all.
"""

from dataclasses import dataclass, replace
from typing import Literal

from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.ranges import Checked
from flywheel_assets.records import SILENCE, Signal

Disagreement = Literal["dispute", "majority", "soft"]


@dataclass(frozen=True, kw_only=True)
class LabelRules(Checked):
    """Ranks the sources of labels by trust, and settles contradictions among equals."""

    trusted_tiers: tuple[tuple[str, ...], ...] = (
        ("reviewer",),
        ("analyst", "chargeback", "user_dispute_confirmed_by_analyst"),
    )
    """Labeling sources, the most trusted tier first; within a tier they are equals. All others rank below. Where the
    capture service has keys, only a key that was created with `--labels-as` may claim one of these."""
    disagreement: Disagreement = "dispute"
    """What a contradiction within a trusted tier means. Each source has one vote. "dispute": the row is not trained on.
    "majority": the class with most votes holds; a tie is a dispute. "soft": each class is a training row of its own
    that weighs its share of the votes; the evaluation takes the majority and leaves out ties."""
    unlisted_disagreement: Literal["newest", "dispute", "majority", "soft"] = "newest"
    """The same among the sources that are in no tier; "newest": the newest statement of any of them holds."""

    def _check_together(self) -> None:
        named = [source for tier in self.trusted_tiers for source in tier]
        if repeated := {source for source in named if named.count(source) > 1}:
            valid = f"each source in one tier; {', '.join(sorted(repeated))} is there more than once"
            raise self.build_range_error("trusted_tiers", self.trusted_tiers, valid)
        if SILENCE in named:
            raise self.build_range_error(
                "trusted_tiers", self.trusted_tiers, f"no {SILENCE!r}, which is the absence of a source"
            )

    @property
    def trusted_sources(self) -> frozenset[str]:
        """Return the sources of all tiers."""
        return frozenset(source for tier in self.trusted_tiers for source in tier)

    @property
    def with_one_class(self) -> "LabelRules":
        """Return the same rules with the majority instead of shares: for sums in which a prediction has one class."""
        trusted: Disagreement = "majority" if self.disagreement == "soft" else self.disagreement
        unlisted = "majority" if self.unlisted_disagreement == "soft" else self.unlisted_disagreement
        return replace(self, disagreement=trusted, unlisted_disagreement=unlisted)

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
        contract: its label words.
        joined: a relation with the columns of `records.JOINED_LABELS` that are asked for.
    """
    words = ", ".join(map(quote, contract.label_words))
    return f"""(
    SELECT prediction_id, feedback_event_id AS label_event_id, {contract.write_is_positive_sql()} AS is_positive,
           {contract.write_class_sql()} AS label_class,
           coalesce(labeling_source, source) AS labeling_source, coalesce(known_at, occurred_at) AS label_known_at,
           feedback_received_at AS label_received_at, feedback_received_date AS label_received_date, completed_date,
           do_not_train
    FROM {joined} WHERE signal = {quote(Signal.LABEL)} AND label IN ({words})
)"""


def write_resolved_labels_sql(rules: LabelRules, label_events: str, said: str = "is_positive") -> str:
    """Write a query that marks every label event as holding or not.

    Args:
        rules: whose label outranks whose, and what contradictions mean.
        label_events: a relation with `prediction_id`, `label_event_id` (null: silence), `is_positive`,
            `labeling_source`, `label_known_at` and `label_received_at`; one row per event.
        said: the column that says what a label says, `ScoreContract.said_column`.

    Returns:
        Its rows with `is_disputed` (of the prediction), `holds` and `vote_share`. `holds` is true for one row of every
        prediction that is not disputed, and for none of the others. Of a soft label it is true for one row of each
        class, whose `vote_share` add up to 1; every other row that holds has 1.
    """
    unlisted = len(rules.trusted_tiers)
    order = "label_known_at, label_received_at, label_event_id NULLS FIRST"
    newest_first = "label_known_at DESC, label_received_at DESC, label_event_id DESC NULLS LAST"
    said_last = "said_last DESC, label_event_id DESC NULLS LAST"
    return f"""
WITH stated AS (
    SELECT *, {rules.write_tier_sql()} AS tier,
           {said} IS DISTINCT FROM lag({said}) OVER (
               PARTITION BY prediction_id, labeling_source ORDER BY {order}
           ) AS is_change,
           max({{known: label_known_at, received: label_received_at}})
               OVER (PARTITION BY prediction_id, labeling_source) AS said_last
    FROM {label_events}
),
ranked AS (
    SELECT *, is_change AND row_number() OVER (
               PARTITION BY prediction_id, labeling_source, is_change ORDER BY {newest_first}
           ) = 1 AS is_newest
    FROM stated
),
decisive AS (
    SELECT *, min(tier) OVER (PARTITION BY prediction_id) AS best_tier, is_newest AND tier = best_tier AS is_decisive
    FROM ranked
),
voted AS (
    SELECT *,
           CASE WHEN best_tier < {unlisted} THEN {quote(rules.disagreement)}
                WHEN best_tier = {unlisted} THEN {quote(rules.unlisted_disagreement)} ELSE 'newest' END AS rule,
           {_COUNT_POSITIVE if said == "is_positive" else _COUNT_CLASS.format(said=said)},
           count(*) FILTER (is_decisive) OVER (PARTITION BY prediction_id) AS votes,
           row_number() OVER (PARTITION BY prediction_id, is_decisive ORDER BY {said_last}) = 1 AS is_first,
           row_number() OVER (PARTITION BY prediction_id, is_decisive, {said} ORDER BY {said_last}) = 1
               AS is_first_of_class
    FROM decisive
),
led AS ({_LEAD_OF_TWO if said == "is_positive" else _LEAD_OF_SEVERAL}),
judged AS (
    SELECT *,
           CASE rule WHEN 'dispute' THEN most_votes < votes WHEN 'majority' THEN is_tied ELSE false END AS is_disputed,
           is_decisive AND NOT is_disputed AND CASE rule
               WHEN 'newest' THEN is_first
               WHEN 'majority' THEN is_first_of_class AND class_votes = most_votes
               ELSE is_first_of_class END AS holds
    FROM led
)
SELECT * EXCLUDE (
           tier, is_change, said_last, is_newest, best_tier, is_decisive, rule, class_votes, votes, is_first,
           is_first_of_class, most_votes, is_tied{", positive_votes" if said == "is_positive" else ""}
       ),
       CASE WHEN rule <> 'soft' THEN 1e0 ELSE class_votes / votes END AS vote_share
FROM judged
"""


# Of two classes one count says all; of several each class is counted, which costs a sort more.
_COUNT_POSITIVE = "count(*) FILTER (is_decisive AND is_positive) OVER (PARTITION BY prediction_id) AS positive_votes"
_COUNT_CLASS = "count(*) FILTER (is_decisive) OVER (PARTITION BY prediction_id, {said}) AS class_votes"
_LEAD_OF_TWO = """
    SELECT *, CASE WHEN is_positive THEN positive_votes ELSE votes - positive_votes END AS class_votes,
           greatest(positive_votes, votes - positive_votes) AS most_votes, 2 * positive_votes = votes AS is_tied
    FROM voted
"""
_LEAD_OF_SEVERAL = """
    SELECT * EXCLUDE (led), list_max(led) AS most_votes,
           list_sort(led, 'DESC')[2] IS NOT DISTINCT FROM list_max(led) AS is_tied
    FROM (
        SELECT *, list(class_votes) FILTER (is_decisive AND is_first_of_class) OVER (PARTITION BY prediction_id) AS led
        FROM voted
    )
"""
