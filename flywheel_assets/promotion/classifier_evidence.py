"""Measures champion and challenger on the same matured rows, as intervals, for the promotion gate of classifiers.

Alerts are compared at an equal number of them, each model from its own threshold on (`measures.decisions`). A known
positive of which only the share F is known at its age stands for 1 / F positives wherever positives are counted; rows
of which nothing is known yet stay rows. So precision is Σ 1/F of the hits over the number of rows, which is unbiased.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.classifiers import (
    bootstrap_average_precision_gain,
    bootstrap_class_gains,
    count_confusions,
    score_groups,
    score_rows,
)
from flywheel_assets.measures.decisions import (
    Capture,
    bootstrap_clustered_ratio,
    find_budget_threshold,
    measure_capture,
)
from flywheel_assets.measures.texts import Interval

Floats = npt.NDArray[np.float64]

CHAMPION = "champion"
"""The incumbent's name where it is a promoted model of the flywheel."""
CONFIDENCE = 0.95
"""Two-sided. The percentile interval is a little short: an equal model passes its lower bound in up to 3.6 % of
decisions, and one of 90 % in up to 5.6 %, which is too often."""


@dataclass(frozen=True, kw_only=True)
class SegmentEvidence:
    """Both classifiers on one segment's rows."""

    segment: str
    rows: int
    positives: int
    average_precision: float | None
    incumbent_average_precision: float | None
    ap_gain: Interval | None = None
    """At the confidence that all measured segments together hold with `CONFIDENCE` (Bonferroni); None: the segment has
    too few positives to decide anything."""


@dataclass(frozen=True, kw_only=True)
class AlertEvidence:
    """Both classifiers at the same number of alerts."""

    budget: float
    """Alerts on all evaluation rows."""
    live_threshold: float | None
    """Score from which the incumbent alerts in production; None where only a number of alerts is stated."""
    incumbent: Capture
    challenger: Capture
    capture_gain: Interval
    """Share of the positives that are caught, challenger − incumbent."""
    value_gain: Interval | None = None
    """Share of the positives' amounts that is caught, challenger − incumbent; None without amounts."""


@dataclass(frozen=True, kw_only=True)
class MultiClassEvidence:
    """Both classifiers of several classes, each class against the rest."""

    names: tuple[str, ...]
    by_class: tuple[SegmentEvidence, ...]
    """As of segments; `rows` are all, and a class with too few rows of its own has no interval."""
    macro_ap_gain: Interval
    """Mean over the classes with intervals, challenger − incumbent; all classes from the same draws."""
    macro_average_precision: float | None
    """Of the challenger, over the same classes; None: every class has too few rows."""
    incumbent_macro_average_precision: float | None
    confusion: list[list[float]]
    """Of the challenger, sums of weights: a row for each true class, a column for each most probable one."""
    incumbent_confusion: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class ClassifierEvidence:
    """The measurements of one challenger; both classifiers scored the same rows."""

    incumbent: str
    """"champion", or what served before the first promotion."""
    weeks: int
    """Distinct matured weeks among the rows."""
    positives: int
    """Those that are known."""
    expected_positives: float
    """Σ 1/F of the known ones: weighted, and with those that will become known."""
    ap_gain: Interval
    """AP of the challenger − AP of the incumbent, clustered by entity."""
    average_precision: float | None
    incumbent_average_precision: float | None
    calibration: Interval
    """Σp / Σy of the challenger."""
    incumbent_calibration_ratio: float | None
    alerts: AlertEvidence | None
    """None where the application neither acts on a threshold nor states how many alerts people can handle."""
    value_ap_gain: Interval | None = None
    """As `ap_gain`, each positive counting by its amount; None without amounts."""
    segments: tuple[SegmentEvidence, ...]
    feature_problem: str | None = None
    """Why predictions of these weeks are missing: they do not fit the contract. None: all that were looked at do."""
    classes: MultiClassEvidence | None = None
    """None: there are two classes."""

    @property
    def deciding_gain(self) -> Interval:
        """Return the gain that decides: ΔAP, of several classes that of the macro AP."""
        return self.ap_gain if self.classes is None else self.classes.macro_ap_gain

    @property
    def deciding_values(self) -> tuple[float | None, float | None]:
        """Return what the gain is the difference of: the challenger's and the incumbent's."""
        if self.classes is None:
            return self.average_precision, self.incumbent_average_precision
        return self.classes.macro_average_precision, self.classes.incumbent_macro_average_precision

    @property
    def threshold(self) -> float | None:
        """Return the score from which the challenger gives as many alerts; None where there are no alerts."""
        return self.alerts.challenger.threshold if self.alerts and self.alerts.budget else None


