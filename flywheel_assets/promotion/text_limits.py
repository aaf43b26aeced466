"""The promotion gate for text models: decides whether a challenger replaces the incumbent, and says why.

The incumbent is the champion; before the first promotion it is the base model. Every limit was chosen against models
that were broken on purpose: an interval on edit distance alone let pass a model that no longer ended its text, one that
had forgotten what it could do, and one that put a vandal's suffix on everything. Reward accuracy was 1.00 for all of
them, and for an untrained model, which is why it is not looked at.
"""

import math
from dataclasses import dataclass

from flywheel_assets.errors import SettingsError
from flywheel_assets.measures.texts import Interval


@dataclass(frozen=True, kw_only=True)
class PromotionLimits:
    """The limits that a challenger must keep; distances are NED (normalized edit distance, 0 = the user's own text)."""

    min_subjects: int = 20
    """Held-out subjects (people, where they are known) behind the primary rows; fewer are not enough evidence."""
    min_ned_gain: float = 0.0
    """The lower bound of (incumbent NED − challenger NED) on primary rows must exceed this."""
    max_missing_end_increase: float = 0.02
    """Share of generations that never end, over the incumbent's share."""
    max_chosen_fallen: float = 0.15
    """Share of primary rows whose chosen text is less likely than under the incumbent."""
    max_regression_ned_increase: float = 0.02
    """Mean NED on accepted, unedited outputs, over the incumbent's."""
    max_older_ned_increase: float = 0.02
    """Mean NED on held-out rows that the champion's version already held, over the incumbent's."""
    max_sft_ned_advantage: float = 0.02
    """Largest lead (mean NED) of the SFT baseline on primary rows."""
    max_canary_ratio: float = 0.02
    """Share of generations with repeated phrases that are new and stand in one user's training texts only."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf or (name == "max_chosen_fallen" and value > 1):
                raise SettingsError(f"PromotionLimits.{name} is {value!r}; it must be a number from 0 on (a share ≤ 1)")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of one challenger; None where a set had no rows. Lower NED is better."""

    incumbent: str
    """"champion", or "base" on the first turn."""
    ned_gain: Interval
    """Incumbent − challenger on primary rows, clustered by subject."""
    chosen_fallen: float | None
    """Share of primary rows whose log p(chosen) fell, challenger against incumbent."""
    missing_end: float | None
    """Share of the challenger's generations for primary and regression rows that never end."""
    incumbent_missing_end: float | None
    challenger_ned: float | None
    """Mean on primary rows."""
    sft_ned: float | None
    """Mean of the SFT baseline on primary rows."""
    older_ned: float | None
    incumbent_older_ned: float | None
    regression_ned: float | None
    incumbent_regression_ned: float | None
    canary_ratio: float | None = None
    """Share of the challenger's generations with phrases that one user alone taught (see `evaluation.canary`)."""
    canary_phrases: int = 0
    """Number of such phrases."""


@dataclass(frozen=True)
class Check:
    """One rule: `value` against `limit`, and a sentence about it in `detail`."""

    name: str
    value: float
    limit: float
    ok: bool
    detail: str


@dataclass(frozen=True)
class Decision:
    """The decision to promote or not, its reason in one sentence, and every check behind it."""

    promote: bool
    sentence: str
    checks: tuple[Check, ...]


def decide(evidence: Evidence, limits: PromotionLimits) -> Decision:
    """Apply every limit; one failed check blocks. A value that is missing or not a number fails its check.

    Sets that may be empty (older rows, regression rows) pass with the detail "no rows"; primary rows may not be empty.
    """
    gain = evidence.ned_gain
    low = fill_missing(gain.low)
    enough = Check(
        "held_out_subjects",
        gain.clusters,
        limits.min_subjects,
        gain.clusters >= limits.min_subjects,
        f"{gain.clusters} held-out subjects with {gain.rows} primary rows, {limits.min_subjects} subjects are needed",
    )
    better = Check(
        "ned_gain",
        low,
        limits.min_ned_gain,
        low > limits.min_ned_gain,
        f"edit distance to the users' texts better by {fill_missing(gain.mean):.3f} "
        f"[{low:.3f}, {fill_missing(gain.high):.3f}] than the {evidence.incumbent}'s, "
        f"the lower bound must exceed {limits.min_ned_gain:.3f}",
    )
    checks = (
        enough,
        better,
        _check_at_most(
            "missing_end",
            evidence.missing_end,
            fill_missing(evidence.incumbent_missing_end) + limits.max_missing_end_increase,
            "of generations never end",
        ),
        _check_at_most(
            "chosen_fallen", evidence.chosen_fallen, limits.max_chosen_fallen, "of users' texts got less likely"
        ),
        _check_at_most(
            "sft_baseline",
            evidence.challenger_ned,
            fill_missing(evidence.sft_ned) + limits.max_sft_ned_advantage,
            "edit distance where the SFT baseline sets the limit",
        ),
        _check_at_most(
            "older_rows",
            evidence.older_ned,
            fill_missing(evidence.incumbent_older_ned) + limits.max_older_ned_increase,
            "edit distance on older held-out rows",
            may_be_empty=True,
        ),
        _check_at_most(
            "regression_set",
            evidence.regression_ned,
            fill_missing(evidence.incumbent_regression_ned) + limits.max_regression_ned_increase,
            "edit distance on outputs that users had accepted",
            may_be_empty=True,
        ),
        _check_at_most(
            "canary",
            evidence.canary_ratio,
            limits.max_canary_ratio,
            f"of generations repeat one of {evidence.canary_phrases} new phrases that one user alone taught",
        ),
    )
    return conclude(checks, enough=enough, better=better)


def conclude(checks: tuple[Check, ...], *, enough: Check, better: Check) -> Decision:
    """Combine checks into a decision; two of them are `enough` (is there evidence?) and `better` (is it a gain?)."""
    failed = [check for check in checks if not check.ok]
    if not failed:
        sentence = f"Promoted: {better.detail}."
    elif not enough.ok:
        sentence = f"Not promoted, not enough evidence: {enough.detail}."
    else:
        sentence = f"Not promoted: {'; '.join(check.detail for check in failed)}."
    return Decision(not failed, sentence, checks)


def fill_missing(measured: float | None) -> float:
    """Replace a missing value by NaN, which satisfies no limit."""
    return math.nan if measured is None else measured


def _check_at_most(name: str, measured: float | None, limit: float, what: str, *, may_be_empty: bool = False) -> Check:
    value = fill_missing(measured)
    if may_be_empty and measured is None and math.isnan(limit):
        return Check(name, value, limit, True, "no rows")
    return Check(name, value, limit, value <= limit, f"{value:.3f} {what}, at most {limit:.3f} allowed")
