"""The promotion gate for classifiers: decides on later, matured, unsampled rows, with one sentence that says why.

The same shape as the promotion gate for text models, whose `Check` and `Decision` it uses. Why the limits: one week's
ΔAP has a standard error of .003 to .007, so a near-identical challenger wins half of all weeks by its point estimate
and 17 % of them by its interval; two weeks are the least that finds a true gain of .0065 more often than not. A ranking
can be good while its probabilities are not, and thresholds live on probabilities: hence Σp/Σy.

A gain must be proven, harm must be proven as well: every limit but that on the gain refuses only what the rows show
beyond chance. Point limits on calibration, alerts and segments refused 83 % of much better models at 200 positives,
of which ΔAP alone let 62 % pass. Alerts are compared at an equal number of them, each model from its own threshold on:
compared at the live threshold, an incumbent that predicts too little could never be replaced. The challenger's
threshold is a part of its promotion. `benchmarks/classifier_gate.py` measures the error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from annotated_types import Ge

from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.classifier_evidence import (
    CHAMPION,
    AlertEvidence,
    ClassifierEvidence,
    SegmentEvidence,
)
from flywheel_assets.promotion.text_limits import Check, Decision, conclude, fill_missing
from flywheel_assets.ranges import Checked, CountOrZero, NotNegative, Positive, Share


class StatedReason(StrEnum):
    """The reason for a training; it decides whether the challenger must be better or only not worse.

    Age with a champion of ours asks least: not to be proven worse.
    """

    NEW_EXAMPLES = "new_examples"
    CALIBRATION = "calibration"
    DRIFT = "drift"
    AGE = "age"


MAINTENANCE = frozenset({StatedReason.CALIBRATION, StatedReason.DRIFT})
"""Reasons for which replacing the incumbent is worth it without a gain: it is known to be out of date."""


@dataclass(frozen=True, kw_only=True)
class ClassifierLimits(Checked):
    """The limits that a challenger must keep; AP is average precision, in [0, 1]."""

    min_weeks: CountOrZero = 2
    """Matured weeks of evaluation rows after the training data."""
    min_positives: CountOrZero = 100
    """Known positives among them. At 100 a model that is much better passes in half of the cases, at 200 in most."""
    min_ap_gain: NotNegative = 0.0
    """The lower bound of ΔAP must exceed this, unless the stated reason is maintenance; of several classes, here and
    below, that of their macro AP."""
    non_inferiority_margin: NotNegative = 0.01
    """Where the reason is calibration or drift, the lower bound of ΔAP may be this far below 0."""
    min_calibration_ratio: Share = 0.8
    """Σp / Σy of the challenger: refused where its whole interval lies below."""
    max_calibration_ratio: Annotated[float, Ge(1)] = 1.25
    """Refused where its whole interval lies above."""
    alerts_per_day: Positive | None = None
    """Alerts that people can handle; None: as many as the incumbent gives at the live threshold."""
    max_capture_drop: NotNegative = 0.0
    """Share of the positives that the challenger may catch less than the incumbent at equally many alerts, beyond
    chance."""
    min_value_gain: float | None = None
    """The lower bound of the gain in the share of the amounts caught must exceed this; None: shown, not decisive."""
    max_segment_ap_drop: NotNegative = 0.05
    """Largest fall of AP in any segment, and of any class of several, where it is a fall beyond chance."""
    min_segment_positives: CountOrZero = 50
    """Segments with fewer positives, and of several classes those with fewer rows, are shown but decide nothing."""
    max_refit_score_shift: Annotated[float, Ge(1)] = 2.0
    """Largest factor, up or down, between the positives that a refit and its judged model expect among the same rows;
    beyond it the judged model is deployed."""


def decide_classifier(
    evidence: ClassifierEvidence, limits: ClassifierLimits, stated_reason: StatedReason = StatedReason.NEW_EXAMPLES
) -> Decision:
    """Apply every limit; one failed check blocks. A value that is missing or not a number fails its check.

    Without alerts there is no capture to compare, and without segments none to protect: both checks pass.
    """
    enough = Check(
        "matured_evidence",
        evidence.weeks,
        limits.min_weeks,
        evidence.weeks >= limits.min_weeks and evidence.positives >= limits.min_positives,
        f"{evidence.weeks} matured weeks with {evidence.positives} positives after the training data, "
        f"{limits.min_weeks} weeks and {limits.min_positives} positives are needed{_explain_absence(evidence)}",
    )
    better = _check_gain(evidence, limits, stated_reason)
    checks = (enough, better, check_calibration(evidence, limits), *_check_alerts(evidence, limits))
    checks = (*checks, _check_parts(evidence.segments, "segment", limits))
    if evidence.classes is not None:
        checks = (*checks, _check_parts(evidence.classes.by_class, "class", limits))
    return conclude(checks, enough=enough, better=better)


def _explain_absence(evidence: ClassifierEvidence) -> str:
    if evidence.feature_problem is None:
        return ""
    return (
        f"; predictions of these weeks do not fit the contract and are left out: {evidence.feature_problem}. If a "
        "feature is new, give its first day in ScoreContract.features_since"
    )


def _check_gain(evidence: ClassifierEvidence, limits: ClassifierLimits, stated_reason: StatedReason) -> Check:
    """Demand a proven gain, proven non-inferiority, or for a refresh only that no harm is proven.

    A refresh is due by age and follows a champion of ours: the same recipe on newer rows. Demanding a proof of it every
    week, from some 400 positives and intervals of ± .03, kept models of four weeks ago in place (AP .698 instead of
    .744). It cannot creep downwards step by step, because every fit begins from nothing. A model that was deployed
    before the flywheel must be beaten.
    """
    gain, (new, old) = evidence.deciding_gain, evidence.deciding_values
    low, high = fill_missing(gain.low), fill_missing(gain.high)
    what = "average precision" if evidence.classes is None else "macro average precision"
    if stated_reason is StatedReason.AGE and evidence.incumbent == CHAMPION:
        value, limit, ok = high, 0.0, high >= 0.0
        demand = "not to be worse beyond chance is enough because the reason is age"
    elif stated_reason in MAINTENANCE:
        value, limit, ok = low, -limits.non_inferiority_margin, low > -limits.non_inferiority_margin
        demand = (
            f"not to be worse by {limits.non_inferiority_margin:.3f} is enough because the reason is {stated_reason}"
        )
    else:
        value, limit, ok = low, limits.min_ap_gain, low > limits.min_ap_gain
        demand = f"the lower bound must exceed {limits.min_ap_gain:.3f}"
    return Check(
        "ap_gain" if evidence.classes is None else "macro_ap_gain",
        value,
        limit,
        ok,
        f"{what} {fill_missing(new):.3f} against the {evidence.incumbent}'s {fill_missing(old):.3f}, a difference of "
        f"{fill_missing(gain.mean):+.3f} [{low:+.3f}, {high:+.3f}], {demand}",
    )


def check_calibration(evidence: ClassifierEvidence, limits: ClassifierLimits, name: str = "calibration") -> Check:
    """Check that Σp / Σy of the challenger is not outside of the limits beyond chance."""
    found = evidence.calibration
    low, high = fill_missing(found.low), fill_missing(found.high)
    least, most = limits.min_calibration_ratio, limits.max_calibration_ratio
    ratio = fill_missing(found.mean)
    return Check(
        name,
        ratio,
        most if ratio > 1 else least,
        low <= most and high >= least,
        f"{ratio:.2f} [{low:.2f}, {high:.2f}] positives predicted for each that came, {least:.2f} to {most:.2f} are "
        "allowed",
    )


def _check_alerts(evidence: ClassifierEvidence, limits: ClassifierLimits) -> tuple[Check, ...]:
    alerts = evidence.alerts
    if alerts is None:
        return ()
    checks = [_check_capture(alerts, evidence.incumbent, limits)]
    if limits.min_value_gain is not None:
        checks.append(_check_value(alerts, limits.min_value_gain))
    return tuple(checks)


def _check_capture(alerts: AlertEvidence, incumbent: str, limits: ClassifierLimits) -> Check:
    if not alerts.budget:
        sentence = "the incumbent gives no alerts at its threshold, so there is no number of alerts to compare at"
        return Check("alert_capture", 0.0, -limits.max_capture_drop, True, sentence)
    gain = alerts.capture_gain
    high = fill_missing(gain.high)
    return Check(
        "alert_capture",
        high,
        -limits.max_capture_drop,
        high >= -limits.max_capture_drop,
        f"at {alerts.budget:,.0f} alerts {fill_missing(alerts.challenger.share):.1%} of the positives are caught from "
        f"{alerts.challenger.threshold:.3g} on, by the {incumbent} {fill_missing(alerts.incumbent.share):.1%} from "
        f"{alerts.incumbent.threshold:.3g} on, a difference of {_format_shares(gain)}; a fall of more than "
        f"{limits.max_capture_drop:.1%} beyond chance is not allowed",
    )


def _check_value(alerts: AlertEvidence, least: float) -> Check:
    gain = alerts.value_gain
    low = math.nan if gain is None else fill_missing(gain.low)
    shown = (
        "no amounts are known" if gain is None else f"the share of the amounts caught changes by {_format_shares(gain)}"
    )
    return Check("value_gain", low, least, low > least, f"{shown}; the lower bound must exceed {least:.1%}")


def _format_shares(gain: Interval) -> str:
    mean, low, high = (100 * fill_missing(value) for value in (gain.mean, gain.low, gain.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] points"


def _check_parts(
    parts: Sequence[SegmentEvidence], kind: Literal["segment", "class"], limits: ClassifierLimits
) -> Check:
    """Check that average precision falls nowhere by more than the limit, beyond chance."""
    name, place = ("segments", "in") if kind == "segment" else ("classes", "of")
    drops = {
        part.segment: (_find_drop(part), part)
        for part in parts
        if part.positives >= limits.min_segment_positives and part.ap_gain is not None
    }
    limit = limits.max_segment_ap_drop
    if not drops:
        return Check(name, 0.0, limit, True, f"no {kind} is large enough to compare")
    # A drop that is not a number is the worst, then those that chance does not explain.
    worst = max(drops, key=lambda name: (math.isnan(drops[name][0]), _is_proven(drops[name][1]), drops[name][0]))
    drop, part = drops[worst]
    assert part.ap_gain is not None
    low, high = fill_missing(part.ap_gain.low), fill_missing(part.ap_gain.high)
    return Check(
        name,
        drop,
        limit,
        not math.isnan(drop) and (drop <= limit or not _is_proven(part)),
        f"average precision {place} {kind} {worst!r} changes by {-drop:+.3f} [{low:+.3f}, {high:+.3f}], the "
        f"largest fall of {len(drops)}; one of more than {limit:.3f} beyond chance is not allowed in any",
    )


def _find_drop(part: SegmentEvidence) -> float:
    return fill_missing(part.incumbent_average_precision) - fill_missing(part.average_precision)


def _is_proven(part: SegmentEvidence) -> bool:
    """Return whether chance does not explain the fall, all segments considered."""
    return part.ap_gain is not None and fill_missing(part.ap_gain.high) < 0
