"""How good the deployed and the static model are on the same payments, by the truth that only the world knows.

Blocked payments count like all others: the world knows what they were. The flywheel never sees these numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from flywheel_assets.measures.classifiers import average_precision_gain, score_rows
from flywheel_assets.measures.texts import Interval
from flywheel_assets.simulation.fraud.play import PlayedDay
from flywheel_assets.simulation.fraud.world import Bools, Floats

DAYS_PER_WEEK = 7


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """One model on one stretch of days; None where there was no such fraud."""

    ap: float | None
    """Average precision on all payments."""
    ap_emerging: float | None
    """The same on honest payments and frauds of the emerging pattern alone."""
    calibration: float | None
    """Σ score / Σ fraud; 1 is right."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both models on the same payments."""

    payments: int
    frauds: int
    emerging: int
    static: ModelScores
    live: ModelScores


@dataclass(frozen=True, kw_only=True)
class Week:
    """One week of the story."""

    first_day: date
    model_versions: tuple[str, ...]
    """What served, in order."""
    scores: Comparison


def weeks(days: Sequence[PlayedDay]) -> list[Week]:
    """The weeks of the played days, from the first day on; days after the last whole week are left out."""
    whole = len(days) - len(days) % DAYS_PER_WEEK
    stretches = [days[start : start + DAYS_PER_WEEK] for start in range(0, whole, DAYS_PER_WEEK)]
    return [
        Week(
            first_day=stretch[0].day,
            model_versions=tuple(dict.fromkeys(day.model_version for day in stretch)),
            scores=compare(stretch),
        )
        for stretch in stretches
    ]


def compare(days: Sequence[PlayedDay]) -> Comparison:
    """Both models on all payments of the days."""
    is_fraud = np.concatenate([day.is_fraud for day in days])
    is_emerging = np.concatenate([day.is_emerging for day in days])
    static, live = _both(days)
    return Comparison(
        payments=len(is_fraud),
        frauds=int(is_fraud.sum()),
        emerging=int(is_emerging.sum()),
        static=_scores(is_fraud, is_emerging, static),
        live=_scores(is_fraud, is_emerging, live),
    )


def gain(days: Sequence[PlayedDay], seed: int) -> Interval:
    """Average precision of the deployed model minus the static one's, with a 95 % interval bootstrapped by card."""
    static, live = _both(days)
    is_fraud = np.concatenate([day.is_fraud for day in days])
    cards = [str(card) for day in days for card in day.card]
    return average_precision_gain(is_fraud, static, live, cards, seed=seed)


def _both(days: Sequence[PlayedDay]) -> tuple[Floats, Floats]:
    return np.concatenate([day.static_scores for day in days]), np.concatenate([day.live_scores for day in days])


def _scores(is_fraud: Bools, is_emerging: Bools, scores: Floats) -> ModelScores:
    alone = is_emerging | ~is_fraud
    of_all = score_rows(is_fraud, scores)
    return ModelScores(
        ap=of_all.average_precision,
        ap_emerging=score_rows(is_fraud[alone], scores[alone]).average_precision,
        calibration=of_all.calibration_ratio,
    )
