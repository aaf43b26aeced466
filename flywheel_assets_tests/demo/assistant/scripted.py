"""Stand-ins for what a test of the simulation does not want to run: a model, and the flywheel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from flywheel_assets.demo.assistant.report import DayCounts, TurnReport
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.measures.texts import Interval


@dataclass
class Scripted:
    """An assistant that answers as it is told instead of from a model."""

    model_version: str = "scripted"
    says: Callable[[str], str] = lambda prompt: f"no idea about {prompt.strip()}"
    asked: list[str] = field(default_factory=list)

    def answer(self, prompts: Sequence[str]) -> list[str]:
        """What it is told to say; remembers what it was asked."""
        self.asked.extend(prompts)
        return [self.says(prompt) for prompt in prompts]


@dataclass
class ScriptedWheel:
    """A wheel that turns as it is told, once per chapter, and remembers the days it was given."""

    turns: list[TurnReport | Skipped]
    counts: DayCounts
    materialized: list[tuple[date, date]] = field(default_factory=list)

    def materialize(self, first: date, last: date) -> DayCounts:
        """The same counts for every range."""
        self.materialized.append((first, last))
        return self.counts

    def turn(self) -> TurnReport | Skipped:
        """The next report."""
        return self.turns.pop(0)


def turn_report(
    version: str, *, promoted: bool, adapter: Path | None = None, pair_ids: frozenset[str] = frozenset()
) -> TurnReport:
    """A plausible turn of the wheel."""
    return TurnReport(
        version=version,
        train_pairs=max(1, len(pair_ids)),
        accepted=40,
        holdout_pairs=60,
        regression_rows=30,
        reasons={},
        challenger_stage="one_stage",
        stage_reason="The one stage is not inferior.",
        ned_base=0.43,
        ned_champion=0.43,
        ned_challenger=0.03,
        ned_sft=0.04,
        wrong_answers={
            "base": Interval(0.9, 0.8, 1.0, 60, 30),
            "sft": Interval(0.06, 0.02, 0.12, 60, 30),
            "challenger": Interval(0.0, 0.0, 0.01, 60, 30),
        },
        promoted=promoted,
        sentence="promoted: better" if promoted else "not promoted: not better",
        seconds=1.0,
        champion_adapter=adapter,
        train_pair_ids=pair_ids,
    )
