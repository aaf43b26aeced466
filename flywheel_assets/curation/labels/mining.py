"""Mines one day's examples: labels that became complete, and predictions that stayed silent. Pure SQL.

`examine` reads three relations of a DuckDB connection and leaves three: every row of the day's input with the reason
that it is not kept for, or none. Silence is decided in two steps, because only what is drawn is read whole.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import duckdb

from flywheel_assets import records
from flywheel_assets.curation.labels.discrepancies import (
    DiscrepancyRules,
    write_class_discrepancy_sql,
    write_class_severity_sql,
    write_discrepancy_sql,
    write_severity_sql,
)
from flywheel_assets.curation.labels.emphasis import EmphasisRules
from flywheel_assets.curation.labels.label_resolution import LabelRules
from flywheel_assets.curation.labels.sampling import (
    SamplingRules,
    write_draw_sql,
    write_inclusion_probability_sql,
    write_selection_reason_sql,
)
from flywheel_assets.curation.labels.score_contract import ScoreContract, write_score_content_sql
from flywheel_assets.curation.sql_literals import quote, quote_double
from flywheel_assets.ranges import Checked, Count, Share
from flywheel_assets.records import SILENCE, Reason, Signal, SubjectKind


@dataclass(frozen=True, kw_only=True)
class MiningRules(Checked):
    """Decides which labelled and silent predictions become examples, and with which probability."""

    maturity_days: Count = 30
    """A prediction without a label this many days after its receipt is a negative."""
    silence: Literal["negative", "unknown"] = "negative"
    """What a prediction without a label means. "unknown" where only some are looked at, as in moderation: labelled
    predictions alone are examples and evaluation rows, from the day of their label, and no share of labels is taken
    for late. They stand for all predictions where `label_propensity` is sent with each, else for labelled ones."""
    discrepancies: DiscrepancyRules = field(default_factory=DiscrepancyRules)
    sampling: SamplingRules = field(default_factory=SamplingRules)
    emphasis: EmphasisRules = field(default_factory=EmphasisRules)
    """Of the training rows of a version; it changes no day."""
    labels: LabelRules = field(default_factory=LabelRules)
    hold_false_alarms_above: Share | None = None
    """Negative labels on scores above this wait in quarantine for a reviewer's label; None: they are examples at once.
    With 0.19 % of labels flipped, 79 % of the confident false alarms were wrong labels. If all of them wait, the model
    overestimates, so this is for applications whose reviewers keep up."""

    @property
    def is_silence_negative(self) -> bool:
        """Return whether a prediction that has matured without a label is a negative."""
        return self.silence == "negative"

    @property
    def waiting_days(self) -> int:
        """Return the age from which a prediction counts: its silence must have matured, a label needs no wait."""
        return self.maturity_days if self.is_silence_negative else 0

    @property
    def version(self) -> str:
        """A digest that changes with every rule of a day; it is stored with each example."""
        rules = asdict(self)
        del rules["emphasis"]  # a version's: days need not be mined again for it
        rules["sampling"]["segment_rates"] = dict(self.sampling.segment_rates)
        return records.make_stable_id("mining", rules)[:12]


def examine(
    connection: duckdb.DuckDBPyConnection, day: date, salt: str, contract: ScoreContract, rules: MiningRules
) -> None:
    """Decide about every row that day D has to account for.

    Args:
        connection: holds `joined_feedback` (the rows of D), `raw_predictions` (of the day that matures on D),
            `earlier_predictions` (of the days before that one, as far as an id is looked for) and
            `labelled_predictions(prediction_id)` (every prediction with a label received by D; may repeat).
        day: D.
        salt: the application's name, of the sampling draw.
        contract: declared features and label words.
        rules: of the application, with the day's sampling floor.

    Raises:
        ValueError: the sampling floor is not settled.

    Makes three temporary tables, each with `reason` (null: kept): `examined_labels` and `examined_silence` have the
    columns of `records.HARD_EXAMPLES` and `detail`; `silent_decisions` has one narrow row per silent prediction, of
    which those without a reason are the rows of `examined_silence`.
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE examined_labels AS {_write_labels_sql(salt, contract, rules)}")
    # Keys first: what they said is read of the few ids only that came on an earlier day, too.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE repeated_ids AS SELECT DISTINCT prediction_id FROM earlier_predictions "
        "SEMI JOIN raw_predictions USING (prediction_id)"
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE repeated_predictions AS {_REPEATED_PREDICTIONS}")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE silent_decisions AS {_write_silent_decisions_sql(salt, contract, rules)}"
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE examined_silence AS {_write_silence_sql(day, contract)}")


