"""Decides when enough is new to train: the sensor and `flywheel turn` use the same rule."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from flywheel_assets import records
from flywheel_assets.application import ClassificationApplication, FlywheelApplication, PreferenceApplication, Retries
from flywheel_assets.defs.automation.feasibility import foresee_decision
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.versions.example_versions import count_new_examples, measure_live_calibration
from flywheel_assets.lake.versions.folders import Versions, read_promotion
from flywheel_assets.lake.versions.net_new import NetNew, count_net_new, fingerprint_content, fingerprint_state
from flywheel_assets.models.trainability import TrainabilityCheck
from flywheel_assets.promotion.classifier_limits import StatedReason
from flywheel_assets.stores import Stores


@dataclass(frozen=True)
class Assessment:
    """A rule's answer at one state of the lake: reasons to train now, or the distance to its thresholds."""

    reasons: dict[str, str]
    """The reasons to cut a version: name of the rule → its numbers; empty: not yet."""
    sentence: str
    """The distance to the thresholds, in numbers."""
    share: float | None = None
    """The part of the way to the thresholds, 0 to 1; None: the rule cannot say it."""

    @property
    def says(self) -> str:
        """The reasons to train now, else the distance: the sensor and the page of the wheel say the same."""
        return "; ".join(self.reasons.values()) or self.sentence


class Level(Enum):
    """The part of the lake that a fingerprint reads; the value is its key in the sensor's cursor."""

    SNAPSHOTS = "state"
    """The tables' snapshot ids: cheap. It also changes when a day is written again with equal rows."""
    CONTENT = "content"
    """The closed days' content hashes: dearer. It changes only when the assessment may have changed."""


@dataclass(frozen=True)
class TrainingRule:
    """One application's rule about its next training."""

    description: str
    retries: Retries
    fingerprint: Callable[[Level, Stores, Lake, Versions], str]
    """A hash of everything that `assess` reads: while it is the same, the last assessment is still right."""
    assess: Callable[[Stores, Lake, Versions, datetime], Assessment]


def build_rule(application: FlywheelApplication) -> TrainingRule:
    """Build the rule of an application of any kind."""
    match application:
        case PreferenceApplication():
            return _hold_back_undecidable(application, build_pair_rule(application))
        case ClassificationApplication():
            return _hold_back_undecidable(application, build_example_rule(application))
        case _:
            raise UnknownNameError(
                "kind of application",
                type(application).__name__,
                ["PreferenceApplication", "ClassificationApplication"],
            )


def _hold_back_undecidable(
    application: PreferenceApplication | ClassificationApplication, rule: TrainingRule
) -> TrainingRule:
    """Let no training begin about which the promotion gate could not decide; `flywheel retrain` begins it anyway."""
    if not application.trigger.only_decidable:
        return rule

    def fingerprint(level: Level, stores: Stores, lake: Lake, versions: Versions) -> str:
        # The level of the next test depends on the tests before it.
        decided = [str(read_promotion(folder.promotion)) for folder in versions if folder.is_finished]
        return records.make_stable_id(rule.fingerprint(level, stores, lake, versions), str(application.limits), decided)

    def assess(stores: Stores, lake: Lake, versions: Versions, now: datetime) -> Assessment:
        found = rule.assess(stores, lake, versions, now)
        if not found.reasons:
            return found
        outlook = foresee_decision(application, lake, versions)
        if outlook.can_decide:
            return found
        by_hand = f"to train all the same: `flywheel retrain -a {application.name} --reason … --yes`"
        sentence = f"{found.sentence}; not trained, as it could not be promoted: {outlook}; {by_hand}"
        return Assessment({}, sentence, found.share)

    return replace(rule, fingerprint=fingerprint, assess=assess)


def build_pair_rule(application: PreferenceApplication) -> TrainingRule:
    """Build the rule of a preference application: both thresholds must be reached."""
    trigger, rules = application.trigger, application.resolution

    def configure(stores: Stores) -> list[Any]:
        return [trigger.min_new_pairs, asdict(rules), _name_judge(application, stores)]

    def assess(stores: Stores, lake: Lake, versions: Versions, _: datetime) -> Assessment:
        judged_by = _name_judge(application, stores)
        count = count_net_new(lake, versions, rules, trigger.min_new_pairs, judged_by)
        is_enough = count.pairs >= trigger.min_new_pairs and count.partitions >= trigger.min_new_partitions
        reason = f"{count.pairs} new pairs in {count.partitions} new partitions"
        share = min(_share(count.pairs, trigger.min_new_pairs), _share(count.partitions, trigger.min_new_partitions))
        return Assessment({"new_pairs": reason} if is_enough else {}, _describe_progress(application, count), share)

    return TrainingRule(
        f"Requests one training run when {trigger.min_new_pairs:,} new pairs and {trigger.min_new_partitions:,} "
        "new closed gold partitions have come since the last successful training.",
        trigger,
        _build_fingerprint(application.tables.gold, configure),
        assess,
    )


