"""The promotion gate for text models: decides whether a challenger replaces the incumbent, and says why.

The incumbent is the champion; before the first promotion it is the base model. A challenger is promoted by one of two
routes: its gain is proven, or it is at least as good within a margin and knows newer data. The question is whether
people's edits would still be needed, and four measures answer it: the likelihood of what held-out people ended with,
sampled answers, the preferences of a judge that agrees with people, and the distance to their texts. Which of them
decide is the application's (`PromotionLimits.decided_by`, ADR 54). Distance is for where there is one right text:
elsewhere the incumbent wrote what people edited, and is nearest to it by construction. Each subject has one vote, and
bounds hold for any distribution of the votes (`measures.texts.bound_mean_below`, ADR 41). Harm must be proven.

Further limits were chosen against models that were broken on purpose: an interval on edit distance alone let pass a
model that no longer ended its text, one that had forgotten what it could do, and one that put a vandal's suffix on
everything. Reward accuracy was 1.00 for all of them, and for an untrained model, which is why it is not looked at.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from annotated_types import Gt, Lt, MinLen

from flywheel_assets.measures.texts import (
    Interval,
    SubjectMeans,
    count_subjects_to_prove,
    find_least_provable_mean,
)
from flywheel_assets.promotion.judge_agreement import JudgeAgreement
from flywheel_assets.ranges import Checked, CountOrZero, NotNegative, Share

CHAMPION = "champion"
"""The incumbent's name once a version was promoted."""


Measure = Literal["likelihood", "sampled_answers", "judge", "distance"]
"""The evidence by which it is judged whether people's edits would still be needed."""

