"""The promotion gate for classifiers: decides on later, matured, unsampled rows, with one sentence that says why.

The same shape as the promotion gate for text models, whose `Check` and `Decision` it uses. Why the limits: one week's
ΔAP has a standard error of .003 to .007, so a near-identical challenger wins half of all weeks by its point estimate
and 17 % of them by its interval; two weeks are the least that finds a true gain of .0065 more often than not. A ranking
can be good while its probabilities are not, and thresholds live on probabilities: hence Σp/Σy and the alert volume.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import SettingsError
from flywheel_assets.measures.classifiers import (
    bootstrap_average_precision_gain,
    count_alerts,
    score_groups,
    score_rows,
)
from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.text_limits import Check, Decision, conclude, fill_missing


class StatedReason(StrEnum):
    """The reason for a training; it decides whether the challenger must be better or only not worse."""

    NEW_EXAMPLES = "new_examples"
    CALIBRATION = "calibration"
    DRIFT = "drift"
    AGE = "age"


MAINTENANCE = frozenset({StatedReason.CALIBRATION, StatedReason.DRIFT, StatedReason.AGE})
"""Reasons for which replacing the incumbent is worth it without a gain: it is known to be out of date."""


@dataclass(frozen=True, kw_only=True)
class ClassifierLimits:
    """The limits that a challenger must keep; AP is average precision, in [0, 1]."""

    min_weeks: int = 2
    """Matured weeks of evaluation rows after the training data."""
    min_positives: int = 200
    """Below about 200 positives Σy alone is uncertain by 7 %, and chance decides the calibration check."""
    min_ap_gain: float = 0.0
    """The lower bound of ΔAP must exceed this, unless the stated reason is maintenance."""
    non_inferiority_margin: float = 0.01
    """For maintenance the lower bound of ΔAP may be this far below 0."""
    min_calibration_ratio: float = 0.9
    """Σp / Σy of the challenger, at least."""
    max_calibration_ratio: float = 1.1
    """Σp / Σy of the challenger, at most."""
    max_alert_change: float = 0.25
    """Share by which alerts at the live threshold may grow or shrink: people have to look at them."""
    max_segment_ap_drop: float = 0.05
    """Largest fall of AP in any segment that is large enough to tell."""
    min_segment_positives: int = 50
    """Segments with fewer positives are shown but decide nothing."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise SettingsError(f"ClassifierLimits.{name} is {value!r}; it must be a number from 0 on")
        if not self.min_calibration_ratio <= 1 <= self.max_calibration_ratio:
            raise SettingsError(
                f"ClassifierLimits: calibration ratios from {self.min_calibration_ratio!r} to "
                f"{self.max_calibration_ratio!r} do not hold 1, the ratio of a calibrated model"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentEvidence:
    """Both classifiers on one segment's rows."""

    segment: str
    rows: int
    positives: int
    average_precision: float | None
    incumbent_average_precision: float | None


@dataclass(frozen=True, kw_only=True)
class ClassifierEvidence:
    """The measurements of one challenger; both classifiers scored the same rows."""

    incumbent: str
    """"champion", or what served before the first promotion."""
    weeks: int
    """Distinct matured weeks among the rows."""
    positives: int
    ap_gain: Interval
    """AP of the challenger − AP of the incumbent, clustered by entity."""
    average_precision: float | None
    incumbent_average_precision: float | None
    calibration_ratio: float | None
    """Σp / Σy of the challenger."""
    incumbent_calibration_ratio: float | None
    threshold: float | None
    """The live one; None where the application acts on no threshold."""
    alerts: int | None
    """Rows that the challenger scores from the threshold on."""
    incumbent_alerts: int | None
    segments: tuple[SegmentEvidence, ...]


def measure_evidence(
    labels: npt.ArrayLike,
    incumbent_scores: npt.ArrayLike,
    challenger_scores: npt.ArrayLike,
    *,
    incumbent: str,
    weeks: Sequence[str],
    entities: Sequence[str],
    segments: Sequence[str] | None = None,
    threshold: float | None = None,
    weights: npt.ArrayLike | None = None,
    draws: int = 1000,
) -> ClassifierEvidence:
    """Measure both classifiers on matured, unsampled rows that neither was trained on.

    Args:
        labels: True or 1 for positives, one per row.
        incumbent_scores: of the model that serves now.
        challenger_scores: of the model that may replace it.
        incumbent: its name for the sentence.
        weeks: the week of each row, for instance "2018-W31".
        entities: the cluster of each row for the interval.
        segments: the segment of each row, where the application has any.
        threshold: score from which the application acts, where it does.
        weights: how many rows each stands for: 1 / allow_propensity. Rows that the incumbent blocked are missing;
            without the weights of the few that were let through, a model that blocks other rows would look too good.
        draws: of the bootstrap.
    """
    old, new = score_rows(labels, incumbent_scores, weights), score_rows(labels, challenger_scores, weights)
    before = score_groups(segments, labels, incumbent_scores, weights) if segments is not None else {}
    after = score_groups(segments, labels, challenger_scores, weights) if segments is not None else {}
    return ClassifierEvidence(
        incumbent=incumbent,
        weeks=len(np.unique(np.asarray(weeks, dtype=object).astype(str))),
        positives=new.positives,
        ap_gain=bootstrap_average_precision_gain(
            labels, incumbent_scores, challenger_scores, entities, weights=weights, draws=draws
        ),
        average_precision=new.average_precision,
        incumbent_average_precision=old.average_precision,
        calibration_ratio=new.calibration_ratio,
        incumbent_calibration_ratio=old.calibration_ratio,
        threshold=threshold,
        alerts=None if threshold is None else count_alerts(challenger_scores, threshold, weights),
        incumbent_alerts=None if threshold is None else count_alerts(incumbent_scores, threshold, weights),
        segments=tuple(
            SegmentEvidence(
                segment=name,
                rows=scores.rows,
                positives=scores.positives,
                average_precision=scores.average_precision,
                incumbent_average_precision=before[name].average_precision,
            )
            for name, scores in after.items()
        ),
    )


def decide_classifier(
    evidence: ClassifierEvidence, limits: ClassifierLimits, stated_reason: StatedReason = StatedReason.NEW_EXAMPLES
) -> Decision:
    """Apply every limit; one failed check blocks. A value that is missing or not a number fails its check.

    Without a threshold there is no alert volume to keep, and without segments none to protect: both checks pass.
    """
    enough = Check(
        "matured_evidence",
        evidence.weeks,
        limits.min_weeks,
        evidence.weeks >= limits.min_weeks and evidence.positives >= limits.min_positives,
        f"{evidence.weeks} matured weeks with {evidence.positives} positives after the training data, "
        f"{limits.min_weeks} weeks and {limits.min_positives} positives are needed",
    )
    better = _check_gain(evidence, limits, stated_reason)
    checks = (enough, better, _check_calibration(evidence, limits), *_check_alerts(evidence, limits))
    return conclude((*checks, _check_segments(evidence, limits)), enough=enough, better=better)


def _check_gain(evidence: ClassifierEvidence, limits: ClassifierLimits, stated_reason: StatedReason) -> Check:
    gain = evidence.ap_gain
    low = fill_missing(gain.low)
    maintenance = stated_reason in MAINTENANCE
    limit = -limits.non_inferiority_margin if maintenance else limits.min_ap_gain
    demand = (
        f"not to be worse by {limits.non_inferiority_margin:.3f} is enough because the reason is {stated_reason}"
        if maintenance
        else f"the lower bound must exceed {limit:.3f}"
    )
    return Check(
        "ap_gain",
        low,
        limit,
        low > limit,
        f"average precision {fill_missing(evidence.average_precision):.3f} against the {evidence.incumbent}'s "
        f"{fill_missing(evidence.incumbent_average_precision):.3f}, a difference of {fill_missing(gain.mean):+.3f} "
        f"[{low:+.3f}, {fill_missing(gain.high):+.3f}], {demand}",
    )


def _check_calibration(evidence: ClassifierEvidence, limits: ClassifierLimits) -> Check:
    ratio = fill_missing(evidence.calibration_ratio)
    low, high = limits.min_calibration_ratio, limits.max_calibration_ratio
    return Check(
        "calibration",
        ratio,
        high if ratio > 1 else low,
        low <= ratio <= high,
        f"{ratio:.2f} positives predicted for each that came, {low:.2f} to {high:.2f} are allowed",
    )


def _check_alerts(evidence: ClassifierEvidence, limits: ClassifierLimits) -> tuple[Check, ...]:
    if evidence.threshold is None or evidence.alerts is None or evidence.incumbent_alerts is None:
        return ()
    before, after = evidence.incumbent_alerts, evidence.alerts
    change = after / before - 1 if before else (math.inf if after else 0.0)
    return (
        Check(
            "alert_volume",
            change,
            limits.max_alert_change,
            abs(change) <= limits.max_alert_change,
            f"{after:,} alerts at the threshold {evidence.threshold:g} instead of {before:,}, "
            f"a change of at most {limits.max_alert_change:.0%} is allowed",
        ),
    )


def _check_segments(evidence: ClassifierEvidence, limits: ClassifierLimits) -> Check:
    drops = {
        part.segment: fill_missing(part.incumbent_average_precision) - fill_missing(part.average_precision)
        for part in evidence.segments
        if part.positives >= limits.min_segment_positives
    }
    if not drops:
        return Check("segments", 0.0, limits.max_segment_ap_drop, True, "no segment is large enough to compare")
    # A drop that is not a number is the worst.
    worst = max(drops, key=lambda segment: math.inf if math.isnan(drops[segment]) else drops[segment])
    return Check(
        "segments",
        drops[worst],
        limits.max_segment_ap_drop,
        drops[worst] <= limits.max_segment_ap_drop,
        f"average precision in segment {worst!r} changes by {-drops[worst]:+.3f}, "
        f"a fall of at most {limits.max_segment_ap_drop:.3f} is allowed in any",
    )
