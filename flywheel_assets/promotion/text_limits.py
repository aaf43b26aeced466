"""The promotion gate for text models: decides whether a challenger replaces the incumbent, and says why.

The incumbent is the champion; before the first promotion it is the base model. A challenger is promoted by one of two
routes: its gain is proven, or it is at least as good within a margin and knows newer data. The likelihood of the texts
that held-out people ended with decides. Distance to a text decides too where there is one right text: elsewhere the
incumbent wrote what people edited, and is nearest to it by construction. Each subject has one vote, and bounds hold for
any distribution of the votes (`measures.texts.bound_mean_below`, ADR 41). Harm must be proven.

Further limits were chosen against models that were broken on purpose: an interval on edit distance alone let pass a
model that no longer ended its text, one that had forgotten what it could do, and one that put a vandal's suffix on
everything. Reward accuracy was 1.00 for all of them, and for an untrained model, which is why it is not looked at.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from annotated_types import Gt, Lt

from flywheel_assets.measures.texts import (
    Interval,
    SubjectMeans,
    count_subjects_to_prove,
    find_least_provable_mean,
)
from flywheel_assets.ranges import Checked, CountOrZero, NotNegative, Share

CHAMPION = "champion"
"""The incumbent's name once a version was promoted."""


class Route(StrEnum):
    """The grounds on which a challenger is promoted."""

    PROVEN_GAIN = "proven_gain"
    NEWER_DATA = "newer_data"
    """At least as good as champion and anchor within the margin, and trained on newer data."""


@dataclass(frozen=True, kw_only=True)
class PromotionLimits(Checked):
    """The limits that a challenger must keep; distances are NED (normalized edit distance, 0 = the user's own text).

    A text is lost where it became less likely by more than 1 nat and by more than .1 nats a token, or, where distance
    decides, where the model's own text is farther from it by more than .1.
    """

    min_subjects: CountOrZero = 20
    """Held-out subjects (people, where they are known) behind the primary rows; fewer are not enough evidence."""
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Probability, after each proven gain, that the next one is none.

    The k-th challenger since then is tested at α / (k (k + 1)): .025, .008, .004 and so on.
    """
    min_likelihood_gain: NotNegative = 0.0
    """The lower bound of the wins must exceed this: rows whose text became more likely less those less likely, in [−1,
    1]."""
    min_ned_gain: NotNegative = 0.0
    """Or, where distance decides, the lower bound of (incumbent NED − challenger NED) must exceed this."""
    newer_data_margin: NotNegative | None = 0.1
    """Wins that an equal challenger may have less than champion and anchor; None: only a gain is promoted."""
    one_right_text: bool | None = None
    """Whether there is one right text, so that distance decides too; None: where people who were asked the same mostly
    ended with the same text (`min_same_text_share`)."""
    min_same_text_share: Share = 0.8
    """Share of pairs of people with the same prompt and the same text from which there is one right text."""
    min_same_text_pairs: CountOrZero = 20
    """Pairs of people behind that share; with fewer, likelihood alone decides."""
    harm_alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Probability, for each of the limits below with an interval, that a challenger at the limit is refused."""
    max_chosen_lost: Share = 0.15
    """Share of primary rows whose text is lost; refused where its lower bound lies above."""
    max_worse_subjects: Share = 0.1
    """Share of subjects who lost at least half of their primary rows; refused where its lower bound lies above."""
    max_regression_lost: Share = 0.05
    """Share of accepted, unedited outputs that are lost; refused where its lower bound lies above."""
    min_regression_rows: CountOrZero = 20
    """Accepted outputs below which nothing is concluded from them."""
    max_older_lost: Share = 0.05
    """The same share of the held-out rows that the champion's version already held."""
    max_missing_end_increase: NotNegative = 0.02
    """Share of generations that never end, over the incumbent's share."""
    max_sft_ned_advantage: NotNegative = 0.02
    """Largest lead (mean NED) of the SFT baseline on primary rows."""
    max_deployed_lost: Share = 0.05
    """Of a cross-fit: share of the texts that the deployed adapter, which has learnt them, loses against the adapters
    that have not seen them; refused where its lower bound lies above."""
    max_canary_ratio: NotNegative = 0.02
    """Share of generations with repeated phrases that are new and stand in one user's training texts only."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One challenger against one other model by one measure; a mean per subject each, None where there were no rows."""

    gain: SubjectMeans | None = None
    """Primary rows, in [−1, 1]. Likelihood: 1 for a text that is more likely, −1 for one less likely; distance: the
    fall of NED."""
    lost: SubjectMeans | None = None
    """Primary rows: 1 for a text that is lost, else 0."""
    older_lost: SubjectMeans | None = None
    regression_lost: SubjectMeans | None = None


