"""The demo's wheel: the simulated world drives the real assets, the real trigger and the real registry."""

import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as datetime_time
from pathlib import Path

import dagster as dg
from rich.console import Console

from flywheel_assets.application import PreferenceApplication, Trigger
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.defs.preference import preference_flywheel, read_evaluation_report, read_training_report
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, open_instance
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.curate_days import CURATION_STAGE
from flywheel_assets.lake.exports import ExportSet, read_manifest
from flywheel_assets.lake.ledger import day_range, entries_of, total_by_reason
from flywheel_assets.lake.pair_versions import trained_pair_ids
from flywheel_assets.lake.promotions import read_promotion
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.settings import settings
from flywheel_assets.simulation.demo import DemoPlan, DemoReport, prepare_base, run_demo
from flywheel_assets.simulation.door import CaptureDoor, SimulatedClock
from flywheel_assets.simulation.wheel import DayCounts, Skipped, TurnReport
from flywheel_assets.training.recipes import AdapterRecipe

# Rates that suit the demo's half a million parameters; the recipe's defaults are for models a thousand times as large.
_RECIPE = AdapterRecipe(
    max_length=128, sft_epochs=4.0, sft_learning_rate=2e-3, preference_learning_rate=2e-4, checkpoint_every_steps=200
)
_THRESHOLDS = (250, 120)
"""New pairs that start the first turn, and every later one."""


def demo_application(base_model: str, turn: int) -> PreferenceApplication:
    """The assistant of `applications/assistant.py` in the demo's size: a few hundred people instead of a company."""
    return replace(
        APPLICATION,
        base_model=base_model,
        trigger=Trigger(min_new_pairs=_THRESHOLDS[min(turn, len(_THRESHOLDS) - 1)], min_new_partitions=5),
        # At this size a tenth of accepted outputs is a few dozen rows, which did not protect the neutral idioms.
        resolution=ResolutionRules(per_user_cap=15, holdout_share=0.20, accepted_min_ratio=0.4),
        recipe=_RECIPE,
    )


@dataclass
class DagsterWheel:
    """What the demo turns: one range run a week, one sensor tick, one training run."""

    instance: dg.DagsterInstance
    base_model: str
    turns: int = 0
    played_until: date = date.min

    def materialize(self, first: date, last: date) -> DayCounts:
        """Landing to gold for a range of days, in one run."""
        finished = self._driver(after=last).materialize(first, last)
        if not finished.succeeded:
            raise TrainingError(f"materializing {first} … {last} failed: {finished.error}")
        days = day_range(first, last)
        entries = entries_of(Stores().lake(APPLICATION.name), CURATED_DPO_PAIRS.name, days).values()
        return DayCounts(
            joined=sum(entry.rows_in for entry in entries),
            kept=sum(entry.rows_kept for entry in entries),
            dropped=total_by_reason(entries),
            refused_edits=_refused_edits(days),
        )

    def turn(self) -> TurnReport | Skipped:
        """Let the sensor look; when it fires, run what it requested to the end."""
        driver = self._driver(after=self.played_until)
        ticked = driver.tick()
        if ticked.version is None:
            return Skipped(ticked.reason)
        begin = time.monotonic()
        finished = driver.turn(ticked.version, ticked.tags)
        if not finished.succeeded:
            raise TrainingError(f"the run of {ticked.version} failed: {finished.error}")
        self.turns += 1
        return _report(ticked.version, time.monotonic() - begin)

    def _driver(self, after: date) -> Driver:
        # The simulated time closes the simulated days, whatever the machine's clock says.
        self.played_until = after
        clock = Clock(fixed=datetime.combine(after + timedelta(days=1), datetime_time(1), UTC).isoformat())
        application = demo_application(self.base_model, self.turns)
        return Driver(application, preference_flywheel(application, clock=clock), self.instance)


def run(seed: int, console: Console) -> DemoReport:
    """Play the demo in a fresh home; only the base model is kept from one demo to the next.

    Raises:
        TrainingError: a run failed; its logs are in the demo's Dagster instance.
    """
    where = settings()
    home = where.resolved_home()
    _clear(home)
    plan = DemoPlan(first_day=APPLICATION.start_date, seed=seed)
    base = prepare_base(plan, where.resolved_models_dir(), console)
    clock = SimulatedClock(datetime.combine(plan.first_day, datetime_time(8), UTC))
    with (
        open_instance(where.resolved_dagster_home()) as instance,
        running_capture(where.resolved_landing_dir(), [APPLICATION.name], clock=clock) as capture,
    ):
        door = CaptureDoor(capture.url, capture.seal, clock, APPLICATION.name)
        return run_demo(DagsterWheel(instance, str(base.path)), base, door, plan, home / "demo", console)


def _refused_edits(days: list[date]) -> dict[str, str]:
    """Prediction id → reason of every edit that did not become gold."""
    lake = Stores().lake(APPLICATION.name)
    quarantine = lake.read(QUARANTINE, days, ["stage", "row_id", "reason"]).to_pylist()
    reasons = {row["row_id"]: row["reason"] for row in quarantine if row["stage"] == CURATION_STAGE}
    joined = lake.read(JOINED_FEEDBACK, days, ["feedback_event_id", "prediction_id", "signal"]).to_pylist()
    return {
        row["prediction_id"]: reasons[row["feedback_event_id"]]
        for row in joined
        if row["signal"] == "edit" and row["feedback_event_id"] in reasons
    }


def _report(version: str, seconds: float) -> TurnReport:
    stores = Stores()
    folder = stores.versions(APPLICATION.name).folder(version)
    manifest = read_manifest(folder.export)
    ned = read_evaluation_report(folder).primary_ned()
    promotion = read_promotion(folder.promotion)
    champion = stores.registry(APPLICATION.name).champion()
    return TurnReport(
        version=version,
        train_pairs=manifest.files[ExportSet.TRAIN].rows,
        accepted=manifest.files[ExportSet.ACCEPTED].rows,
        holdout_pairs=manifest.files[ExportSet.HOLDOUT].rows,
        regression_rows=manifest.files[ExportSet.REGRESSION].rows,
        reasons=manifest.dropped,
        challenger_stage=read_training_report(folder).chosen_stage,
        ned_base=ned["base"],
        ned_champion=ned.get("champion", ned["base"]),
        ned_challenger=ned["challenger"],
        promoted=promotion.promoted,
        sentence=promotion.sentence,
        seconds=seconds,
        champion_adapter=champion.model_dir if champion else None,
        train_pair_ids=frozenset(trained_pair_ids(folder)),
    )


def _clear(home: Path) -> None:
    for name in ("landing", "warehouse", "scratch", "versions", "mlartifacts", "dagster"):
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("catalog.db*", "mlflow.db*"):
        for path in home.glob(pattern):
            path.unlink()
