"""Chooses the rows of every rival, fits its model with the application's recipe, and corrects its scores.

A rival is fitted at each week's start on what was known then: predictions older than the maturity, positive where a
label had landed before that day, negative otherwise. So both classes are as complete as they could be.
"""

import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from flywheel_assets.backtest.history import Booleans, Floats, History, Outcomes
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.fitting import fit_model
from flywheel_assets.models.trainers.model import FittedModel

STATIC, FLYWHEEL, WEEKLY = "static", "flywheel", "weekly, all rows"
LEAST_POSITIVES = 20
"""With fewer a rival does not retrain: the scores of before stay."""


@dataclass(frozen=True)
class Rival:
    """A way to retrain every week."""

    name: str
    window_days: int | None = None
    """Days of predictions that it trains on, up to the last matured one; None: all of them."""
    negatives_per_positive: int | None = None
    """Drawn at random; None: all of them."""
    floor: float | None = None
    """The sampling floor by which its rows are drawn and weighed; None: no sampling by surprise."""


def list_rivals(floors: tuple[float, ...] = ()) -> list[Rival]:
    """List the rivals; those that the flywheel is compared with first."""
    return [
        Rival(WEEKLY),
        Rival("weekly, 1:10 undersample, prior-corrected", negatives_per_positive=10),
        Rival("weekly, sliding 4 weeks", window_days=28),
        *(Rival(f"weekly, surprise sampling, floor {floor:g}", floor=floor) for floor in floors),
    ]


@dataclass(frozen=True)
class Fitted:
    """A rival's model of one week."""

    model: FittedModel
    rows: int
    positives: int
    cpu_seconds: float
    kept_negatives: float = 1.0
    """Share of the negatives that an unweighted sample kept."""

    def score(self, features: pa.Table) -> Floats:
        """Compute probabilities; those of an undersample are corrected by Bayes' rule for the dropped negatives."""
        p = self.model.predict(features)
        kept = self.kept_negatives
        return p * kept / (p * kept + 1 - p)


def find_last_matured_day(week_start: date, waiting_days: int) -> date:
    """Find the last day whose rows are old enough to count by the day before the week."""
    return week_start - timedelta(days=1 + waiting_days)


def fit_rival(
    rival: Rival,
    history: History,
    known: Outcomes,
    week_start: date,
    recipe: TrainerRecipe,
    seed: int,
    work_dir: Path,
) -> Fitted | None:
    """Fit a rival at a week's start; None with too few known positives.

    Args:
        rival: chooses and weighs the rows.
        history: the features.
        known: what was known of the matured predictions.
        week_start: the day on which the model would begin to serve.
        recipe: of the application.
        seed: of the drawn negatives.
        work_dir: for the files of a trainer that is a command.
    """
    chosen = np.ones(len(known.numbers), dtype=bool)
    weights, kept_negatives = known.weights, 1.0
    if rival.window_days is not None and len(known.numbers):
        last = int(history.ordinals[known.numbers[-1]])
        chosen = history.ordinals[known.numbers] > last - rival.window_days
    if rival.floor is not None:
        share = known.probabilities[rival.floor]
        chosen = known.draws < share
        weights = weights / share
    if rival.negatives_per_positive is not None:
        chosen, kept_negatives = _undersample(known, rival.negatives_per_positive, seed + week_start.toordinal())
    positives = int(known.is_positive[chosen].sum())
    if positives < LEAST_POSITIVES or positives == int(chosen.sum()):
        return None
    features = history.features.take(known.numbers[chosen])
    begin = _read_cpu_seconds()
    model = fit_model(recipe, features, known.is_positive[chosen], weights[chosen], work_dir)
    seconds = _read_cpu_seconds() - begin
    return Fitted(model, int(chosen.sum()), positives, seconds, kept_negatives)


def _read_cpu_seconds() -> float:
    """Read the CPU time of this process and of its ended children: a trainer may be a command."""
    return sum(os.times()[:4])


def _undersample(known: Outcomes, per_positive: int, seed: int) -> tuple[Booleans, float]:
    negatives = np.flatnonzero(~known.is_positive)
    count = min(len(negatives), per_positive * int(known.is_positive.sum()))
    chosen = known.is_positive.copy()
    chosen[np.random.default_rng(seed).choice(negatives, count, replace=False)] = True
    return chosen, count / len(negatives) if len(negatives) else 1.0
