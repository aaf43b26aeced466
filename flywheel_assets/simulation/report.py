"""The demo's report: what each week brought, and what all of it came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from flywheel_assets.simulation.base_model import BaseModel
from flywheel_assets.simulation.measuring import Accuracy
from flywheel_assets.simulation.play import DayStats
from flywheel_assets.simulation.wheel import (
    DayCounts,
    Skipped,
    TurnReport,
    VandalAccount,
)


@dataclass(frozen=True, kw_only=True)
class ChapterReport:
    """One chapter: what served, what it wrote, what became gold, whether the wheel turned."""

    title: str
    model_version: str
    days: tuple[DayStats, ...]
    counts: DayCounts
    accuracy: Accuracy
    """Of the model that served."""
    turn: TurnReport | Skipped
    accuracy_after: Accuracy
    """Of the model that serves from now on."""
    seconds: Mapping[str, float]
    """Wall time by stage: play, materialize, turn, measure."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Everything that the demo showed."""

    seed: int
    first_day: date
    base: BaseModel
    chapters: tuple[ChapterReport, ...]
    vandals: VandalAccount
    seconds: float
    """Wall time of the whole story, pretraining included."""
    hardware: Mapping[str, Any]

    @property
    def turns(self) -> tuple[TurnReport, ...]:
        """Every turn of the wheel."""
        return tuple(chapter.turn for chapter in self.chapters if isinstance(chapter.turn, TurnReport))
