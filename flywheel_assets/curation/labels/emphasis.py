"""Emphasises some training rows: a factor of their weight that no sampling undoes. Off by default.

A sampling lever changes which rows are kept, and 1/π undoes it, so that a model believes all kinds of rows alike. An
emphasis changes what a model believes: recent rows, or large amounts, count more than their number.

The factors are divided by their weighted mean over the positives, and over the negatives. So each class keeps the sum
of its weights, and the share of positives that the scores are calibrated to stays the same. Within a class the
emphasised kinds are still overrepresented: a segment's scores may move. Evaluation rows are never emphasised.
"""

from dataclasses import dataclass

from flywheel_assets.curation.sql_literals import quote_double
from flywheel_assets.ranges import Checked, Positive, Share

_SMALLEST_AGE_FACTOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class EmphasisRules(Checked):
    """Sets what training believes more; both factors are multiplied. The default emphasises nothing."""

    recent_half_life_days: Positive | None = None
    """The weight of a row is halved per this many days of age, down to a millionth; None: age does not matter."""
    amount_power: Share = 0.0
    """The weight is multiplied by this power of the amount: 1 learns the money, 0.5 its root, 0 ignores it."""
    smallest_amount: Positive = 1.0
    """Smaller, missing and other unusable amounts count as this one, in the application's currency."""

    @property
    def is_on(self) -> bool:
        """Return whether any row is emphasised."""
        return self.recent_half_life_days is not None or self.amount_power > 0


def write_emphasis_sql(
    rules: EmphasisRules, *, weight: str, age_days: str, is_positive: str = "is_positive", amount: str = "amount"
) -> str:
    """Write the emphasis of a row as a DuckDB expression of type DOUBLE; NULL where the rules emphasise nothing.

    A window expression over all rows of the query: Σ weight · emphasis = Σ weight in each class.

    Args:
        rules: of the application.
        weight: expression of the weight before emphasis, > 0.
        age_days: expression in days, from the prediction to the moment whose knowledge is trained on; below 0 it is 0.
        is_positive: expression of type BOOLEAN.
        amount: expression of a number.
    """
    if not rules.is_on:
        return "NULL::DOUBLE"
    factors = []
    if rules.recent_half_life_days is not None:
        # Without a smallest factor a class of old rows would have a mean of 0.
        halved = f"pow(2e0, -greatest(0, ({age_days})) / {quote_double(rules.recent_half_life_days)})"
        factors.append(f"greatest({quote_double(_SMALLEST_AGE_FACTOR)}, {halved})")
    if rules.amount_power:
        smallest = quote_double(rules.smallest_amount)
        usable = f"CASE WHEN isfinite(({amount})::DOUBLE) THEN greatest(({amount})::DOUBLE, {smallest}) END"
        factors.append(f"pow(coalesce({usable}, {smallest}), {quote_double(rules.amount_power)})")
    factor = f"({' * '.join(factors)})"
    of_class = f"OVER (PARTITION BY ({is_positive}))"
    return f"({factor} * sum({weight}) {of_class} / sum(({weight}) * {factor}) {of_class})"