def write_subject_sql(prediction: str) -> str:
    """Write the subject of a raw prediction, as `records.subject_of_score` decides it."""
    return f"coalesce(nullif({prediction}.user_id, ''), nullif({prediction}.thread_id, ''), {prediction}.prediction_id)"


def write_subject_kind_sql(prediction: str) -> str:
    """Write the kind of that subject."""
    return (
        f"CASE WHEN nullif({prediction}.user_id, '') IS NOT NULL THEN {quote(SubjectKind.USER)} "
        f"WHEN nullif({prediction}.thread_id, '') IS NOT NULL THEN {quote(SubjectKind.THREAD)} "
        f"ELSE {quote(SubjectKind.PREDICTION)} END"
    )


def _write_labels_sql(salt: str, contract: ScoreContract, rules: MiningRules) -> str:
    valid = " and ".join(contract.label_words).replace("'", "''")
    held = "false"
    if rules.hold_false_alarms_above is not None:
        reviewers = ", ".join(quote(name) for name in rules.labels.trusted_tiers[0])
        held = (
            f"NOT is_positive AND score > {quote_double(rules.hold_false_alarms_above)} "
            f"AND labeling_source NOT IN ({reviewers})"
        )
    labels = f"""
SELECT * REPLACE (coalesce(labeling_source, source) AS labeling_source),
       {contract.write_is_positive_sql()} AS is_positive, {contract.write_class_sql()} AS label_class,
       {contract.write_problem_sql(received_date="prediction_received_date")} AS problem
FROM joined_feedback
"""
    return f"""
SELECT *,
       CASE WHEN signal <> {quote(Signal.LABEL)} THEN {quote(Reason.NOT_TRAINABLE_SIGNAL)}
            WHEN do_not_train THEN {quote(Reason.NO_CONSENT)}
            WHEN is_positive IS NULL THEN {quote(Reason.UNKNOWN_LABEL)}
            WHEN problem IS NOT NULL THEN {quote(Reason.INVALID_FEATURES)}
            WHEN {held} THEN {quote(Reason.HELD_FOR_REVIEW)} END AS reason,
       CASE reason WHEN {quote(Reason.UNKNOWN_LABEL)} THEN 'valid: {valid}'
                   WHEN {quote(Reason.INVALID_FEATURES)} THEN problem END AS detail
FROM (
    SELECT *, feedback_event_id AS label_event_id, feedback_received_at AS label_received_at,
           feedback_received_date AS label_received_date, coalesce(known_at, occurred_at) AS label_known_at
    FROM ({_write_judged_sql(salt, contract, rules, labels)})
)
"""


def _write_silent_decisions_sql(salt: str, contract: ScoreContract, rules: MiningRules) -> str:
    """Decide about silent predictions without their features.

    Of a million silent predictions only the few that are drawn are read whole.
    """
    silence = f"""
SELECT event_id, prediction_id, user_id, score, scores, amount, segment, action, do_not_train, false AS is_positive,
       {_write_silent_class_sql(contract)} AS label_class,
       r.event_id IS NOT NULL AS is_repeated, coalesce(r.is_reused, false) AS is_reused
FROM raw_predictions LEFT JOIN repeated_predictions r USING (event_id)
"""
    return f"""
SELECT *,
       CASE WHEN is_reused THEN {quote(Reason.PREDICTION_ID_REUSED)}
            WHEN is_repeated THEN {quote(Reason.DUPLICATE_EVENT)}
            WHEN prediction_id IN (SELECT prediction_id FROM labelled_predictions) THEN {quote(Reason.LABELLED)}
            WHEN {contract.write_blocked_sql()} THEN {quote(Reason.BLOCKED)}
            WHEN do_not_train THEN {quote(Reason.NO_CONSENT)}
            WHEN {"false" if rules.is_silence_negative else "true"} THEN {quote(Reason.SILENCE_UNKNOWN)}
            WHEN draw >= inclusion_probability THEN {quote(Reason.NOT_SAMPLED)} END AS reason
FROM ({_write_judged_sql(salt, contract, rules, silence)})
"""


