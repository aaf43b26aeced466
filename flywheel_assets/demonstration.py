"""The demo's wheel: the simulated world drives the real assets, the real trigger and the real registry."""

import shutil
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import dagster as dg
from rich.console import Console

from flywheel_assets.application import PreferenceApplication, Trigger
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.defs.preference import preference_flywheel, read_evaluation_report, read_training_report
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.running import Driver, open_instance
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.exports import ExportSet, read_manifest, read_rows
from flywheel_assets.lake.ledger import day_range, entries_of
from flywheel_assets.lake.promotions import read_promotion
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS
from flywheel_assets.settings import settings
from flywheel_assets.simulation.demo import CuratedCounts, DemoReport, Skipped, TurnReport, run_demo
from flywheel_assets.training.recipes import AdapterRecipe

# Rates that suit the demo's 0.5 M parameters; the recipe's defaults are for models a thousand times as large.
_RECIPE = AdapterRecipe(
    max_length=128, sft_epochs=4.0, sft_learning_rate=2e-3, preference_learning_rate=5e-4, checkpoint_every_steps=200
)
_THRESHOLDS = (250, 120)
"""New pairs that start each turn; what the last turn left is caught up by a smaller one."""


def demo_application(turn: int) -> PreferenceApplication:
    """The assistant of `applications/assistant.py` in the demo's size: a few hundred people instead of a company."""
    return replace(
        APPLICATION,
        trigger=Trigger(min_new_pairs=_THRESHOLDS[min(turn, len(_THRESHOLDS) - 1)], min_new_partitions=5),
        resolution=ResolutionRules(per_user_cap=15, holdout_share=0.15),
        recipe=_RECIPE,
    )


@dataclass
class DagsterWheel:
    """What the demo turns: one range run a week, one sensor tick, one training run."""

    instance: dg.DagsterInstance
    turns: int = 0

    @property
    def landing_root(self) -> Path:
        """Where capture lands the demo's events."""
        return Stores().landing_root

    @property
    def driver(self) -> Driver:
        """Runs the jobs of the application as it is configured for the next turn."""
        application = demo_application(self.turns)
        return Driver(application, preference_flywheel(application), self.instance)

    def materialize(self, first: date, last: date) -> CuratedCounts:
        """Landing to gold for a range of days, in one run."""
        finished = self.driver.materialize(first, last)
        if not finished.succeeded:
            raise TrainingError(f"materializing {first} … {last} failed: {finished.error}")
        entries = entries_of(Stores().lake(APPLICATION.name), CURATED_DPO_PAIRS.name, day_range(first, last))
        dropped: dict[str, int] = {}
        for entry in entries.values():
            for reason, rows in entry.rows_by_reason.items():
                dropped[reason] = dropped.get(reason, 0) + rows
        return CuratedCounts(
            joined=sum(entry.rows_in for entry in entries.values()),
            kept=sum(entry.rows_kept for entry in entries.values()),
            dropped=dropped,
        )

    def turn(self) -> TurnReport | Skipped:
        """Let the sensor look; when it fires, run what it requested to the end."""
        driver = self.driver
        ticked = driver.tick()
        if ticked.version is None:
            return Skipped(ticked.reason)
        begin = time.monotonic()
        finished = driver.turn(ticked.version, ticked.tags)
        if not finished.succeeded:
            raise TrainingError(f"the run of {ticked.version} failed: {finished.error}")
        self.turns += 1
        return self._report(ticked.version, time.monotonic() - begin)

    def gold_prediction_pairs(self, version: str) -> set[str]:
        """Pair ids that a version trained on."""
        folder = Stores().versions(APPLICATION.name).folder(version)
        return {row.pair_id for row in read_rows(folder.export, read_manifest(folder.export), ExportSet.TRAIN)}

    def _report(self, version: str, seconds: float) -> TurnReport:
        folder = Stores().versions(APPLICATION.name).folder(version)
        manifest = read_manifest(folder.export)
        evaluation = read_evaluation_report(folder)
        promotion = read_promotion(folder.promotion)
        ned = evaluation.primary_ned()
        return TurnReport(
            version=version,
            train_pairs=manifest.files[ExportSet.TRAIN].rows,
            holdout_pairs=manifest.files[ExportSet.HOLDOUT].rows,
            accepted_rows=manifest.files[ExportSet.ACCEPTED].rows,
            challenger_stage=read_training_report(folder).chosen_stage,
            ned_base=ned["base"],
            ned_champion=ned.get("champion", ned["base"]),
            ned_challenger=ned["challenger"],
            promoted=promotion.promoted,
            sentence=promotion.sentence,
            seconds=seconds,
            champion_adapter=folder.training / "adapter" if promotion.promoted else None,
        )


def run(seed: int, console: Console) -> DemoReport:
    """Play the demo in a fresh home; the base model is kept from one demo to the next.

    Raises:
        TrainingError: a run failed; its logs are in the demo's Dagster instance.
    """
    home = settings().resolved_home()
    for name in ("landing", "warehouse", "scratch", "versions", "mlartifacts", "dagster"):
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("catalog.db*", "mlflow.db*"):
        for path in home.glob(pattern):
            path.unlink()
    with open_instance(settings().resolved_dagster_home()) as instance:
        return run_demo(
            DagsterWheel(instance),
            models_dir=settings().resolved_models_dir(),
            base_model=APPLICATION.base_model,
            first_day=APPLICATION.start_date,
            out_dir=home / "demo",
            seed=seed,
            console=console,
        )
