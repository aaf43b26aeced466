"""Turns an application's own assets in a throw-away home, on simulated days.

Nothing of the application's home is written, whatever the environment names, and no promotion is announced.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as datetime_time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from flywheel_assets.application import ClassificationApplication, PromotionHook
from flywheel_assets.backtest.history import open_history
from flywheel_assets.backtest.landing import Lander
from flywheel_assets.backtest.measuring import build_report
from flywheel_assets.backtest.plan import BacktestPlan
from flywheel_assets.backtest.replay import PlayedWeek, Serving, Turned, Waited, replay
from flywheel_assets.backtest.report import BacktestReport
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.settings import Settings, isolate_settings
from flywheel_assets.training.classifier import read_training

_AFTER_CLOSING = datetime_time(1, tzinfo=UTC)


class ThrowAwayStores(Stores):
    """Opens every store in one folder, whatever places the environment names."""

    @property
    def where(self) -> Settings:
        """The settings of the throw-away home."""
        assert self.home is not None
        return _isolate_once(self.home)


@cache
def _isolate_once(home: str) -> Settings:
    """Read the environment once for a home: a replay asks hundreds of times, and each reading takes 20 ms."""
    return isolate_settings(Path(home))


@dataclass
class ThrowAwayWheel:
    """One application's flywheel in a throw-away home; see `replay.ReplayedWheel`."""

    application: ClassificationApplication
    stores: ThrowAwayStores
    instance: dg.DagsterInstance
    _now: datetime = field(init=False)

    def __post_init__(self) -> None:
        """Begin on the first day."""
        self._now = datetime.combine(self.application.start_date, _AFTER_CLOSING)

    def materialize(self, first: date, last: date) -> None:
        """Materialize a range of days in one run, an hour after the last one ended.

        Raises:
            TrainingError: the run failed.
        """
        self._now = datetime.combine(last + timedelta(days=1), _AFTER_CLOSING)
        finished = self._build_driver().materialize(first, last)
        if not finished.succeeded:
            raise TrainingError(f"materializing {first} … {last} failed: {finished.error}")

    def turn(self) -> Turned | Waited:
        """Ask the trigger and run its request; a run that fails is a version without a promotion."""
        driver = self._build_driver()
        ticked = driver.tick()
        if ticked.version is None:
            return Waited(ticked.reason)
        begin = time.monotonic()
        finished = driver.turn(ticked.version, ticked.tags)
        seconds = time.monotonic() - begin
        folder = self.stores.versions(self.application.name).folder(ticked.version)
        if not finished.succeeded:
            problem = f"the run failed: {finished.error}"
            return Turned(
                version=ticked.version,
                reason=ticked.reason,
                promoted=False,
                sentence=problem,
                wall_seconds=seconds,
            )
        promotion, training = read_promotion(folder.promotion), read_training(folder.training)
        return Turned(
            version=ticked.version,
            reason=ticked.reason,
            promoted=promotion.promoted,
            sentence=promotion.sentence,
            train_rows=training.rows,
            train_positives=training.positives,
            fit_seconds=training.seconds,
            wall_seconds=seconds,
        )

    def find_serving(self) -> Serving | None:
        """Find the champion's deployed model."""
        champion = self.stores.registry(self.application.name).find_champion()
        if champion is None:
            return None
        promotion = read_promotion(self.stores.versions(self.application.name).folder(champion.gold_version).promotion)
        threshold = self.application.threshold if promotion.threshold is None else promotion.threshold
        return Serving(champion.gold_version, Path(champion.model_dir), threshold)

    def _build_driver(self) -> Driver:
        clock = Clock(fixed=self._now.isoformat())
        definitions = classification_flywheel(self.application, self.stores, clock)
        return Driver(self.application, definitions, self.instance)


def run_backtest(
    application: ClassificationApplication,
    landing: LandingPlace,
    plan: BacktestPlan,
    keep: Path | None = None,
    on_week: Callable[[PlayedWeek], None] = lambda _: None,
) -> BacktestReport:
    """Replay an application's history and compare its flywheel with its rivals.

    Args:
        application: as it is configured; its promotions are not announced.
        landing: where its history lies; only read.
        plan: the days, and what is compared.
        keep: an empty folder that becomes the throw-away home and stays; None: a temporary one, which is removed.
        on_week: is called after each week.

    Raises:
        InvalidRuleError: no predictions landed in the range.
        EmptyVersionError: no label has landed.
        LandingRetiredError: segments of a day were removed by retention.
        TrainingError: a range of days could not be materialized.
    """
    begin, cpu = time.monotonic(), time.process_time()
    with _open_home(keep) as home:
        read_since = time.monotonic()
        with open_history(application, landing, plan.first, plan.last, home / "scratch" / "history") as history:
            reading_s = time.monotonic() - read_since
            replayed = replace(application, start_date=history.first_day, on_promotion=PromotionHook())
            stores = ThrowAwayStores(home=str(home))
            lander = Lander(
                application.name, landing, DiskLanding(stores.landing_folder()), home / "scratch" / "landing"
            )
            with dg.DagsterInstance.ephemeral() as instance:
                wheel = ThrowAwayWheel(replayed, stores, instance)
                work_dir = home / "scratch" / "rivals"
                work_dir.mkdir(parents=True, exist_ok=True)
                recipe = application.recipe.locate(stores.base_model)
                played = replay(plan, history, wheel, lander, recipe, work_dir, on_week)
            played.seconds["read"] = reading_s
            return build_report(plan, history, played, lambda: (time.monotonic() - begin, time.process_time() - cpu))


@contextmanager
def _open_home(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with TemporaryDirectory(prefix="flywheel-backtest-") as folder:
        yield Path(folder)