# Texts are lost by likelihood and distance beyond a tolerance, which chance does not reach. Of equal models' answers a
# judge prefers either, and samples differ: what counts there are losses less wins, from −1.
_LEAST_LOST: dict[Measure, int] = {"likelihood": 0, "sampled_answers": -1, "judge": -1, "distance": 0}
_OPEN: tuple[Measure, ...] = ("likelihood", "judge")
_SHOWN_AS: dict[Measure, str] = {
    "likelihood": "wins less losses of the likelihood of the users' texts",
    "sampled_answers": "wins less losses of sampled answers",
    "judge": "wins less losses of the answers",
    "distance": "fall of distance",
}


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
    """Wins by likelihood that an equal challenger may have less than champion and anchor; None: only a gain is
    promoted, as where likelihood does not decide."""
    decided_by: Annotated[tuple[Measure, ...], MinLen(1)] | None = None
    """The measures that decide and share α: a gain by one is a gain, proven harm by one refuses. None: likelihood, and
    distance where there is one right text, else a judge where one was asked (`PreferenceApplication.judge`)."""
    one_right_text: bool | None = None
    """Whether there is one right text (code, extraction); None: where people who were asked the same mostly ended with
    the same text (`min_same_text_share`)."""
    min_same_text_share: Share = 0.8
    """Share of pairs of people with the same prompt and the same text from which there is one right text."""
    min_same_text_pairs: CountOrZero = 20
    """Pairs of people behind that share; with fewer it is not known whether there is one right text."""
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
    max_wrong_answers_rise: Share = 0.05
    """Rise of the share of sampled answers that still say what users corrected, whichever measures decide; refused
    where its lower bound lies above."""
    max_missing_end_increase: NotNegative = 0.02
    """Share of generations that never end, over the incumbent's share."""
    max_sft_ned_advantage: NotNegative = 0.02
    """Largest lead (mean NED) of the SFT baseline on primary rows."""
    max_deployed_lost: Share = 0.05
    """Of a cross-fit: share of the texts that the deployed adapter, which has learnt them, loses against the adapters
    that have not seen them; refused where its lower bound lies above."""
    max_canary_ratio: NotNegative = 0.02
    """Share of generations with repeated phrases that are new and stand in one user's training texts only."""

    def _check_together(self) -> None:
        if self.decided_by is not None and self.one_right_text not in (None, "distance" in self.decided_by):
            valid = (
                f"None, or decided_by with{'' if self.one_right_text else 'out'} 'distance', which decides where there "
                "is one right text"
            )
            raise self.build_range_error("one_right_text", self.one_right_text, valid)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One challenger against one other model by one measure; a mean per subject each, None where there were no rows."""

    gain: SubjectMeans | None = None
    """Primary rows, in [−1, 1]. Likelihood: 1 for a text that is more likely, by more than what it corrected is, −1 for
    one less likely; sampled answers: 1 for fewer wrong ones, −1 for more; judge: 1 and −1 for an answer that is
    preferred in both orders; distance: the fall of NED."""
    lost: SubjectMeans | None = None
    """Primary rows. Likelihood and distance: 1 for a text that is lost, else 0; sampled answers: the rise of the wrong
    ones' share; judge: losses less wins."""
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
    sampled: Measured = Measured()
    judged: Measured = Measured()
    """By the judge, of the most likely answers; empty where its agreement is not enough."""
    judge: JudgeAgreement | None = None
    """None: there was none."""
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
    measure: Measure | None = None
    """By which a text model was promoted."""


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
    deciding = _choose_measures(evidence, limits)
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
    better, found = _check_gain(evidence, deciding, limits, level)
    checks = (
        enough,
        better,
        *(
            check
            for name, measured in deciding.measures.items()
            for check in (
                _check_lost("chosen_lost", name, measured.lost, limits.max_chosen_lost, limits),
                _check_worse_subjects(name, measured.lost, limits),
                _check_lost("older_rows", name, measured.older_lost, limits.max_older_lost, limits),
                _check_lost("regression_set", name, measured.regression_lost, limits.max_regression_lost, limits),
            )
        ),
        _check_wrong_answers(evidence.sampled.lost, limits),
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
    was_tested = enough.ok and bool(deciding.measures)
    return Decision(
        concluded.promote,
        concluded.sentence,
        checks,
        route=found.route.value if concluded.promote else None,
        look=look if was_tested else None,
        alpha=level if was_tested else None,
        anchor=evidence.anchor,
        measure=found.measure if concluded.promote else None,
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
    # Whether distance or a judge decide too, which parts the level, is known from the evaluation unless it is declared.
    one_right: tuple[Measure, ...] = ("likelihood", "distance") if limits.one_right_text else ("likelihood",)
    declared = limits.decided_by or one_right
    floors = [(limits.min_likelihood_gain, level / len(declared))]
    if has_anchor and limits.newer_data_margin is not None and "likelihood" in declared:
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


@dataclass(frozen=True)
class _Deciding:
    """The measures that decide, and the reason for them in words."""

    measures: dict[Measure, Measured]
    grounds: str


@dataclass(frozen=True)
class _Found:
    """The measure and the route by which a challenger may pass."""

    measure: Measure | None
    route: Route


def _choose_measures(evidence: Evidence, limits: PromotionLimits) -> _Deciding:
    """Choose the declared measures, or those that follow from the share of identical answers, less a failing judge.

    The agreement of a judge is measured on people's pairs alone and says nothing about the challenger, so that leaving
    the judge out, and dividing the level among the others, costs no error.
    """
    names, grounds = _name_measures(evidence, limits)
    judge = evidence.judge
    if "judge" in names and (judge is None or not judge.is_enough):
        names = tuple(name for name in names if name != "judge")
        why = "no judge was asked" if judge is None else judge.describe()
        grounds = f"{grounds}; the judge decides nothing: {why}"
    elif "judge" in names and judge is not None:
        grounds = f"{grounds}; {judge.describe()}"
    by_name: dict[Measure, Measured] = {
        "likelihood": evidence.likelihood,
        "sampled_answers": evidence.sampled,
        "judge": evidence.judged,
        "distance": evidence.distance,
    }
    return _Deciding({name: by_name[name] for name in names}, grounds)


def _name_measures(evidence: Evidence, limits: PromotionLimits) -> tuple[tuple[Measure, ...], str]:
    names: tuple[Measure, ...]
    if limits.decided_by is not None:
        names = tuple(dict.fromkeys(limits.decided_by))
        return names, f"{_enumerate(names)} by the application's declaration"
    is_one, why = _find_one_right_text(evidence, limits)
    names = ("likelihood", "distance") if is_one else ("likelihood",) if evidence.judge is None else _OPEN
    return names, f"{_enumerate(names)}: {why}"


def _find_one_right_text(evidence: Evidence, limits: PromotionLimits) -> tuple[bool, str]:
    if limits.one_right_text is not None:
        return limits.one_right_text, f"one_right_text={limits.one_right_text}"
    share, pairs = evidence.same_text_share, evidence.same_text_pairs
    if share is None or pairs < limits.min_same_text_pairs:
        return False, f"{pairs} pairs of people were asked the same, {limits.min_same_text_pairs} would say more"
    why = f"people who were asked the same ended with the same text in {share:.2f} of {pairs} pairs"
    return share >= limits.min_same_text_share, f"{why}, {limits.min_same_text_share:.2f} mean that there is one"


def _enumerate(names: Sequence[Measure]) -> str:
    words = [name.replace("_", " ") for name in names]
    return f"{' and '.join(words)} {'decides' if len(words) == 1 and words[0] != 'sampled answers' else 'decide'}"


def _check_gain(evidence: Evidence, deciding: _Deciding, limits: PromotionLimits, level: float) -> tuple[Check, _Found]:
    """Demand a proven gain by any deciding measure, or as good a likelihood as champion and anchor.

    The level is divided among the measures. The bound of non-inferiority is asked of both opponents, which costs no
    level: both must hold. It has α / 2 every time: spent, it would close the route after a few turns, and the anchor
    keeps what passes by chance from adding up. The distance itself cannot be shown to be within .02 with fewer than 180
    subjects, so it only must not be proven worse.
    """
    shown = []
    for name, measured in deciding.measures.items():
        floor = {"likelihood": limits.min_likelihood_gain, "distance": limits.min_ned_gain}.get(name, 0.0)
        low = _bound_gain(measured.gain, level / len(deciding.measures), evidence.vote_worth)
        mean = math.nan if measured.gain is None else measured.gain.mean
        detail = (
            f"{_SHOWN_AS[name]} against the {evidence.incumbent} {mean:+.3f}, at least {low:+.3f} at level "
            f"{level / len(deciding.measures):.3g}, must exceed {floor:.3f}"
        )
        if low > floor:
            proven = f"by {name.replace('_', ' ')}, {detail} ({deciding.grounds})"
            return Check("gain", low, floor, True, proven), _Found(name, Route.PROVEN_GAIN)
        shown.append(Check("gain", low, floor, False, f"by {name.replace('_', ' ')}, {detail}"))
    if not shown:
        return Check("gain", math.nan, 0.0, False, f"nothing decides ({deciding.grounds})"), _Found(
            None, Route.PROVEN_GAIN
        )
    grounds = f" ({deciding.grounds})"
    is_open = limits.newer_data_margin is not None and "likelihood" in deciding.measures
    if not is_open or evidence.incumbent != CHAMPION or evidence.anchor is None:
        return _join(shown, grounds), _Found(None, Route.PROVEN_GAIN)
    margin, level = fill_missing(limits.newer_data_margin), spend_alpha(limits.alpha, 1)
    lows = [
        _bound_gain(gain, level, evidence.vote_worth)
        for gain in (evidence.likelihood.gain, evidence.anchor_likelihood_gain)
    ]
    # Not min(): a bound that is not a number must fail.
    low, is_as_good = min(lows), all(low > -margin for low in lows)
    versus = f"against the champion {lows[0]:+.3f} at least, against the anchor {evidence.anchor} {lows[1]:+.3f}"
    if not is_as_good:
        more = f"; nor as good within {margin:.3f} with newer data: {versus}{grounds}"
        return _join(shown, more), _Found(None, Route.NEWER_DATA)
    detail = (
        f"newer data, and at least as good within {margin:.3f} by likelihood: wins less losses {versus}, at level "
        f"{level:.3g}{grounds}"
    )
    return Check("newer_data", low, -margin, True, detail), _Found("likelihood", Route.NEWER_DATA)


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


def _check_lost(name: str, measure: Measure, lost: SubjectMeans | None, limit: float, limits: PromotionLimits) -> Check:
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
    least = _LEAST_LOST[measure]
    low = lost.bound_below(least=least, alpha=limits.harm_alpha)
    detail = (
        f"{lost.mean:.3f} of {what} are lost by {measure.replace('_', ' ')}{'' if least == 0 else ', less those won'} "
        f"({lost.rows} rows, {len(lost.values)} subjects), "
        f"at least {low:.3f}, at most {limit:.3f} allowed"
    )
    if name == "regression_set" and lost.rows < limits.min_regression_rows:
        few = f"{lost.rows} accepted outputs are too few to conclude from, {limits.min_regression_rows} are needed"
        return Check(full, low, limit, not math.isnan(low), few)
    return Check(full, low, limit, low <= limit, detail)


def _check_wrong_answers(rise: SubjectMeans | None, limits: PromotionLimits) -> Check:
    """Refuse where people's corrections are needed more often, beyond chance, whichever measures decide."""
    limit = limits.max_wrong_answers_rise
    if rise is None:
        return Check("wrong_answers", 0.0, limit, True, "no answers were sampled")
    low = rise.bound_below(least=-1, alpha=limits.harm_alpha)
    detail = (
        f"sampled answers say what users corrected more often by {rise.mean:+.3f} ({rise.rows} rows, "
        f"{len(rise.values)} subjects), at least {low:+.3f}, at most {limit:.3f} allowed"
    )
    return Check("wrong_answers", low, limit, low <= limit, detail)


def _check_worse_subjects(measure: Measure, lost: SubjectMeans | None, limits: PromotionLimits) -> Check:
    """Refuse where more people than allowed lost at least half of their rows, beyond chance."""
    name = "worse_subjects" if measure == "likelihood" else f"worse_subjects_{measure}"
    limit = limits.max_worse_subjects
    if lost is None:
        return Check(name, math.nan, limit, False, "no rows")
    least = _LEAST_LOST[measure]
    marks = [float(not share < 0.5) - float(share <= -0.5) for share in lost.values]
    worse = SubjectMeans(tuple(sorted(marks)), lost.rows)
    low = worse.bound_below(least=least, alpha=limits.harm_alpha)
    detail = (
        f"{worse.mean:.3f} of {len(lost.values)} subjects lost half of their texts by {measure.replace('_', ' ')}"
        f"{'' if least == 0 else ', less those who won half'}, "
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