VOTE_OF_CROSS_FIT = 0.5
"""Independent subjects that a vote stands for where the votes come from adapters of several folds. They have most of
their training rows in common, and each has learnt from the others' judges (ADR 46, `benchmarks/cross_fit.py`)."""


@dataclass(frozen=True, kw_only=True)
class CrossFitEvidence:
    """The deployed adapter, which learnt from every user, against those of the folds, which judge it in its stead."""

    folds: int
    deployed_lost: SubjectMeans
    """Every row: 1 for a text that the deployed adapter lost against the adapter of its user's fold, else 0."""
    deployed_missing_end: float
    """Share of the deployed adapter's generations that never end."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of one challenger; None where a set had no rows. Lower NED is better."""

    incumbent: str
    """"champion", or "base" on the first turn."""
    ned_gain: Interval
    """Incumbent − challenger on primary rows, mean per subject, two-sided 95 %: shown."""
    likelihood: Measured = Measured()
    """Against the incumbent, as all below."""
    distance: Measured = Measured()
    anchor: str | None = None
    """Gold version that was promoted last by a proven gain, often the champion itself; None: none was scored."""
    anchor_likelihood_gain: SubjectMeans | None = None
    same_text_share: float | None = None
    """Among pairs of held-out people who were asked the same: share that ended with the same text."""
    same_text_pairs: int = 0
    missing_end: float | None
    """Share of the challenger's generations for primary and regression rows that never end."""
    incumbent_missing_end: float | None
    challenger_ned: float | None
    """Mean on primary rows."""
    sft_ned: float | None
    """Mean of the SFT baseline on primary rows."""
    canary_ratio: float | None = None
    """Share of the challenger's generations with phrases that one user alone taught (see `evaluation.canary`)."""
    canary_phrases: int = 0
    """Number of such phrases."""
    cross_fit: CrossFitEvidence | None = None
    """None: one adapter, which has seen none of the held-out users, wrote for all of them."""

    @property
    def vote_worth(self) -> float:
        """Independent subjects that each subject's vote stands for."""
        return 1.0 if self.cross_fit is None else VOTE_OF_CROSS_FIT


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
    route: str | None = None
    """Of a promotion of a text model; see `Route`."""
    look: int | None = None
    """Number of this test among those since the last proven gain; None: nothing was tested."""
    alpha: float | None = None
    """Level of this test, as spent on the look."""
    anchor: str | None = None
    """Gold version whose quality the margin of a promotion by newer data is measured from."""


def spend_alpha(alpha: float, look: int) -> float:
    """Compute the level of the k-th challenger since the last proven gain, α / (k (k + 1)).

    The levels of all looks together make α (their sum telescopes), so that by the union bound a gain that is none is
    "proven" with probability α at most, whatever the looks have in common. A proven gain begins a new series, as
    rejections earn new wealth in alpha-investing (Foster and Stine 2008) and LORD (Javanmard and Montanari 2018).
    """
    return alpha / (look * (look + 1))


def decide(evidence: Evidence, limits: PromotionLimits, look: int = 1) -> Decision:
    """Apply every limit; one failed check blocks. A value that is missing or not a number fails its check.

    Sets that may be empty (older rows, regression rows) pass with the detail "no rows"; primary rows may not be empty.

    Args:
        evidence: of the challenger.
        limits: of the application.
        look: 1 + the number of challengers that were tested before, since the last proven gain.
    """
    has_one_right_text = _has_one_right_text(evidence, limits)
    measures = {"likelihood": evidence.likelihood} | ({"distance": evidence.distance} if has_one_right_text else {})
    primary = evidence.likelihood.gain
    rows, subjects = (primary.rows, len(primary.values)) if primary else (0, 0)
    enough = Check(
        "held_out_subjects",
        subjects,
        limits.min_subjects,
        subjects >= limits.min_subjects,
        f"{subjects} held-out subjects with {rows} primary rows, {limits.min_subjects} subjects are needed",
    )
    level = spend_alpha(limits.alpha, look)
    better, route = _check_gain(evidence, measures, limits, level)
    checks = (
        enough,
        better,
        *(
            check
            for name, measured in measures.items()
            for check in (
                _check_lost("chosen_lost", name, measured.lost, limits.max_chosen_lost, limits),
                _check_worse_subjects(name, measured.lost, limits),
                _check_lost("older_rows", name, measured.older_lost, limits.max_older_lost, limits),
                _check_lost("regression_set", name, measured.regression_lost, limits.max_regression_lost, limits),
            )
        ),
        _check_at_most(
            "missing_end",
            evidence.missing_end,
            fill_missing(evidence.incumbent_missing_end) + limits.max_missing_end_increase,
            "of generations never end",
        ),
        _check_at_most(
            "sft_baseline",
            evidence.challenger_ned,
            fill_missing(evidence.sft_ned) + limits.max_sft_ned_advantage,
            "edit distance where the SFT baseline sets the limit",
        ),
        _check_at_most(
            "canary",
            evidence.canary_ratio,
            limits.max_canary_ratio,
            f"of generations repeat one of {evidence.canary_phrases} new phrases that one user alone taught",
        ),
        *_check_deployed(evidence, limits),
    )
    concluded = conclude(checks, enough=enough, better=better)
    return Decision(
        concluded.promote,
        concluded.sentence,
        checks,
        route=route.value if concluded.promote else None,
        look=look if enough.ok else None,
        alpha=level if enough.ok else None,
        anchor=evidence.anchor,
    )


