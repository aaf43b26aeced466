"""Selects the training and evaluation rows of a version of hard examples: pure SQL over labels as of two moments.

A version cut on day T looks like this; m is the maturity, w the evaluation weeks:

    … training rows … | m days | … a week of evaluation … | m days |
                      P        E                          M        T
    … rows of the refit …………………………………………………… |

Evaluation rows are all predictions received from E to M, matured by T. The training rows are what was known on the day
before E, of predictions up to P = E − 1 − m, for which silence had matured, too: labels and silence that came later,
and predictions whose frauds were known before their silence could be, would both give the trained model more than
any model in production has. So both classes are complete on both sides, and a model trained at E is tested as if it
had been deployed at E. It is the *judged* model: the recipe's proof. The weeks before E are judged likewise, each by a
model of the day on which it begins, `evaluation_weeks` in all at least and `MOST_WEEKS` at most: few weeks cannot tell
a gain of .02 from chance. Deployed is the *refit*: the same recipe on everything that had matured by T, the evaluation
weeks included, because rows that are four weeks older cost more than most gains (ADR 39).

m is `maturity_days`, or the first age at which `TRUSTED_SHARE` of the positives is known, if that is later: among
younger silent rows too many are positives of which nothing is known yet, and each known one would stand for many.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from flywheel_assets.curation.labels.emphasis import write_emphasis_sql
from flywheel_assets.curation.labels.label_resolution import write_label_events_sql, write_resolved_labels_sql
from flywheel_assets.curation.labels.mining import MiningRules, write_subject_kind_sql, write_subject_sql
from flywheel_assets.curation.labels.sampling import write_recency_factor_sql, write_sample_weight_sql
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.records import SILENCE, Reason, Signal

TRUSTED_SHARE = 0.5
"""Of the positives are known at the age from which rows count; each known one then stands for at most two. Measured by
weekly refits on 32 days of handbook payments, silence being a negative after 7 days: with delays of 7 + Exp(3) days AP
.660 unweighted, and weighted from the age on at which 20, 50 and 80 % are known .685, .696 and .686; with Exp(14) days
.657, .664, .672 and .555, because at 80 % few rows are left."""


MOST_WEEKS = 6
"""Weeks that a version is judged on at most; each has a model of its own. On 40 % of the handbook's cards, labels
7 + Exp(3) days late, a model that was better by .047 in the week to come was found better by +.011 [−.005, +.027] in
two blocks of two weeks, and by +.026 [+.010, +.045] in four of one week: the models of the short blocks are as fresh as
the one that would serve."""

_WEEK = timedelta(days=7)


@dataclass(frozen=True)
class TrainingSpan:
    """The rows that one model is fitted on, and the moment whose knowledge it has."""

    known_before: date
    """Only what was known on the days before this one."""
    predictions_until: date
    """Last day of predictions, by receipt."""


@dataclass(frozen=True)
class Calendar:
    """The days that a version trains on and is judged on: UTC days of receipt, ends included."""

    known_until: date
    """T: the last closed day."""
    evaluate_until: date
    """M: the last day whose silence has matured by T."""
    evaluate_from: date
    """E: the first day of the newest evaluation week."""
    train_until: date
    """P: the last day of predictions that the newest judged model is trained on."""
    older_weeks: int = 0
    """Weeks before E that are judged, too, each by a model of its own."""

    @property
    def judged(self) -> TrainingSpan:
        """Return the span of the model that is judged on the newest week."""
        return self.list_judged()[0]

    @property
    def evaluated_from(self) -> date:
        """Return the first evaluation day of all weeks."""
        return self.evaluate_from - self.older_weeks * _WEEK

    def list_judged(self) -> list[TrainingSpan]:
        """List the spans of the judged models, that of the newest week first."""
        steps = [number * _WEEK for number in range(self.older_weeks + 1)]
        return [TrainingSpan(self.evaluate_from - step, self.train_until - step) for step in steps]

    @property
    def refit(self) -> TrainingSpan:
        """Return the span of the model that is deployed."""
        return TrainingSpan(self.known_until + timedelta(days=1), self.evaluate_until)

    @classmethod
    def plan(cls, last_day: date, maturity_days: int, evaluation_weeks: int) -> "Calendar":
        """Build the calendar of a version whose last closed day is `last_day`, with the least number of weeks."""
        evaluate_until = last_day - timedelta(days=maturity_days)
        evaluate_from = evaluate_until - _WEEK + timedelta(days=1)
        train_until = evaluate_from - timedelta(days=1 + maturity_days)
        return cls(last_day, evaluate_until, evaluate_from, train_until, evaluation_weeks - 1)


def write_judged_examples_sql(
    rules: MiningRules, span: TrainingSpan, examples: str = "hard_examples", said: str = "is_positive"
) -> str:
    """Select every example of the pinned days with the reason that it is left out, if any.

    Args:
        rules: of the application.
        span: of the model.
        examples: a relation with the columns of `records.HARD_EXAMPLES` that are asked for.
        said: the column that says what a label says, `ScoreContract.said_column`.

    Reads `withheld_labels(prediction_id, completed_date)`, the labels of days that tripped the breaker: silence that
    one of them contradicts is no negative.

    Returns:
        Its rows with `reason` (null: trained on), and `final_probability`: the π it was drawn with, recency included.
    """
    moment, last = quote(span.known_before.isoformat()), quote(span.predictions_until.isoformat())
    age = f"date_diff('day', prediction_received_date, DATE {moment})"
    in_time = f"(completed_date < DATE {moment} AND prediction_received_date <= DATE {last})"
    return f"""
