"""Decides whether a refit may be deployed in place of the judged model whose recipe passed the gate.

The judged model's rows end weeks before the cut, so that it can be tested on rows that it has not seen. The refit takes
the rows of those weeks in, and nothing is left to test it on. Two models stand for it: each is fitted on the refit's
rows without the recent ones of half of the entities, and scores that half (`measures.folds`). They know a little less
than the refit itself, so their scores are, if anything, the worse ones. Harm must be proven, as in the gate: fresher
rows under the same recipe are better unless the rows show otherwise.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.promotion.classifier_evidence import ClassifierEvidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, check_calibration
from flywheel_assets.promotion.text_limits import Check, fill_missing


@dataclass(frozen=True, kw_only=True)
class RefitEvidence:
    """The scores of the refit's two stand-ins against those of the judged model, on the evaluation rows."""

    against_judged: ClassifierEvidence
    """The judged model is the incumbent here, the stand-ins are the challenger, at the gate's alert budget."""
    score_shift: float
    """Σp of the stand-ins / Σp of the judged model, each row with its weight."""


@dataclass(frozen=True)
class RefitDecision:
    """Says which of the two models is deployed, if the version is promoted at all."""

    deploy_refit: bool
    sentence: str
    checks: tuple[Check, ...]


def measure_score_shift(judged: npt.ArrayLike, refit: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    """Compute the ratio of the positives that two models expect among the same rows.

    A distance between the distributions, such as PSI, says nothing here: most rows score near 0, where a fresher model
    moves them by factors that no decision feels (.4 to .9 for refits that were .04 better).
    """
    w = np.asarray(weights, dtype=np.float64)
    expected = float((w * np.asarray(judged, dtype=np.float64)).sum())
    return float((w * np.asarray(refit, dtype=np.float64)).sum()) / expected if expected else math.nan


def decide_refit(evidence: RefitEvidence | None, limits: ClassifierLimits) -> RefitDecision:
    """Apply the refit's own checks; without evidence the judged model is the only one."""
    if evidence is None:
        return RefitDecision(False, "The judged model is deployed: this version has no refit.", ())
    found = evidence.against_judged
    gain, (refit, judged) = found.deciding_gain, found.deciding_values
    low, high = fill_missing(gain.low), fill_missing(gain.high)
    what = "average precision" if found.classes is None else "macro average precision"
    checks = (
        Check(
            "refit_ap",
            high,
            0.0,
            high >= 0.0,
            f"{what} {fill_missing(refit):.3f} out of sample, the "
            f"judged model's {fill_missing(judged):.3f}, a difference of {fill_missing(gain.mean):+.3f} "
            f"[{low:+.3f}, {high:+.3f}]; a fall beyond chance is not allowed",
        ),
        check_calibration(found, limits, name="refit_calibration"),
        Check(
            "refit_score_shift",
            evidence.score_shift,
            limits.max_refit_score_shift,
            1 / limits.max_refit_score_shift <= evidence.score_shift <= limits.max_refit_score_shift,
            f"it expects {evidence.score_shift:.2f} times as many positives as the judged model, a factor of at most "
            f"{limits.max_refit_score_shift:.3g} either way is allowed",
        ),
    )
    failed = [check for check in checks if not check.ok]
    if failed:
        why = "; ".join(check.detail for check in failed)
        return RefitDecision(False, f"The judged model is deployed, not its refit: {why}.", checks)
    return RefitDecision(True, f"The refit is deployed: {checks[0].detail}.", checks)