@dataclass(frozen=True)
class Provable:
    """Says what a number of held-out subjects can show at the next test."""

    subjects: int
    look: int
    alpha: float
    """Level of the next test of a gain."""
    gain: float
    """Least mean of wins less losses that is proven, if it is the same for every subject; above 1: none can be."""
    equal: float | None
    """Least such mean that is as good as champion and anchor by newer data; None: that route is closed."""
    subjects_needed: int | None
    """Fewest subjects that can show either, each with nothing but wins; None: no number can."""

    @property
    def can_promote(self) -> bool:
        """The best model imaginable would be promoted."""
        return self.gain < 1 or (self.equal is not None and self.equal < 1)


def find_provable(
    limits: PromotionLimits, subjects: int, look: int, *, has_anchor: bool, vote_worth: float = 1.0
) -> Provable:
    """Find the smallest gain that `decide` could prove with so many subjects, before anything is trained.

    Args:
        limits: of the application.
        subjects: held-out subjects with primary rows.
        look: of the next test.
        has_anchor: a champion and an anchor serve, so that newer data may be enough.
        vote_worth: independent subjects that each of them stands for; see `VOTE_OF_CROSS_FIT`.
    """
    level = spend_alpha(limits.alpha, look)
    # Whether distance decides too, which halves the level, is known from the evaluation unless it is declared.
    floors = [(limits.min_likelihood_gain, level / (2 if limits.one_right_text else 1))]
    if has_anchor and limits.newer_data_margin is not None:
        floors.append((-limits.newer_data_margin, spend_alpha(limits.alpha, 1)))
    least = [
        find_least_provable_mean(vote_worth * subjects, floor=floor, least=-1, alpha=alpha) for floor, alpha in floors
    ]
    needed = [
        count_subjects_to_prove(floor=floor, least=-1, greatest=1, alpha=alpha, worth=vote_worth)
        for floor, alpha in floors
    ]
    return Provable(
        subjects,
        look,
        level,
        gain=least[0],
        equal=least[1] if len(least) > 1 else None,
        subjects_needed=min((each for each in needed if each is not None), default=None),
    )


def _has_one_right_text(evidence: Evidence, limits: PromotionLimits) -> bool:
    if limits.one_right_text is not None:
        return limits.one_right_text
    is_known = evidence.same_text_share is not None and evidence.same_text_pairs >= limits.min_same_text_pairs
    return is_known and fill_missing(evidence.same_text_share) >= limits.min_same_text_share


def _check_gain(
    evidence: Evidence, measures: dict[str, Measured], limits: PromotionLimits, level: float
) -> tuple[Check, Route]:
    """Demand a proven gain by any deciding measure, or as good a likelihood as champion and anchor.

    The level is divided among the measures. The bound of non-inferiority is asked of both opponents, which costs no
    level: both must hold. It has α / 2 every time: spent, it would close the route after a few turns, and the anchor
    keeps what passes by chance from adding up. The distance itself cannot be shown to be within .02 with fewer than 180
    subjects, so it only must not be proven worse.
    """
    shown = []
    for name, measured in measures.items():
        floor = limits.min_likelihood_gain if name == "likelihood" else limits.min_ned_gain
        low = _bound_gain(measured.gain, level / len(measures), evidence.vote_worth)
        what = "wins less losses of the likelihood of the users' texts" if name == "likelihood" else "fall of distance"
        mean = math.nan if measured.gain is None else measured.gain.mean
        detail = f"{what} against the {evidence.incumbent} {mean:+.3f}, at least {low:+.3f} at level {level:.3g}"
        if low > floor:
            return Check("gain", low, floor, True, f"{detail}, must exceed {floor:.3f}"), Route.PROVEN_GAIN
        shown.append(Check("gain", low, floor, False, f"{detail}, must exceed {floor:.3f}"))
    if limits.newer_data_margin is None or evidence.incumbent != CHAMPION or evidence.anchor is None:
        return _join(shown, ""), Route.PROVEN_GAIN
    margin, level = limits.newer_data_margin, spend_alpha(limits.alpha, 1)
    lows = [
        _bound_gain(gain, level, evidence.vote_worth)
        for gain in (evidence.likelihood.gain, evidence.anchor_likelihood_gain)
    ]
    # Not min(): a bound that is not a number must fail.
    low, is_as_good = min(lows), all(low > -margin for low in lows)
    versus = f"against the champion {lows[0]:+.3f} at least, against the anchor {evidence.anchor} {lows[1]:+.3f}"
    if not is_as_good:
        return _join(shown, f"; nor as good within {margin:.3f} with newer data: {versus}"), Route.NEWER_DATA
    detail = f"newer data, and at least as good within {margin:.3f}: wins less losses {versus}, at level {level:.3g}"
    return Check("newer_data", low, -margin, True, detail), Route.NEWER_DATA