WITH timely AS (SELECT * FROM {examples} WHERE {in_time}),
resolved AS ({write_resolved_labels_sql(rules.labels, "timely", said)}),
weighed AS (
    SELECT *, inclusion_probability * {write_recency_factor_sql(rules.sampling, age_days=age)} AS final_probability
    FROM resolved
)
SELECT *, CASE WHEN {_write_unknown_sql(rules)} THEN {quote(Reason.SILENCE_UNKNOWN)}
               WHEN is_disputed THEN {quote(Reason.DISPUTED)}
               WHEN NOT holds THEN {quote(Reason.SUPERSEDED)}
               WHEN label_event_id IS NULL AND prediction_id IN (
                   SELECT prediction_id FROM withheld_labels WHERE completed_date < DATE {moment}
               ) THEN {quote(Reason.BREAKER_TRIPPED)}
               WHEN draw >= final_probability THEN {quote(Reason.NOT_SAMPLED)} END AS reason
FROM weighed
UNION ALL BY NAME
SELECT *, {quote(Reason.LATER_THAN_TRAINING)} AS reason FROM {examples} WHERE NOT {in_time}
"""


def write_training_rows_sql(contract: ScoreContract, rules: MiningRules, span: TrainingSpan, judged: str) -> str:
    """Select the rows of a training file, features as a STRUCT, ordered.

    A soft label gives two rows, one of each class, whose weights have its shares of votes as a factor.

    A positive of which only the share F is known at its age weighs 1 / F: those that are not known yet are among the
    negatives, and a model of unweighted rows predicts too little (Σp/Σy .65 instead of .97 where labels come 7 + Exp(3)
    days late and silence is a negative after 7). Reads `known_shares(age, known_share)`.

    `emphasis` is a factor of `sample_weight`, NULL where the rules emphasise nothing; evaluation rows have none. Of
    several classes there is `label_class`, too.
    """
    age = f"date_diff('day', prediction_received_date, DATE {quote(span.known_before.isoformat())})"
    weight = write_sample_weight_sql(
        rules.sampling,
        inclusion_probability="final_probability",
        allow_propensity=_write_propensity_sql(contract),
        label_propensity=write_label_propensity_sql(rules),
    )
    emphasis = write_emphasis_sql(rules.emphasis, weight="represented", age_days=age)
    return f"""
SELECT * EXCLUDE (represented), represented * coalesce(emphasis, 1e0) AS sample_weight
FROM (SELECT *, {emphasis} AS emphasis FROM (
SELECT prediction_id, subject, prediction_received_date, is_positive, labeling_source, label_known_at, model_version,
       score AS score_at_decision, amount, segment, discrepancy, severity, selection_reason,
       final_probability AS inclusion_probability,
       {weight} * vote_share / CASE WHEN is_positive THEN coalesce(known_share, 1e0) ELSE 1e0 END AS represented,
       {contract.write_struct_sql()} AS features{", label_class" if contract.classes else ""}
FROM {judged} LEFT JOIN known_shares
    ON known_shares.age = {age}
WHERE reason IS NULL
))
ORDER BY prediction_id, {contract.said_column}
"""


def write_evaluation_rows_sql(
    contract: ScoreContract, rules: MiningRules, calendar: Calendar, tripped_days: Collection[date] = ()
) -> str:
    """Select the rows of a version's evaluation file: every matured prediction of its weeks, unsampled, ordered.

    With the columns that an exclusion may ask for, and `known_share`: the share of positives that is known at the row's
    age. Reads `raw_predictions` (received from E to M), `joined_feedback` (completed from E to T) and
    `known_shares(age, known_share)`. Of several classes there are `label_class`, and `scores_at_decision` in the
    contract's order. What the action policy let through by chance weighs 1 / allow_propensity. Blocked
    predictions without a label, disputed ones, those without consent and those whose features do not fit are left
    out.
    """
    weight = write_sample_weight_sql(
        rules.sampling,
        inclusion_probability="1e0",
        allow_propensity=_write_propensity_sql(contract),
        label_propensity=write_label_propensity_sql(rules),
    )
    week = f"date_diff('day', DATE {quote(calendar.evaluated_from.isoformat())}, received_date) // 7"
    age = f"date_diff('day', received_date, DATE {quote(calendar.known_until.isoformat())})"
    of_classes = (
        f", label_class, {contract.write_probabilities_sql()} AS scores_at_decision" if contract.classes else ""
    )
    return f"""