# Receipts of the maturing day that are not the first of their prediction; is_reused: it says something else.
_REPEATED_PREDICTIONS = f"""
WITH numbered AS (
    SELECT event_id, prediction_id, received_at,
           row_number() OVER (PARTITION BY prediction_id ORDER BY received_at, event_id) AS receipt
    FROM raw_predictions
),
ids AS (
    SELECT prediction_id FROM numbered WHERE receipt > 1
    UNION SELECT prediction_id FROM repeated_ids
),
receipts AS (
    SELECT event_id, prediction_id, received_at, false AS is_maturing, {write_score_content_sql()} AS content
    FROM earlier_predictions SEMI JOIN ids USING (prediction_id)
    UNION ALL
    SELECT event_id, prediction_id, received_at, true AS is_maturing, {write_score_content_sql()} AS content
    FROM raw_predictions SEMI JOIN ids USING (prediction_id)
),
compared AS (
    SELECT *, row_number() OVER by_receipt > 1 AS is_repeated,
           content <> first_value(content) OVER by_receipt AS is_reused
    FROM receipts
    WINDOW by_receipt AS (PARTITION BY prediction_id ORDER BY is_maturing, received_at, event_id)
)
SELECT event_id, is_reused, content FROM compared WHERE is_maturing AND is_repeated
"""


def _write_silence_sql(day: date, contract: ScoreContract) -> str:
    known_at = datetime.combine(day + timedelta(days=1), time(), UTC).isoformat()
    return f"""
SELECT * EXCLUDE (problem), CASE WHEN problem IS NOT NULL THEN {quote(Reason.INVALID_FEATURES)} END AS reason,
       problem AS detail
FROM (
    SELECT DATE {quote(day.isoformat())} AS completed_date, p.prediction_id, NULL::VARCHAR AS label_event_id,
           NULL::DATE AS label_received_date,
           p.received_date AS prediction_received_date, p.occurred_at AS predicted_at, false AS is_positive,
           {quote(SILENCE)} AS labeling_source, TIMESTAMPTZ {quote(known_at)} AS label_known_at,
           TIMESTAMPTZ {quote(known_at)} AS label_received_at, p.model_version,
           {write_subject_sql("p")} AS subject,
           {write_subject_kind_sql("p")} AS subject_kind,
           p.features, p.score, p.amount, p.segment, p.action, p.allow_propensity, p.label_propensity,
           p.scores, {_write_silent_class_sql(contract)} AS label_class,
           d.discrepancy, d.severity, d.selection_reason, d.inclusion_probability, d.draw, p.event_id,
           {contract.write_problem_sql("p.features", "p.received_date")} AS problem
    FROM raw_predictions p JOIN silent_decisions d ON d.event_id = p.event_id
    WHERE d.reason IS NULL
)
"""


def _write_silent_class_sql(contract: ScoreContract) -> str:
    return quote(contract.negative_label) if contract.classes else "NULL::VARCHAR"


def _write_judged_sql(salt: str, contract: ScoreContract, rules: MiningRules, rows: str) -> str:
    """Add discrepancy, severity, π and draw to `rows` (with `score`, `is_positive`, `amount`, `segment`).

    Of several classes `rows` have `scores` and `label_class`, too.
    """
    discrepancy, severity = write_discrepancy_sql(rules.discrepancies), write_severity_sql(rules.discrepancies)
    if contract.classes:
        rows = f"SELECT *, {contract.write_probabilities_sql()} AS probabilities FROM ({rows})"
        discrepancy = write_class_discrepancy_sql(contract.classes, contract.negative_label)
        severity = write_class_severity_sql(contract.classes)
    return f"""
SELECT *, {write_inclusion_probability_sql(rules.sampling)} AS inclusion_probability,
       {write_selection_reason_sql(rules.sampling)} AS selection_reason, {write_draw_sql(salt)} AS draw
FROM (
    SELECT *, {discrepancy} AS discrepancy, coalesce({severity}, 0e0) AS severity
    FROM ({rows})
)
"""
