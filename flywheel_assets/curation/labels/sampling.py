"""Samples the labelled rows that a classifier is trained on, and records the probability of every kept row.

The method is surprise sampling. Every positive is kept (π = 1). A negative is kept with π = clip(surprise_factor ·
score · levers, floor, 1): what the model nearly took for a positive teaches most, and the floor keeps the easy rest
represented. A kept row weighs 1/π, so that sums over the kept rows are unbiased for sums over all rows and the trained
scores stay calibrated. Measured on
1.2 M rows: 3.3 % of them give AP .7268 where all give .7277; the same rows unweighted inflate the scores six-fold.

Sampling pays where there are many rows. The floor follows from their number: everything is kept while all rows of 180
days fit the row budget, because a fit of so few rows costs seconds and a low floor costs average precision (.006 to
.018 at 3,900 predictions a day, measured).

Three rules keep that true:

- *Levers feed π, they never bypass it.* Severity, amount, segment and recency multiply the probability; none adds or
  removes rows behind its back, so none can bias the training set.
- *One hash per prediction.* A row is kept where `draw < π`, and its draw is a hash of its id: materializing again keeps
  the same rows, lowering π only removes rows, raising it only adds some. π of the day is stored; the recency factor,
  which depends on when a version is cut, multiplies it at resolution and is drawn with the same hash, so the rows of a
  version are a subset of the rows of its days.
- *What the world let through.* A blocked transaction never gets its label, so its silence says nothing: it is never a
  matured negative. Where the action policy lets some risky predictions through at random, each of those stands for
  1/allow_propensity of its kind, positives too. That chance was drawn by the policy already: it enters the weight,
  never the draw.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from flywheel_assets.curation.sql_literals import quote, quote_double
from flywheel_assets.errors import SettingsError
from flywheel_assets.ranges import Checked, Count, NotNegative, Positive, PositiveShare

_BUDGET_DAYS = 180
_SMALLEST_CHOSEN_FLOOR = 0.01


class SelectionReason(StrEnum):
    """The rule that set a row's probability on its day."""

    POSITIVE = "positive"  # π = 1
    SURPRISE = "surprise"  # a negative whose score and levers lift it above the floor
    FLOOR = "floor"  # an easy negative


@dataclass(frozen=True, kw_only=True)
class SamplingRules(Checked):
    """Sets the probability that a labelled row is trained on. All factors apply to negatives only."""

    row_budget: Count = 2_000_000
    """Rows that 180 days of training may have; it decides the floor where none is named. LightGBM fits so many rows of
    15 features in about 20 s of CPU."""
    surprise_factor: NotNegative = 10.0
    """π of a negative is this times its score: all from a score of 0.1 on are kept. 0 samples the floor alone."""
    floor: PositiveShare | None = None
    """Smallest π of a day, in (0, 1]; its inverse is the largest weight. 1 keeps every row. None: chosen for each day
    from its number of predictions and the row budget, see `settle_floor`."""
    severity_boost: NotNegative = 0.0
    """π is multiplied by 1 + this · severity where the row is a discrepancy."""
    large_amount: float | None = None
    """Amounts from here on, in the application's currency, are multiplied by `large_amount_factor`; None: no lever."""
    large_amount_factor: NotNegative = 1.0
    """For instance 3: rows that are expensive to get wrong are three times as likely to be kept."""
    segment_rates: Mapping[str, NotNegative] = field(default_factory=dict)
    """Factor by segment; a segment that is not named has 1. Below 1 thins out an overrepresented segment."""
    recency_half_life_days: Positive | None = None
    """At resolution π is halved per this many days of age; None: age does not matter. This only saves rows: 1/π undoes
    it, so that the model believes old rows as much as new ones. To make it believe new rows more, see
    `EmphasisRules`."""
    recency_floor: PositiveShare = 0.1
    """Smallest recency factor, in (0, 1]: bounds the weight of old negatives by 1 / (floor · recency_floor)."""
    min_allow_propensity: PositiveShare = 0.05
    """Smaller propensities are raised to it: a weight of at most 20 is worth the small bias it costs."""
    min_label_propensity: PositiveShare = 0.01
    """The same for `label_propensity`, where silence is unknown: reviews of a random percent are usual."""

    def settle_floor(self, predictions_per_day: int) -> "SamplingRules":
        """Return these rules with the floor of one day; a floor that is named stays.

        clip(row_budget / 180 / predictions_per_day, .01, 1): all rows are kept up to 11,111 predictions a day, half of
        the easy ones at 22,222, and one in a hundred from 1,111,111 on. Rejected: the smallest floor whose cost in
        average precision, measured on matured weeks, stays within .005. One week's difference has a
        standard error of .003 to .007, so that chance would choose (`docs/experiments.md`).
        """
        if self.floor is not None:
            return self
        share = self.row_budget / _BUDGET_DAYS / max(1, predictions_per_day)
        return replace(self, floor=min(1.0, max(_SMALLEST_CHOSEN_FLOOR, share)))

    def _check_together(self) -> None:
        if self.large_amount is None and self.large_amount_factor != 1:
            raise self.build_range_error(
                "large_amount_factor",
                self.large_amount_factor,
                "1 while large_amount is None; name the amount from which it applies",
            )