SELECT prediction_id, {write_subject_sql("matured")} AS subject,
       received_date AS prediction_received_date, CAST({week} AS INTEGER) AS week, is_positive, labeling_source,
       model_version, score AS score_at_decision, amount, segment, {weight} AS sample_weight,
       coalesce(known_share, 1e0) AS known_share, {contract.write_struct_sql(with_retired=True)} AS features,
       label_event_id, label_received_date, NULL::DATE AS completed_date, occurred_at AS predicted_at,
       {write_subject_kind_sql("matured")} AS subject_kind{of_classes}
FROM ({write_matured_predictions_sql(contract, rules, tripped_days)}) matured
LEFT JOIN known_shares ON known_shares.age = {age}
WHERE NOT do_not_train AND NOT is_label_withheld AND {contract.write_problem_sql()} IS NULL
ORDER BY prediction_id
"""


def write_matured_predictions_sql(
    contract: ScoreContract, rules: MiningRules, tripped_days: Collection[date] = ()
) -> str:
    """Select the first receipt of each raw prediction with its resolved label, or silence.

    Blocked predictions without a label, and disputed ones, are left out: their truth is unknown; where silence is
    unknown, so are all without a label. Labels of `tripped_days` say nothing until a person has looked: a prediction
    that only they are about is left out, too. The columns of
    `raw_predictions`, and `is_positive`, `labeling_source`, `label_event_id`, `label_received_date` and
    `is_label_withheld` (a label came without consent); of several classes `label_class`, too.
    """
    known, coalesced = "", ""
    if contract.classes:
        known = "any_value(label_class) FILTER (holds) AS label_class,"
        coalesced = f"coalesce(k.label_class, {quote(contract.negative_label)}) AS label_class,"
    blocked = contract.write_blocked_sql("p.action") if rules.is_silence_negative else "true"
    on_tripped_day = " OR ".join(["false", *(f"completed_date = DATE {quote(str(day))}" for day in tripped_days)])
    admitted = f"(SELECT * FROM joined_feedback WHERE NOT ({on_tripped_day}))"
    labels = write_resolved_labels_sql(
        rules.labels.with_one_class, write_label_events_sql(contract, admitted), contract.said_column
    )
    return f"""
WITH known AS (
    SELECT prediction_id, bool_or(is_disputed) AS is_disputed, bool_or(do_not_train) AS is_label_withheld,
           bool_or(is_positive) FILTER (holds) AS is_positive, {known}
           any_value(labeling_source) FILTER (holds) AS labeling_source,
           any_value(label_received_date) FILTER (holds) AS label_received_date,
           any_value(label_event_id) FILTER (holds) AS label_event_id
    FROM ({labels})
    GROUP BY prediction_id
),
first_receipts AS (  -- a label that is about an earlier receipt says that this one is not the first
    SELECT * FROM raw_predictions p
    WHERE NOT EXISTS (
        FROM joined_feedback j
        WHERE j.prediction_id = p.prediction_id AND j.prediction_received_date < p.received_date
    )
    QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY received_date, received_at, event_id) = 1
)
SELECT p.*, coalesce(k.is_positive, false) AS is_positive, {coalesced}
       coalesce(k.labeling_source, {quote(SILENCE)}) AS labeling_source, k.label_received_date,
       k.label_event_id, coalesce(k.is_label_withheld, false) AS is_label_withheld
FROM first_receipts p LEFT JOIN known k ON k.prediction_id = p.prediction_id
WHERE NOT coalesce(k.is_disputed, false)
  AND (k.is_positive IS NOT NULL OR NOT ({blocked} OR p.prediction_id IN (
      SELECT prediction_id FROM joined_feedback WHERE signal = {quote(Signal.LABEL)} AND ({on_tripped_day})
  )))
"""


def write_label_propensity_sql(rules: MiningRules) -> str:
    """Write the chance with which a row got its label; null where silence is a label, too."""
    return "NULL" if rules.is_silence_negative else "label_propensity"


def _write_unknown_sql(rules: MiningRules) -> str:
    """Write whether a row is silence that says nothing: it was mined while the rules took it for a negative."""
    return "false" if rules.is_silence_negative else "label_event_id IS NULL"


def _write_propensity_sql(contract: ScoreContract) -> str:
    """Write the chance with which the action policy let a row through; null where no policy did."""
    return f"CASE WHEN {contract.write_blocked_sql()} THEN NULL ELSE allow_propensity END"
