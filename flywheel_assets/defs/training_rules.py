"""When enough is new to train: what each kind of application counts; the sensor and `flywheel turn` ask the same."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from flywheel_assets import records
from flywheel_assets.application import FlywheelApplication, PreferenceApplication, Retries
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.net_new import NetNew, count_net_new, lake_state
from flywheel_assets.lake.tables import Lake
from flywheel_assets.lake.versions import Versions


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
    state: Callable[[Lake, Versions, datetime], str]
    """A word that changes whenever the assessment could: until then the last one holds."""
    assess: Callable[[Lake, Versions, datetime], Assessment]


def rule_of(application: FlywheelApplication) -> TrainingRule:
    """The rule of an application of any kind."""
    match application:
        case PreferenceApplication():
            return pair_rule(application)
        case _:
            raise UnknownNameError("kind of application", type(application).__name__, ["PreferenceApplication"])


def pair_rule(application: PreferenceApplication) -> TrainingRule:
    """Both thresholds of a preference application's trigger must be reached."""
    trigger, rules = application.trigger, application.resolution

    def state(lake: Lake, versions: Versions, _: datetime) -> str:
        return records.stable_id(
            lake_state(lake, versions, application.tables.gold), trigger.min_new_pairs, asdict(rules)
        )

    def assess(lake: Lake, versions: Versions, _: datetime) -> Assessment:
        count = count_net_new(lake, versions, rules, trigger.min_new_pairs)
        is_enough = count.pairs >= trigger.min_new_pairs and count.partitions >= trigger.min_new_partitions
        reason = f"{count.pairs} new pairs in {count.partitions} new partitions"
        return Assessment({"new_pairs": reason} if is_enough else {}, _progress(application, count))

    return TrainingRule(
        f"Requests one training run when {trigger.min_new_pairs:,} new pairs and {trigger.min_new_partitions:,} "
        "new closed gold partitions have come since the last successful training.",
        trigger,
        state,
        assess,
    )


def _progress(application: PreferenceApplication, count: NetNew) -> str:
    trigger = application.trigger
    pairs = f"{count.pairs:,}" if count.is_exact else f"at most {count.pairs:,}"
    return (
        f"{pairs} of {trigger.min_new_pairs:,} new pairs, {count.partitions:,} of {trigger.min_new_partitions:,} new "
        f"closed partitions since {count.since or 'the beginning'}"
    )