def write_draw_sql(salt: str, prediction_id: str = "prediction_id") -> str:
    """Write the draw of a row as a DuckDB expression of type DOUBLE, uniform in [0, 1).

    A row is kept where its draw is below π.

    Args:
        salt: the application's name; another one gives independent draws. It may not be empty or hold a colon, which
            separates it from the id.
        prediction_id: expression of type VARCHAR.

    Raises:
        SettingsError: the salt is empty or holds a colon.
    """
    # 53 bits: what a double holds exactly, so that no hash is rounded up to 1.
    hashed = f"md5_number_lower({quote(_write_prefix(salt))} || ({prediction_id}))"
    return f"(({hashed} >> 11)::DOUBLE / {quote_double(2.0**53)})"


def draw_uniform(salt: str, prediction_id: str) -> float:
    """Compute the draw of one id, bit for bit as `draw_sql` does.

    Raises:
        SettingsError: the salt is empty or holds a colon.
    """
    digest = hashlib.md5(f"{_write_prefix(salt)}{prediction_id}".encode(), usedforsecurity=False).digest()
    return (int.from_bytes(digest[8:], "little") >> 11) / 2.0**53


def write_inclusion_probability_sql(
    rules: SamplingRules,
    *,
    score: str = "score",
    is_positive: str = "is_positive",
    severity: str = "severity",
    amount: str = "amount",
    segment: str = "segment",
) -> str:
    """Write π of a row on its day as a DuckDB expression of type DOUBLE, in [floor, 1].

    NULL while the label is unknown. Only the columns that the rules use are named. A lever whose column is NULL counts
    as 1; a negative whose score is unknown or not a number is kept: it may be a hard one.

    Raises:
        ValueError: the floor of the day is not settled.
    """
    return f"""CASE
    WHEN ({is_positive}) THEN 1e0
    WHEN NOT ({is_positive}) THEN least(1e0, greatest({_write_floor_sql(rules)}, {
        _write_surprise_sql(rules, score, severity, amount, segment)
    }))
END"""


def write_selection_reason_sql(
    rules: SamplingRules,
    *,
    score: str = "score",
    is_positive: str = "is_positive",
    severity: str = "severity",
    amount: str = "amount",
    segment: str = "segment",
) -> str:
    """Write the `SelectionReason` that set π as a DuckDB VARCHAR; NULL while the label is unknown.

    Raises:
        ValueError: the floor of the day is not settled.
    """
    surprise = _write_surprise_sql(rules, score, severity, amount, segment)
    return f"""CASE
    WHEN ({is_positive}) THEN {quote(SelectionReason.POSITIVE)}
    WHEN NOT ({is_positive}) AND {surprise} > {_write_floor_sql(rules)}
        THEN {quote(SelectionReason.SURPRISE)}
    WHEN NOT ({is_positive}) THEN {quote(SelectionReason.FLOOR)}
END"""


