"""Decides whether a refit may be deployed in place of the judged model whose recipe passed the gate.

The judged model's rows end weeks before the cut, so that it can be tested on rows that it has not seen. The refit takes
the rows of those weeks in, and nothing is left to test it on. Two models stand for it: each is fitted on the refit's
rows without the recent ones of half of the entities, and scores that half (`measures.folds`). They know a little less
than the refit itself, so their scores are, if anything, the worse ones. Harm must be proven, as in the gate: fresher
rows under the same recipe are better unless the rows show otherwise.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.drift import psi
from flywheel_assets.promotion.classifier_evidence import ClassifierEvidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, check_calibration
from flywheel_assets.promotion.text_limits import Check, fill_missing

_SHIFT_BINS = 20


@dataclass(frozen=True, kw_only=True)
class RefitEvidence:
    """The scores of the refit's two stand-ins against those of the judged model, on the evaluation rows."""

    against_judged: ClassifierEvidence
    """The judged model is the incumbent here, the stand-ins are the challenger, at the gate's alert budget."""
    score_shift: float
    """PSI between the two models' scores, on bins of equally many scores of the judged model."""


@dataclass(frozen=True)
class RefitDecision:
    """Says which of the two models is deployed, if the version is promoted at all."""

    deploy_refit: bool
    sentence: str
    checks: tuple[Check, ...]


def measure_score_shift(judged: npt.ArrayLike, refit: npt.ArrayLike) -> float:
    """Compute PSI = Σ (q − p) ln(q / p) between two models' scores of the same rows."""
    before, after = np.asarray(judged, dtype=np.float64), np.asarray(refit, dtype=np.float64)
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _SHIFT_BINS + 1)[1:-1]))
    shares = [
        np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) / max(len(scores), 1)
        for scores in (before, after)
    ]
    return psi(*shares)


def decide_refit(evidence: RefitEvidence | None, limits: ClassifierLimits) -> RefitDecision:
    """Apply the refit's own checks; without evidence the judged model is the only one."""
    if evidence is None:
        return RefitDecision(False, "The judged model is deployed: this version has no refit.", ())
    found = evidence.against_judged
    gain = found.ap_gain
    low, high = fill_missing(gain.low), fill_missing(gain.high)
    checks = (
        Check(
            "refit_ap",
            high,
            0.0,
            high >= 0.0,
            f"average precision {fill_missing(found.average_precision):.3f} out of sample, the judged model's "
            f"{fill_missing(found.incumbent_average_precision):.3f}, a difference of {fill_missing(gain.mean):+.3f} "
            f"[{low:+.3f}, {high:+.3f}]; a fall beyond chance is not allowed",
        ),
        check_calibration(found, limits, name="refit_calibration"),
        Check(
            "refit_score_shift",
            evidence.score_shift,
            limits.max_refit_score_shift,
            evidence.score_shift <= limits.max_refit_score_shift,
            f"its scores differ from the judged model's by a PSI of {evidence.score_shift:.2f}, at most "
            f"{limits.max_refit_score_shift:.2f} is allowed",
        ),
    )
    failed = [check for check in checks if not check.ok]
    if failed:
        why = "; ".join(check.detail for check in failed)
        return RefitDecision(False, f"The judged model is deployed, not its refit: {why}.", checks)
    return RefitDecision(True, f"The refit is deployed: {checks[0].detail}.", checks)