def build_example_rule(application: ClassificationApplication) -> TrainingRule:
    """Build the rule of a classification application: any of its reasons is enough."""
    trigger, rules = application.trigger, application.examples

    def configure(_: Stores) -> list[Any]:
        return [str(trigger), rules.as_json()]

    def assess(_: Stores, lake: Lake, versions: Versions, now: datetime) -> Assessment:
        enough, pause_days = trigger.min_new_hard_examples, trigger.maintenance_pause_days
        new = count_new_examples(lake, versions, rules, enough, pause_days)
        since = f"since {new.since or 'the beginning'}"
        if not new.is_exact:
            most = f"at most {new.hard_examples:,} of {enough:,} new hard examples {since}"
            return Assessment({}, most, _share(new.hard_examples, enough))
        progress = (
            f"{new.positives:,} of {trigger.min_new_positives:,} new positives, {new.hard_examples:,} of "
            f"{enough:,} new hard examples {since}"
        )
        share = min(_share(new.positives, trigger.min_new_positives), _share(new.hard_examples, enough))
        reasons = {}
        if new.positives >= trigger.min_new_positives and new.hard_examples >= trigger.min_new_hard_examples:
            reasons[StatedReason.NEW_EXAMPLES.value] = (
                f"{new.positives} new positives and {new.hard_examples} new hard examples"
            )
        if new.age_days is None or not new.rows or new.age_days < trigger.maintenance_pause_days:
            return Assessment(reasons, progress, share)
        live = measure_live_calibration(lake, rules, trigger.calibration_days)
        if live.ratio is not None:
            progress += f"; {live.ratio:.2f} positives were predicted for each that came"
            is_off = not trigger.min_calibration_ratio <= live.ratio <= trigger.max_calibration_ratio
            if is_off and live.positives >= trigger.min_calibration_positives:
                reasons[StatedReason.CALIBRATION.value] = (
                    f"{live.ratio:.2f} positives predicted for each of {live.positives} that came"
                )
        if trigger.max_age_days is not None and new.age_days >= trigger.max_age_days:
            reasons[StatedReason.AGE.value] = f"{new.age_days} days of predictions since the last training"
        return Assessment(reasons, progress, share)

    return TrainingRule(
        f"Requests one training run when {trigger.min_new_positives:,} new positives and "
        f"{trigger.min_new_hard_examples:,} new hard examples have matured since the last successful training, when "
        "the served scores are no longer calibrated, or when the last training is too old.",
        trigger,
        _build_fingerprint(application.tables.gold, configure),
        assess,
    )


def _share(reached: int, wanted: int) -> float:
    return 1.0 if reached >= wanted else reached / wanted


def _name_judge(application: PreferenceApplication, stores: Stores) -> dict[str, Any]:
    base_model = stores.base_model(application.base_model)
    return TrainabilityCheck(base_model=base_model, rendering=application.recipe.rendering).judged_by


def _build_fingerprint(
    gold: TableSpec, configure: Callable[[Stores], list[Any]]
) -> Callable[[Level, Stores, Lake, Versions], str]:
    def fingerprint(level: Level, stores: Stores, lake: Lake, versions: Versions) -> str:
        of_lake = fingerprint_state if level is Level.SNAPSHOTS else fingerprint_content
        return records.make_stable_id(of_lake(lake, versions, gold), *configure(stores))

    return fingerprint


def _describe_progress(application: PreferenceApplication, count: NetNew) -> str:
    trigger = application.trigger
    pairs = f"{count.pairs:,}" if count.is_exact else f"at most {count.pairs:,}"
    return (
        f"{pairs} of {trigger.min_new_pairs:,} new pairs, {count.partitions:,} of {trigger.min_new_partitions:,} new "
        f"closed partitions since {count.since or 'the beginning'}"
    )
