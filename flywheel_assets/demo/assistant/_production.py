"""Runs the daily jobs of the demo's epilogue by Dagster: landing to gold, the watch, and the rollout's step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.config import PromotionHook, RolloutPlan
from flywheel_assets.defs.assets.production_watch import PRODUCTION_WATCH
from flywheel_assets.defs.automation.rollout_steps import ROLLOUT_JOB
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.partitions import REPORTS_JOB
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.rollouts import change_share
from flywheel_assets.defs.running import Driver
from flywheel_assets.demo.assistant.rollback import SHARE, DayEnd
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.tables.specs import ROLLBACKS

_RUNS_AT = time(2, tzinfo=UTC)
"""After the schedules of closing (00:30), reports (01:30) and rollout (01:45)."""


@dataclass
class DagsterProduction:
    """One assistant's flywheel, whose promotion hook leaves its event where the demo's router reads it."""

    application: PreferenceApplication
    instance: dg.DagsterInstance
    stores: Stores
    event_file: Path
    now: Callable[[], datetime]
    """The simulated time."""

    def __post_init__(self) -> None:
        self.application = replace(
            self.application,
            rollout=RolloutPlan(steps=(SHARE, 1.0), keep_on_predecessor=0.05),
            on_promotion=PromotionHook(command=("tee", str(self.event_file))),
        )

    def roll_out(self, share: float) -> None:
        """Give the champion a share of the users, as `flywheel rollout` does, and announce it."""
        self.event_file.parent.mkdir(parents=True, exist_ok=True)
        reason = "rolled out again, after an update of the serving engine"
        change_share(self.application, self.stores, share, who="demo", reason=reason, now=self.now())

    def read_event(self) -> Mapping[str, object]:
        """Read the last event that the hook's command got."""
        event: Mapping[str, object] = msgspec.json.decode(self.event_file.read_bytes())
        return event

    def end_day(self, day: date) -> DayEnd:
        """Run a closed day's jobs.

        Raises:
            TrainingError: a run failed.
        """
        clock = Clock(fixed=datetime.combine(day + timedelta(days=1), _RUNS_AT).isoformat())
        driver = Driver(self.application, preference_flywheel(self.application, self.stores, clock), self.instance)
        finished = driver.materialize(day, day)
        if not finished.succeeded:
            raise TrainingError(f"materializing {day} failed: {finished.error}")
        watched = driver.run_job(REPORTS_JOB.format(self.application.name))
        stepped = driver.run_job(ROLLOUT_JOB.format(self.application.name))
        if not (watched.success and stepped.success):
            raise TrainingError(f"the reports or the rollout of {day} failed; see the runs in the UI")
        (found,) = watched.asset_materializations_for_node(f"{self.application.name}__{PRODUCTION_WATCH}")
        (check,) = [
            each for each in watched.get_asset_check_evaluations() if each.asset_key.path[-1] == PRODUCTION_WATCH
        ]
        rows: list[dict[str, Any]] = self.stores.lake(self.application.name).read(ROLLBACKS).to_pylist()
        return DayEnd(
            summary=str(found.metadata.get("summary", found.metadata.get("state", found.metadata["verdict"])).value),
            check_passed=check.passed,
            champion=self.stores.registry(self.application.name).find_rollout().champion,
            audited=next((row for row in rows if row["what"] != "share"), None),
        )