@dataclass(frozen=True, kw_only=True)
class ClassColumns:
    """Labels and probabilities of several classes, for the rows of `EvaluationRows`."""

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """The number of each row's class."""
    incumbent: Floats
    """Rows × classes."""
    challenger: Floats


@dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """Matured, unsampled rows that neither model was trained on; every column has one value per row."""

    labels: npt.ArrayLike
    """True or 1 for positives."""
    incumbent_scores: npt.ArrayLike
    """Of the model that serves now."""
    challenger_scores: npt.ArrayLike
    """Of the model that may replace it."""
    weeks: Sequence[str]
    """For instance "2018-W31"."""
    entities: Sequence[str]
    """The cluster of each row for the intervals."""
    segments: Sequence[str] | None = None
    weights: npt.ArrayLike | None = None
    """Number of rows that each stands for: 1 / allow_propensity. Rows that the incumbent blocked are missing; without
    the weights of the few that were let through, a model that blocks other rows would look too good."""
    known_shares: npt.ArrayLike | None = None
    """F(age) in (0, 1]: the share of positives that is known at the row's age; None: all of them."""
    amounts: npt.ArrayLike | None = None
    """The money at stake; a missing amount counts as 0."""
    classes: ClassColumns | None = None
    """None: there are two classes."""


def measure_evidence(
    rows: EvaluationRows,
    *,
    incumbent: str,
    threshold: float | None = None,
    alert_budget: float | None = None,
    min_segment_positives: int = 50,
    draws: int = 1000,
) -> ClassifierEvidence:
    """Measure both classifiers.

    Args:
        rows: labels, scores and everything else that is known of each row.
        incumbent: its name for the sentence.
        threshold: score from which the incumbent alerts, where the application acts on one.
        alert_budget: alerts on all rows that people can handle; None: as many as the incumbent gives from `threshold`.
        min_segment_positives: a segment with fewer known positives, or a class with fewer rows, gets no interval.
        draws: of the bootstraps.
    """
    measured = _Measured(rows, draws)
    old = score_rows(measured.labels, rows.incumbent_scores, measured.weights, measured.hits)
    new = score_rows(measured.labels, rows.challenger_scores, measured.weights, measured.hits)
    expected = measured.labels * measured.hits
    return ClassifierEvidence(
        incumbent=incumbent,
        weeks=len(np.unique(np.asarray(rows.weeks, dtype=object).astype(str))),
        positives=new.positives,
        expected_positives=float(expected.sum()),
        ap_gain=measured.bootstrap_ap_gain(measured.hits),
        average_precision=new.average_precision,
        incumbent_average_precision=old.average_precision,
        calibration=bootstrap_clustered_ratio(
            measured.weights * np.asarray(rows.challenger_scores, dtype=np.float64),
            expected,
            rows.entities,
            draws=draws,
            confidence=CONFIDENCE,
        ),
        incumbent_calibration_ratio=old.calibration_ratio,
        alerts=measured.compare_alerts(threshold, alert_budget),
        value_ap_gain=None if measured.values is None else measured.bootstrap_ap_gain(measured.values),
        segments=measured.compare_segments(min_segment_positives),
        classes=None if rows.classes is None else measured.compare_classes(rows.classes, min_segment_positives),
    )