def _join(shown: list[Check], more: str) -> Check:
    first = shown[0]
    detail = f"no gain is proven: {'; '.join(check.detail for check in shown)}{more}"
    return Check(first.name, first.value, first.limit, False, detail)


def _bound_gain(gain: SubjectMeans | None, level: float, vote_worth: float) -> float:
    return math.nan if gain is None else gain.bound_below(least=-1, alpha=level, worth=vote_worth)


def _check_deployed(evidence: Evidence, limits: PromotionLimits) -> tuple[Check, ...]:
    """Refuse a cross-fit whose deployed adapter, which nothing has judged, is not what its folds' adapters are.

    It has learnt the texts that they have not seen, so it must not lose them, and must end its own.
    """
    found = evidence.cross_fit
    if found is None:
        return ()
    lost = found.deployed_lost
    low = lost.bound_below(least=0, alpha=limits.harm_alpha)
    detail = (
        f"{lost.mean:.3f} of the texts it has learnt are lost by the deployed adapter against those of {found.folds} "
        f"folds ({lost.rows} rows, {len(lost.values)} subjects), at least {low:.3f}, at most "
        f"{limits.max_deployed_lost:.3f} allowed"
    )
    return (
        Check("deployed_lost", low, limits.max_deployed_lost, low <= limits.max_deployed_lost, detail),
        _check_at_most(
            "deployed_missing_end",
            found.deployed_missing_end,
            fill_missing(evidence.incumbent_missing_end) + limits.max_missing_end_increase,
            "of the deployed adapter's generations never end",
        ),
    )


def _check_lost(name: str, measure: str, lost: SubjectMeans | None, limit: float, limits: PromotionLimits) -> Check:
    """Refuse where more texts than allowed are lost, beyond chance."""
    what = {
        "chosen_lost": "users' texts",
        "older_rows": "older held-out texts",
        "regression_set": "outputs that users had accepted",
    }[name]
    full = name if measure == "likelihood" else f"{name}_{measure}"
    if lost is None:
        # Primary rows may not be empty.
        return Check(full, math.nan, limit, name != "chosen_lost", "no rows")
    low = lost.bound_below(least=0, alpha=limits.harm_alpha)
    detail = (
        f"{lost.mean:.3f} of {what} are lost by {measure} ({lost.rows} rows, {len(lost.values)} subjects), "
        f"at least {low:.3f}, at most {limit:.3f} allowed"
    )
    if name == "regression_set" and lost.rows < limits.min_regression_rows:
        few = f"{lost.rows} accepted outputs are too few to conclude from, {limits.min_regression_rows} are needed"
        return Check(full, low, limit, not math.isnan(low), few)
    return Check(full, low, limit, low <= limit, detail)


def _check_worse_subjects(measure: str, lost: SubjectMeans | None, limits: PromotionLimits) -> Check:
    """Refuse where more people than allowed lost at least half of their rows, beyond chance."""
    name = "worse_subjects" if measure == "likelihood" else f"worse_subjects_{measure}"
    limit = limits.max_worse_subjects
    if lost is None:
        return Check(name, math.nan, limit, False, "no rows")
    worse = SubjectMeans(tuple(float(not share < 0.5) for share in lost.values), lost.rows)
    low = worse.bound_below(least=0, alpha=limits.harm_alpha)
    detail = (
        f"{worse.mean:.3f} of {len(lost.values)} subjects lost half of their texts by {measure}, "
        f"at least {low:.3f}, at most {limit:.3f} allowed"
    )
    return Check(name, low, limit, low <= limit, detail)


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


def _check_at_most(name: str, measured: float | None, limit: float, what: str) -> Check:
    value = fill_missing(measured)
    return Check(name, value, limit, value <= limit, f"{value:.3f} {what}, at most {limit:.3f} allowed")
