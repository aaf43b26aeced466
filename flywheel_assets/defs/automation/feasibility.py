"""Foresees whether the promotion gate could decide about a version, before its training is paid for.

`flywheel doctor`, `flywheel turn`, `flywheel retrain` and the training trigger say the same sentence. It is an estimate
from gold: rows that the tokenizer refuses are still counted, and the champion is the version that was promoted last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from flywheel_assets.application import ClassificationApplication, FlywheelApplication, PreferenceApplication
from flywheel_assets.curation.labels.example_resolution import MOST_WEEKS
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.example_versions import (
    LEAST_POSITIVE_SHARE,
    LEAST_POSITIVES,
    JudgedPositives,
    count_judged_positives,
)
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, count_looks, find_anchor, find_last_promoted
from flywheel_assets.lake.versions.pair_versions import MOST_HELD_OUT, Judges, count_judges
from flywheel_assets.promotion.text_limits import VOTE_OF_CROSS_FIT, PromotionLimits, Provable, find_provable


@dataclass(frozen=True)
class Outlook:
    """Says what the promotion gate could do with a version that is cut now."""

    can_decide: bool
    """False: no model, however good, would be promoted."""
    sentence: str
    remedy: str = ""
    """What would change it, and when time alone does; empty where it can decide."""

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence


def foresee_decision(application: FlywheelApplication, lake: Lake, versions: Versions) -> Outlook:
    """Foresee whether a version cut now over all closed days could be promoted at the application's limits."""
    days = list(ledger.read_closed_days(lake, application.tables.gold.name))
    if isinstance(application, PreferenceApplication):
        return _foresee_texts(application, lake, versions, days)
    assert isinstance(application, ClassificationApplication)
    return _foresee_classifier(application, lake, days)


def _foresee_texts(application: PreferenceApplication, lake: Lake, versions: Versions, days: Sequence[date]) -> Outlook:
    limits, rules = application.limits, application.resolution
    # A cross-fit hears everyone.
    share = 1.0 if rules.cross_fit_folds else rules.holdout_share
    worth = VOTE_OF_CROSS_FIT if rules.cross_fit_folds else 1.0
    champion = find_last_promoted(versions)
    anchor = find_anchor(versions, champion) if champion else None
    look = count_looks(versions, None, champion.version if champion else None)
    has_anchor = anchor is not None
    enough = _count_needed(limits, look, worth, has_anchor=has_anchor)
    if not days:
        people = f" (about {math.ceil(enough / share):,} people)" if share else ""
        whom = f"users among the {share:.0%} that are held out{people}"
        if rules.cross_fit_folds:
            whom = f"users, each judged by the model of one of {rules.cross_fit_folds} folds"
        return Outlook(False, "gold has no closed day", f"the promotion gate needs {enough} {whom}")
    opponents = _list_opponents(champion, anchor)
    enough_in_folds = _count_needed(limits, look, VOTE_OF_CROSS_FIT, has_anchor=has_anchor)
    found = count_judges(lake, rules, days, opponents, enough, enough_in_folds)
    judging = _describe_judges(found, rules)
    provable = find_provable(limits, found.judges, look, has_anchor=has_anchor, vote_worth=worth)
    if found.judges < limits.min_subjects:
        sentence = f"{judging}, and the promotion gate needs {limits.min_subjects} to decide"
        return Outlook(False, sentence, _propose(found, share, enough))
    if provable.can_promote:
        return Outlook(True, f"{judging} ({limits.min_subjects} are needed): {_describe(provable)}")
    sentence = (
        f"{judging}, who could prove no gain at level {provable.alpha:.2g} (test {look} since the last "
        "proven gain), whatever the model does"
    )
    if provable.subjects_needed is None:
        return Outlook(False, sentence, "no number of users could: raise limits.alpha")
    return Outlook(False, sentence, _propose(found, share, enough))


def _count_needed(limits: PromotionLimits, look: int, worth: float, *, has_anchor: bool) -> int:
    """Count the people from which a decision is possible: enough for the limits, and for any proof."""
    provable = find_provable(limits, limits.min_subjects, look, has_anchor=has_anchor, vote_worth=worth)
    needed = provable.subjects_needed
    return max(limits.min_subjects, needed or 0)


def _list_opponents(champion: VersionFolder | None, anchor: VersionFolder | None) -> list[VersionFolder]:
    """List the versions whose models are compared with. A lost export is an error of the evaluation."""
    opponents = [] if champion is None else [champion]
    opponents += [anchor] if anchor is not None and anchor != champion else []
    return [each for each in opponents if each.export.exists()]


def _describe_judges(found: Judges, rules: ResolutionRules) -> str:
    seen, who = "", "users" if rules.cross_fit_folds else "held-out users"
    if found.held_out > found.judges:
        seen = f", and {found.held_out - found.judges} more only with prompts that are trained on"
    return f"{found.judges} {who} of {found.people:,} with new rows would judge a version cut now{seen}"