class _Measured:
    """Holds the rows as arrays, with what the measures share."""

    def __init__(self, rows: EvaluationRows, draws: int) -> None:
        self.rows, self.draws = rows, draws
        self.labels = np.asarray(rows.labels).astype(bool)
        self.weights: Floats = (
            np.ones(len(self.labels)) if rows.weights is None else np.asarray(rows.weights, dtype=np.float64)
        )
        self.hits: Floats = (
            self.weights
            if rows.known_shares is None
            else self.weights / np.asarray(rows.known_shares, dtype=np.float64)
        )
        self.values = self._weigh_by_amounts()

    def _weigh_by_amounts(self) -> Floats | None:
        """Weigh rows by their amounts, so that the positives keep the sum of their weights: AP stays within [0, 1]."""
        if self.rows.amounts is None:
            return None
        values = self.hits * np.nan_to_num(np.asarray(self.rows.amounts, dtype=np.float64))
        total = float(values[self.labels].sum())
        return np.asarray(values * (float(self.hits[self.labels].sum()) / total)) if total else values

    def bootstrap_ap_gain(
        self, hits: Floats, chosen: npt.NDArray[np.bool_] | None = None, confidence: float = CONFIDENCE
    ) -> Interval:
        """Compute ΔAP with its interval, of all rows or of the chosen ones."""
        among = np.ones(len(self.labels), dtype=bool) if chosen is None else chosen
        return bootstrap_average_precision_gain(
            self.labels[among],
            np.asarray(self.rows.incumbent_scores, dtype=np.float64)[among],
            np.asarray(self.rows.challenger_scores, dtype=np.float64)[among],
            np.asarray(self.rows.entities, dtype=object)[among].tolist(),
            weights=self.weights[among],
            positive_weights=hits[among],
            draws=self.draws,
            confidence=confidence,
        )

    def compare_alerts(self, threshold: float | None, budget: float | None) -> AlertEvidence | None:
        """Compare the models at `budget` alerts, or at those that the incumbent gives from the threshold on."""
        old = np.asarray(self.rows.incumbent_scores, dtype=np.float64)
        new = np.asarray(self.rows.challenger_scores, dtype=np.float64)
        if budget is None:
            if threshold is None:
                return None
            budget = float(self.weights[old >= threshold].sum())
        before = find_budget_threshold(old, budget, self.weights)
        after = find_budget_threshold(new, budget, self.weights)
        return AlertEvidence(
            budget=budget,
            live_threshold=threshold,
            incumbent=self._measure_capture(old, before),
            challenger=self._measure_capture(new, after),
            capture_gain=self._bootstrap_capture_gain(old >= before, new >= after, self.hits),
            value_gain=(
                None if self.values is None else self._bootstrap_capture_gain(old >= before, new >= after, self.values)
            ),
        )

    def _measure_capture(self, scores: Floats, threshold: float) -> Capture:
        return measure_capture(self.labels, scores, threshold, self.weights, self.hits, self.rows.amounts)

    def _bootstrap_capture_gain(self, old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_], hits: Floats) -> Interval:
        gained = self.labels * hits * (new.astype(np.float64) - old.astype(np.float64))
        return bootstrap_clustered_ratio(
            gained, self.labels * hits, self.rows.entities, draws=self.draws, confidence=CONFIDENCE
        )

    def compare_classes(self, columns: ClassColumns, min_rows: int) -> MultiClassEvidence:
        """Compare the models on each class against the rest; the classes' intervals hold together."""
        # Late labels are missing among the positives only: a negative stands for itself.
        hits = np.where(self.labels, self.hits, self.weights)
        counts = np.bincount(columns.labels, minlength=len(columns.names))
        large = [number for number, count in enumerate(counts) if count >= max(1, min_rows)]
        gains = bootstrap_class_gains(
            columns.labels,
            columns.incumbent,
            columns.challenger,
            self.rows.entities,
            large,
            weights=self.weights,
            positive_weights=hits,
            draws=self.draws,
            confidence=CONFIDENCE,
            class_confidence=1 - (1 - CONFIDENCE) / max(1, len(large)),
        )
        intervals = dict(zip(large, gains.by_class, strict=True))
        by_class = []
        for number, name in enumerate(columns.names):
            old, new = (
                score_rows(columns.labels == number, scores[:, number], self.weights, hits).average_precision
                for scores in (columns.incumbent, columns.challenger)
            )
            by_class.append(
                SegmentEvidence(
                    segment=name,
                    rows=len(columns.labels),
                    positives=int(counts[number]),
                    average_precision=new,
                    incumbent_average_precision=old,
                    ap_gain=intervals.get(number),
                )
            )
        compared = [by_class[number] for number in large]
        return MultiClassEvidence(
            names=columns.names,
            by_class=tuple(by_class),
            macro_ap_gain=gains.macro,
            macro_average_precision=_average([each.average_precision for each in compared]),
            incumbent_macro_average_precision=_average([each.incumbent_average_precision for each in compared]),
            confusion=count_confusions(columns.labels, columns.challenger, hits),
            incumbent_confusion=count_confusions(columns.labels, columns.incumbent, hits),
        )

    def compare_segments(self, min_positives: int) -> tuple[SegmentEvidence, ...]:
        """Compare the models in each segment; intervals hold for all large segments together."""
        if self.rows.segments is None:
            return ()
        names = np.asarray(self.rows.segments, dtype=object).astype(str)
        before = score_groups(self.rows.segments, self.labels, self.rows.incumbent_scores, self.weights, self.hits)
        after = score_groups(self.rows.segments, self.labels, self.rows.challenger_scores, self.weights, self.hits)
        large = [name for name, scores in after.items() if scores.positives >= min_positives]
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(large))
        return tuple(
            SegmentEvidence(
                segment=name,
                rows=scores.rows,
                positives=scores.positives,
                average_precision=scores.average_precision,
                incumbent_average_precision=before[name].average_precision,
                ap_gain=self.bootstrap_ap_gain(self.hits, names == name, confidence) if name in large else None,
            )
            for name, scores in after.items()
        )


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
