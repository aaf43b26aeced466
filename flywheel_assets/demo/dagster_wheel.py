"""Turns a demo's wheel by Dagster: one range run a chapter, one sensor tick, and the run that it requests."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as datetime_time
from pathlib import Path
from typing import Generic, TypeVar

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.capture.service import running_capture
from flywheel_assets.defs.resources import Clock
from flywheel_assets.defs.running import Driver, Ticked, open_instance
from flywheel_assets.demo.capture_client import CaptureDoor, SimulatedClock
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.daily.ledger import list_days
from flywheel_assets.settings import read_settings

Counts = TypeVar("Counts")
Turn = TypeVar("Turn")

_OPENS = datetime_time(0, 30, tzinfo=UTC)


@dataclass
class DagsterWheel(Generic[Counts, Turn]):
    """One application's flywheel on a Dagster instance, in this process."""

    instance: dg.DagsterInstance
    configured: Callable[[int, Clock], tuple[FlywheelApplication, dg.Definitions]]
    """The application as it is after so many turns, and its definitions on that clock."""
    counted: Callable[[Sequence[date]], Counts]
    """Counts the rows of materialized days."""
    reported: Callable[[Ticked, float], Turn]
    """A finished turn: the trigger's request, and the seconds that it took."""
    turns: int = 0
    played_until: date = date.min

    def materialize(self, first: date, last: date) -> Counts:
        """Materialize a range of days from landing to gold, in one run."""
        finished = self._make_driver(after=last).materialize(first, last)
        if not finished.succeeded:
            raise TrainingError(f"materializing {first} … {last} failed: {finished.error}")
        return self.counted(list_days(first, last))

    def turn(self) -> Turn | Skipped:
        """Evaluate the sensor; when it fires, run its request to the end."""
        driver = self._make_driver(after=self.played_until)
        ticked = driver.tick()
        if ticked.version is None:
            return Skipped(ticked.reason)
        begin = time.monotonic()
        finished = driver.turn(ticked.version, ticked.tags)
        if not finished.succeeded:
            raise TrainingError(f"the run of {ticked.version} failed: {finished.error}")
        self.turns += 1
        return self.reported(ticked, time.monotonic() - begin)

    def _make_driver(self, after: date) -> Driver:
        # The simulated time closes the simulated days, whatever the machine's clock says.
        self.played_until = after
        clock = Clock(fixed=datetime.combine(after + timedelta(days=1), datetime_time(1), UTC).isoformat())
        application, definitions = self.configured(self.turns, clock)
        return Driver(application, definitions, self.instance)


@contextmanager
def open_home(application: FlywheelApplication, first_day: date) -> Iterator[tuple[dg.DagsterInstance, CaptureDoor]]:
    """Open an instance and a running capture service in the demo's home.

    Its clock shows the first day, 00:30 UTC.
    """
    where = read_settings()
    clock = SimulatedClock(datetime.combine(first_day, _OPENS))
    contracts = {application.name: application.score_contract}
    with (
        open_instance(where.resolve_dagster_home()) as instance,
        running_capture(where.resolve_landing_dir(), contracts, clock=clock) as capture,
    ):
        yield instance, CaptureDoor(capture.url, capture.seal, clock, application.name)


def clear(home: Path) -> None:
    """Remove an earlier demo's files; base models and reports stay."""
    for name in ("landing", "warehouse", "scratch", "versions", "mlartifacts", "dagster"):
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("catalog.db*", "mlflow.db*"):
        for path in home.glob(pattern):
            path.unlink()