def _describe(provable: Provable) -> str:
    sentence = (
        f"wins less losses of {provable.gain:+.2f} can be proven at level {provable.alpha:.2g} (test {provable.look} "
        "since the last proven gain), if every user gains alike"
    )
    if not provable.gain < 1:
        sentence = f"no gain can be proven at level {provable.alpha:.2g} (test {provable.look})"
    if provable.equal is not None and provable.equal < 1:
        sentence += f"; by newer data {provable.equal:+.2f} is enough"
    return sentence


def _propose(found: Judges, share: float, enough: int) -> str:
    """Say when the present rate brings enough people, and which holdout share has them now."""
    ways = []
    if (larger := found.larger) is not None:
        ways.append(
            f"ResolutionRules(holdout_share={larger.share:.2f}) would have {larger.judges} judge now and leave "
            f"{larger.train:,} of {found.train:,} pairs to train on"
        )
    if (crossed := found.cross_fit) is not None:
        ways.append(
            f"ResolutionRules(cross_fit_folds={crossed.folds}) would have {crossed.judges} judge now and leave all "
            f"{crossed.train:,} pairs, for {crossed.folds} more trainings"
        )
    if ways:
        remedy = "; ".join(ways)
    elif share == 1:
        remedy = "every user judges already"
    elif found.people < enough:
        remedy = f"no holdout share is enough, as only {found.people} users have new rows"
    else:
        remedy = f"no holdout share up to {MOST_HELD_OUT:.0%} is enough"
    return f"{_foresee_people(found, share, enough)}; {remedy}"


def _foresee_people(found: Judges, share: float, enough: int) -> str:
    if not share:
        return "no user is held out"
    if found.new_per_week is None:
        return "gold holds too few days to tell how many new users come"
    # Where rows of held-out users repeat prompts that are trained on, some of these people never judge.
    judging = found.judges / found.held_out if found.held_out >= 10 else 1.0
    rate = found.new_per_week * share * judging
    if not rate:
        return f"no new user came in the last {found.rate_days} days: at that rate {enough} are never reached"
    weeks = math.ceil((enough - found.judges) / rate)
    return f"at {rate:.1f} new held-out users a week {enough} are reached in about {_describe_weeks(weeks)}"


def _describe_weeks(weeks: int) -> str:
    if weeks > 104:
        return f"{weeks / 52:.0f} years"
    return "a week" if weeks == 1 else f"{weeks} weeks"


def _foresee_classifier(application: ClassificationApplication, lake: Lake, days: Sequence[date]) -> Outlook:
    limits = application.limits
    needed = f"{limits.min_positives} positives in {limits.min_weeks} weeks"
    if not days:
        return Outlook(False, "gold has no closed day", f"the promotion gate needs {needed} after the training data")
    found = count_judged_positives(lake, application.examples, days)
    sentence = f"{found.positives:,} known positives in {found.weeks} matured weeks would judge a version cut now"
    if found.positives >= limits.min_positives and found.weeks >= limits.min_weeks:
        return Outlook(True, f"{sentence} ({needed} are needed)")
    sentence += f", and the promotion gate needs {needed} to decide"
    return Outlook(False, sentence, _foresee_positives(application, found))


def _foresee_positives(application: ClassificationApplication, found: JudgedPositives) -> str:
    """Say when the present rate brings enough positives; a version is judged on six weeks at most."""
    if found.per_week is None:
        return "no whole week of predictions has matured yet"
    if not found.per_week:
        return "no positive is known in the last matured weeks: at that rate there is never a decision"
    least, rate = application.limits.min_positives, found.per_week
    most_weeks = max(MOST_WEEKS, application.evaluation_weeks)
    if rate * most_weeks < least:
        return (
            f"at {rate:.1f} positives a week the {most_weeks} weeks that are judged at most hold about "
            f"{math.floor(rate * most_weeks)}, so it never can; ClassifierLimits(min_positives=…) may be lower, at the "
            "price of gains that are not found"
        )
    weeks = max(application.evaluation_weeks, math.ceil(least / rate))
    return f"at {rate:.1f} positives a week it can in about {_describe_weeks(_count_weeks_until(found, weeks, rate))}"


def _count_weeks_until(found: JudgedPositives, weeks: int, rate: float) -> int:
    """Count the weeks until so many are judged: each by a model with enough positives before its week.

    The rule is that of `_add_older_weeks` of the cut.
    """
    before = found.trained_positives / rate
    enough = (weeks - 1) + LEAST_POSITIVES / rate - before
    half = (weeks - 1) / (1 - LEAST_POSITIVE_SHARE) - before
    return max(1, math.ceil(max(enough, half, weeks - found.weeks)))
