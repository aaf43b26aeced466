"""When enough is new to train: what each kind of application counts; the sensor and `flywheel turn` ask the same."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from flywheel_assets import records
from flywheel_assets.application import ClassificationApplication, FlywheelApplication, PreferenceApplication, Retries
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.versions.example_versions import count_new_examples, live_calibration
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import NetNew, count_net_new, lake_content, lake_state
from flywheel_assets.promotion.classifier_limits import StatedReason


@dataclass(frozen=True)
class Assessment:
    """Whether enough is new to train, at one state of the lake."""

    reasons: dict[str, str]
    """Why a version is to be cut: name of the rule → its numbers; empty: not yet."""
    sentence: str
    """How far the thresholds are, in numbers."""


@dataclass(frozen=True)
class TrainingRule:
    """What one application lets decide about its next training."""

    description: str
    retries: Retries
    state: Callable[[Lake, Versions], str]
    """A word that changes whenever the assessment could, cheap to have: until then the last one holds."""
    content: Callable[[Lake, Versions], str]
    """What the assessment is a function of, dearer: it stays where only snapshots were written anew."""
    assess: Callable[[Lake, Versions, datetime], Assessment]


def rule_of(application: FlywheelApplication) -> TrainingRule:
    """The rule of an application of any kind."""
    match application:
        case PreferenceApplication():
            return pair_rule(application)
        case ClassificationApplication():
            return example_rule(application)
        case _:
            raise UnknownNameError(
                "kind of application",
                type(application).__name__,
                ["PreferenceApplication", "ClassificationApplication"],
            )


def pair_rule(application: PreferenceApplication) -> TrainingRule:
    """Both thresholds of a preference application's trigger must be reached."""
    trigger, rules = application.trigger, application.resolution

    configured = [trigger.min_new_pairs, asdict(rules)]

    def assess(lake: Lake, versions: Versions, _: datetime) -> Assessment:
        count = count_net_new(lake, versions, rules, trigger.min_new_pairs)
        is_enough = count.pairs >= trigger.min_new_pairs and count.partitions >= trigger.min_new_partitions
        reason = f"{count.pairs} new pairs in {count.partitions} new partitions"
        return Assessment({"new_pairs": reason} if is_enough else {}, _progress(application, count))

    return TrainingRule(
        f"Requests one training run when {trigger.min_new_pairs:,} new pairs and {trigger.min_new_partitions:,} "
        "new closed gold partitions have come since the last successful training.",
        trigger,
        partial(_word, lake_state, application.tables.gold, configured),
        partial(_word, lake_content, application.tables.gold, configured),
        assess,
    )


def example_rule(application: ClassificationApplication) -> TrainingRule:
    """Any of a classification application's reasons is enough."""
    trigger, rules = application.trigger, application.examples

    configured = [str(trigger), rules.as_json()]

    def assess(lake: Lake, versions: Versions, _: datetime) -> Assessment:
        enough, pause_days = trigger.min_new_hard_examples, trigger.maintenance_pause_days
        new = count_new_examples(lake, versions, rules, enough, pause_days)
        since = f"since {new.since or 'the beginning'}"
        if not new.is_exact:
            return Assessment({}, f"at most {new.hard_examples:,} of {enough:,} new hard examples {since}")
        progress = (
            f"{new.positives:,} of {trigger.min_new_positives:,} new positives, {new.hard_examples:,} of "
            f"{enough:,} new hard examples {since}"
        )
        reasons = {}
        if new.positives >= trigger.min_new_positives and new.hard_examples >= trigger.min_new_hard_examples:
            reasons[StatedReason.NEW_EXAMPLES.value] = (
                f"{new.positives} new positives and {new.hard_examples} new hard examples"
            )
        if new.age_days is None or not new.rows or new.age_days < trigger.maintenance_pause_days:
            return Assessment(reasons, progress)
        live = live_calibration(lake, rules, trigger.calibration_days)
        if live.ratio is not None:
            progress += f"; {live.ratio:.2f} positives were predicted for each that came"
            is_off = not trigger.min_calibration_ratio <= live.ratio <= trigger.max_calibration_ratio
            if is_off and live.positives >= trigger.min_calibration_positives:
                reasons[StatedReason.CALIBRATION.value] = (
                    f"{live.ratio:.2f} positives predicted for each of {live.positives} that came"
                )
        if trigger.max_age_days is not None and new.age_days >= trigger.max_age_days:
            reasons[StatedReason.AGE.value] = f"{new.age_days} days of predictions since the last training"
        return Assessment(reasons, progress)

    return TrainingRule(
        f"Requests one training run when {trigger.min_new_positives:,} new positives and "
        f"{trigger.min_new_hard_examples:,} new hard examples have matured since the last successful training, when "
        "the served scores are no longer calibrated, or when the last training is too old.",
        trigger,
        partial(_word, lake_state, application.tables.gold, configured),
        partial(_word, lake_content, application.tables.gold, configured),
        assess,
    )


def _word(
    of: Callable[[Lake, Versions, TableSpec], str],
    gold: TableSpec,
    configured: list[Any],
    lake: Lake,
    versions: Versions,
) -> str:
    return records.make_stable_id(of(lake, versions, gold), *configured)


def _progress(application: PreferenceApplication, count: NetNew) -> str:
    trigger = application.trigger
    pairs = f"{count.pairs:,}" if count.is_exact else f"at most {count.pairs:,}"
    return (
        f"{pairs} of {trigger.min_new_pairs:,} new pairs, {count.partitions:,} of {trigger.min_new_partitions:,} new "
        f"closed partitions since {count.since or 'the beginning'}"
    )
