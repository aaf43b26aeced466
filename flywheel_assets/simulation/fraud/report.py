"""The fraud demo's report: what each chapter brought, and what all of it came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from flywheel_assets.measures.texts import Interval
from flywheel_assets.simulation.fraud.bank import StaticModel
from flywheel_assets.simulation.fraud.measuring import Comparison, Week
from flywheel_assets.simulation.fraud.wheel import ClassifierTurn, MinedDays
from flywheel_assets.simulation.wheel import Skipped


@dataclass(frozen=True, kw_only=True)
class FraudChapterReport:
    """One chapter: what served, what the world said, what became gold, whether the wheel turned."""

    title: str
    model_version: str
    first_day: date
    last_day: date
    actions: Mapping[str, int]
    labels: Mapping[str, int]
    predictions_acknowledged: int
    labels_acknowledged: int
    scores: Comparison
    """Of the model that served and of the static one."""
    mined: MinedDays
    turn: ClassifierTurn | Skipped
    seconds: Mapping[str, float]
    """Wall time by stage: play, materialize, turn."""


@dataclass(frozen=True, kw_only=True)
class FraudDemoReport:
    """Everything that the demo showed."""

    seed: int
    first_day: date
    emerges_on: date
    static: StaticModel
    chapters: tuple[FraudChapterReport, ...]
    weeks: tuple[Week, ...]
    before_promotion: Comparison | None
    """From the new fraud's first day to the first promotion; None where that came earlier."""
    after_promotion: Comparison | None
    """From the first promotion on; None where there was none."""
    gain_after_promotion: Interval | None
    """Average precision of what served minus the static model's, from the first promotion on."""
    seconds: float
    """Wall time of the whole story, without the prehistory."""
    hardware: Mapping[str, Any]

    @property
    def turns(self) -> tuple[ClassifierTurn, ...]:
        """Every turn of the wheel."""
        return tuple(chapter.turn for chapter in self.chapters if isinstance(chapter.turn, ClassifierTurn))
