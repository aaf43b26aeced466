"""Replays the weeks in a closed loop: a promoted model scores the next week, and the flywheel learns from that.

At each week's start the days before it land in the throw-away home, Dagster materializes them in one range run, and the
trigger is asked once; then the week's predictions are scored. So the days of the last week never land: no decision
rests on them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np

from flywheel_assets.backtest.history import Floats, History
from flywheel_assets.backtest.landing import Lander, ServedScores
from flywheel_assets.backtest.plan import BacktestPlan, Week
from flywheel_assets.backtest.rivals import FLYWHEEL, STATIC, Fitted, find_last_matured_day, fit_rival, list_rivals
from flywheel_assets.lake.daily.ledger import list_days
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.fitting import load_model


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A gold version that the trigger asked for, and the decision about its model."""

    version: str
    reason: str
    """The trigger's."""
    promoted: bool
    sentence: str
    """The promotion gate's, or why the run failed."""
    train_rows: int = 0
    train_positives: int = 0
    fit_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class Waited:
    """The trigger asked for nothing."""

    reason: str


@dataclass(frozen=True)
class Serving:
    """The model that serves in the replay."""

    version: str
    folder: Path
    threshold: float | None


class ReplayedWheel(Protocol):
    """The application's flywheel in the throw-away home."""

    def materialize(self, first: date, last: date) -> None:
        """Materialize every daily asset of a range of days, in one run."""

    def turn(self) -> Turned | Waited:
        """Ask the trigger and, where it fires, run its request to the end."""

    def find_serving(self) -> Serving | None:
        """Find the model that serves; None: still the one that served in history."""


@dataclass(frozen=True)
class PlayedWeek:
    """One week: the flywheel's decision at its start, and the rivals' models."""

    week: Week
    turn: Turned | Waited
    serving: str | None
    """Gold version of the flywheel's model; None: the scores of history."""
    threshold: float | None
    """Score from which the flywheel alerts."""
    fitted: dict[str, Fitted | None]


@dataclass
class Played:
    """Every week, and every strategy's scores of all predictions; NaN before go-live."""

    weeks: list[PlayedWeek] = field(default_factory=list)
    scores: dict[str, Floats] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""

    def open_scores(self, plan: BacktestPlan, rows: int) -> None:
        """Give every strategy of the plan a score of NaN for each prediction."""
        for name in (STATIC, FLYWHEEL, *(rival.name for rival in list_rivals(plan.floors))):
            self.scores[name] = np.full(rows, np.nan)


def replay(
    plan: BacktestPlan,
    history: History,
    wheel: ReplayedWheel,
    lander: Lander,
    recipe: TrainerRecipe,
    work_dir: Path,
    on_week: Callable[[PlayedWeek], None] = lambda _: None,
) -> Played:
    """Replay every week of the plan.

    Args:
        plan: the weeks and the rivals.
        history: predictions and labels.
        wheel: the flywheel in the throw-away home.
        lander: brings days of history there.
        recipe: of the rivals, with the paths of this machine.
        work_dir: for the files of trainers that are commands.
        on_week: is called after each week.

    Raises:
        TrainingError: a range of days could not be materialized.
    """
    application = history.application
    played = Played()
    played.open_scores(plan, len(history.scores))
    landed_until = history.first_day - timedelta(days=1)
    served: ServedScores | None = None
    last_models: dict[str, Fitted] = {}
    for week in plan.list_weeks():
        lap = _Laps(played.seconds)
        before = list_days(landed_until + timedelta(days=1), week.first - timedelta(days=1))
        if before:
            lander.land(before, served)
            lap("land")
            wheel.materialize(before[0], before[-1])
            lap("materialize")
        landed_until = week.first - timedelta(days=1)
        turn = wheel.turn()
        lap("turn")
        numbers = history.find_rows(week.first, week.last)
        features = history.features.take(numbers)
        serving = wheel.find_serving()
        played.scores[STATIC][numbers] = history.scores[numbers]
        played.scores[FLYWHEEL][numbers] = history.scores[numbers]
        served = None
        if serving is not None:
            scores = load_model(serving.folder, work_dir).predict(features)
            played.scores[FLYWHEEL][numbers] = scores
            ids = [history.ids[number] for number in numbers]
            served = ServedScores(serving.version, dict(zip(ids, scores.tolist(), strict=True)))
        lap("score")
        fitted = play_rivals(plan, history, week, played, last_models, recipe, work_dir)
        lap("rivals")
        version, threshold = (None, application.threshold) if serving is None else (serving.version, serving.threshold)
        played.weeks.append(PlayedWeek(week, turn, version, threshold, fitted))
        on_week(played.weeks[-1])
    return played


def play_rivals(
    plan: BacktestPlan,
    history: History,
    week: Week,
    played: Played,
    last_models: dict[str, Fitted],
    recipe: TrainerRecipe,
    work_dir: Path,
) -> dict[str, Fitted | None]:
    """Fit every rival at the week's start, and score the week with it.

    Args:
        plan: its floors and its seed.
        history: predictions and labels.
        week: that begins.
        played: gets the scores; those of static are there already, and serve a rival that has no model yet.
        last_models: of each rival, which serves on where too few positives are known to fit another; is updated.
        recipe: with the paths of this machine.
        work_dir: for the files of trainers that are commands.
    """
    numbers = history.find_rows(week.first, week.last)
    features = history.features.take(numbers)
    until = find_last_matured_day(week.first, history.application.mining.waiting_days)
    known = history.resolve(week.first, until, plan.floors)
    fitted: dict[str, Fitted | None] = {}
    for rival in list_rivals(plan.floors):
        model = fit_rival(rival, history, known, week.first, recipe, plan.seed, work_dir)
        fitted[rival.name] = model
        if model is not None:
            last_models[rival.name] = model
        serving = last_models.get(rival.name)
        played.scores[rival.name][numbers] = (
            played.scores[STATIC][numbers] if serving is None else serving.score(features)
        )
    return fitted


class _Laps:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._since = time.monotonic()

    def __call__(self, stage: str) -> None:
        now = time.monotonic()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._since
        self._since = now


def describe_turn(turn: Turned | Waited) -> str:
    """Say what the trigger and the promotion gate decided."""
    return turn.reason if isinstance(turn, Waited) else f"{turn.version}: {turn.sentence}"