def write_recency_factor_sql(rules: SamplingRules, *, age_days: str, is_positive: str = "is_positive") -> str:
    """Write the factor of π at resolution as a DuckDB expression of type DOUBLE, in (0, 1].

    max(recency_floor, 2^(−age / half-life)); 1 for positives, without a half-life, and for an age below 0. The same
    draw decides again: keep the row where `draw < inclusion_probability · recency_factor`.

    Args:
        rules: half-life and floor.
        age_days: expression in days, from the prediction to the time at which the version is cut.
        is_positive: expression of type BOOLEAN.
    """
    if rules.recency_half_life_days is None:
        return "1e0"
    return (
        f"CASE WHEN ({is_positive}) THEN 1e0 ELSE greatest({quote_double(rules.recency_floor)}, "
        f"pow(2e0, -greatest(0, ({age_days})) / {quote_double(rules.recency_half_life_days)})) END"
    )


def write_sample_weight_sql(
    rules: SamplingRules,
    *,
    inclusion_probability: str = "inclusion_probability",
    allow_propensity: str = "allow_propensity",
    label_propensity: str = "NULL",
) -> str:
    """Write the weight of a kept row as a DuckDB expression of type DOUBLE, ≥ 1.

    It is 1 / (π · allow_propensity · label_propensity): the number of rows that the row stands for.

    Args:
        rules: the smallest propensity that is believed.
        inclusion_probability: the π that the row was drawn with, recency included.
        allow_propensity: chance with which the action policy let the prediction through, drawn independently of its
            outcome; NULL counts as 1. Give NULL for a blocked row that got its label another way: no draw let it
            through, so it stands for itself.
        label_propensity: chance with which a labelled row got its label, given what was known at the decision; NULL
            counts as 1.
    """
    allowed = f"least(1e0, greatest({quote_double(rules.min_allow_propensity)}, coalesce(({allow_propensity}), 1e0)))"
    labelled = f"least(1e0, greatest({quote_double(rules.min_label_propensity)}, coalesce(({label_propensity}), 1e0)))"
    return f"(1e0 / (({inclusion_probability}) * {allowed} * {labelled}))"


def _write_surprise_sql(rules: SamplingRules, score: str, severity: str, amount: str, segment: str) -> str:
    """Write the π of a negative before clipping; infinity where its score is unknown."""
    unknown = f"({score}) IS NULL OR isnan(({score})::DOUBLE)"
    factors = [
        f"CASE WHEN {unknown} THEN 'infinity'::DOUBLE ELSE {quote_double(rules.surprise_factor)} * ({score}) END"
    ]
    if rules.severity_boost:
        factors.append(f"(1e0 + {quote_double(rules.severity_boost)} * coalesce(({severity}), 0e0))")
    if rules.large_amount is not None:
        large, factor = quote_double(rules.large_amount), quote_double(rules.large_amount_factor)
        factors.append(f"CASE WHEN ({amount}) >= {large} THEN {factor} ELSE 1e0 END")
    if rules.segment_rates:
        rates = " ".join(f"WHEN {quote(name)} THEN {quote_double(rate)}" for name, rate in rules.segment_rates.items())
        factors.append(f"CASE ({segment}) {rates} ELSE 1e0 END")
    return f"({' * '.join(factors)})"


def _write_floor_sql(rules: SamplingRules) -> str:
    if rules.floor is None:
        raise ValueError(
            "SamplingRules.floor is None; name one, or give the rules that settle_floor returns for the day"
        )
    return quote_double(rules.floor)


def _write_prefix(salt: str) -> str:
    if not salt or ":" in salt:
        raise SettingsError(f"the salt of a draw is {salt!r}; give a name without colons, like the application's")
    return f"{salt}:"
