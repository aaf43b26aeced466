"""Writes the rules for a classifier's wrong or unsure predictions as SQL expressions.

SQL, because a day has a million predictions. Discrepancies feed the review queue, the report and the trigger. They
never decide alone what is trained on: a model trained on its hard rows only learns that high scores mean innocence
(measured: AP .005, ROC AUC .164). What is trained on is decided by `sampling.py`, where a discrepancy's severity is one
lever of several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flywheel_assets.curation.sql_literals import quote, quote_double
from flywheel_assets.ranges import Checked, Share


class Discrepancy(StrEnum):
    """A kind of disagreement between a prediction and its label; a row has one or none."""

    CONFIDENT_MISS = "confident_miss"  # positive, scored low
    CONFIDENT_FALSE_ALARM = "confident_false_alarm"  # negative, scored high
    UNCERTAIN = "uncertain"  # scored within the band, whatever the label
    WRONG_CLASS = "wrong_class"  # of several classes: positive, and another positive class was the most probable


@dataclass(frozen=True, kw_only=True)
class DiscrepancyRules(Checked):
    """Limits on the score, which lies in [0, 1]; the band includes both of its ends.

    By default the three rules meet, so that no wrong prediction falls between them; how wrong it was is the severity.
    """

    uncertain_low: Share = 0.4
    """Scores from here on are uncertain."""
    uncertain_high: Share = 0.7
    """Scores up to here are uncertain."""
    confident_miss_below: Share = 0.4
    """A positive scored below this is a confident miss."""
    confident_false_alarm_above: Share = 0.7
    """A negative scored above this is a confident false alarm."""

    def _check_together(self) -> None:
        if not self.uncertain_low < self.uncertain_high:
            valid = f"less than uncertain_high, here {self.uncertain_high!r}: the uncertain band is empty"
            raise self.build_range_error("uncertain_low", self.uncertain_low, valid)
        if not self.confident_miss_below <= self.uncertain_low:
            valid = f"0 to uncertain_low, here {self.uncertain_low!r}: a score in the band is not confident"
            raise self.build_range_error("confident_miss_below", self.confident_miss_below, valid)
        if not self.uncertain_high <= self.confident_false_alarm_above:
            valid = f"uncertain_high, here {self.uncertain_high!r}, to 1: a score in the band is not confident"
            raise self.build_range_error("confident_false_alarm_above", self.confident_false_alarm_above, valid)


def write_discrepancy_sql(rules: DiscrepancyRules, score: str = "score", is_positive: str = "is_positive") -> str:
    """Write the reason code of a row as a DuckDB expression of type VARCHAR.

    NULL where the model was right and sure of it, where the label or the score is unknown, and where the score is no
    number in [0, 1] (NaN included, which DuckDB holds to be greater than every number).

    Args:
        rules: the limits.
        score: expression of type DOUBLE.
        is_positive: expression of type BOOLEAN, NULL while the label is unknown.
    """
    low, high = quote_double(rules.uncertain_low), quote_double(rules.uncertain_high)
    miss, alarm = quote_double(rules.confident_miss_below), quote_double(rules.confident_false_alarm_above)
    return f"""CASE
    WHEN {_write_unjudged_sql(score, is_positive)} THEN NULL
    WHEN ({score}) BETWEEN {low} AND {high} THEN {quote(Discrepancy.UNCERTAIN)}
    WHEN ({is_positive}) AND ({score}) < {miss} THEN {quote(Discrepancy.CONFIDENT_MISS)}
    WHEN NOT ({is_positive}) AND ({score}) > {alarm} THEN {quote(Discrepancy.CONFIDENT_FALSE_ALARM)}
END"""


def write_severity_sql(rules: DiscrepancyRules, score: str = "score", is_positive: str = "is_positive") -> str:
    """Write the severity of a discrepancy as a DuckDB expression of type DOUBLE, in [0, 1].

    NULL exactly where there is no discrepancy. A confident miss or false alarm: |y − p|, the distance from the truth.
    An uncertain row: half of its closeness to the middle of the band, ½ · (1 − |p − middle| / half width). So nothing
    uncertain outranks a coin toss, whose |y − p| is ½, and ranking a review queue by severity puts the confidently
    wrong first.
    """
    low, high = rules.uncertain_low, rules.uncertain_high
    middle, half_width = quote_double((low + high) / 2), quote_double((high - low) / 2)
    miss, alarm = quote_double(rules.confident_miss_below), quote_double(rules.confident_false_alarm_above)
    return f"""CASE
    WHEN {_write_unjudged_sql(score, is_positive)} THEN NULL
    WHEN ({score}) BETWEEN {quote_double(low)} AND {quote_double(high)}
        THEN 0.5e0 * greatest(0e0, 1e0 - abs(({score}) - {middle}) / {half_width})
    WHEN ({is_positive}) AND ({score}) < {miss} THEN 1e0 - ({score})
    WHEN NOT ({is_positive}) AND ({score}) > {alarm} THEN ({score})
END"""


def write_class_discrepancy_sql(classes: Sequence[str], negative: str) -> str:
    """Write the reason code of a row of several classes as a DuckDB expression of type VARCHAR.

    A discrepancy is a label that was not the most probable class: a confident miss where that was the negative label,
    a confident false alarm where the label is it, and a wrong class between two others. Limits on the score say nothing
    about those. NULL where the class or the probabilities are unknown.

    Args:
        classes: in the order of `probabilities`.
        negative: the negative label.

    Reads `probabilities`, a LIST of DOUBLE, and `label_class`.
    """
    place = classes.index(negative) + 1
    own, highest = _write_label_probability_sql(classes), "list_max(probabilities)"
    return f"""CASE
    WHEN {own} IS NULL OR {own} >= {highest} THEN NULL
    WHEN label_class = {quote(negative)} THEN {quote(Discrepancy.CONFIDENT_FALSE_ALARM)}
    WHEN probabilities[{place}] = {highest} THEN {quote(Discrepancy.CONFIDENT_MISS)}
    ELSE {quote(Discrepancy.WRONG_CLASS)}
END"""


def write_class_severity_sql(classes: Sequence[str]) -> str:
    """Write the severity of such a discrepancy, 1 − p(label class), as a DuckDB DOUBLE; NULL where there is none."""
    own = _write_label_probability_sql(classes)
    return f"CASE WHEN {own} < list_max(probabilities) THEN 1e0 - {own} END"


def _write_label_probability_sql(classes: Sequence[str]) -> str:
    return f"probabilities[list_position([{', '.join(map(quote, classes))}], label_class)]"


def _write_unjudged_sql(score: str, is_positive: str) -> str:
    return f"({is_positive}) IS NULL OR ({score}) IS NULL OR NOT ({score}) BETWEEN 0e0 AND 1e0"
