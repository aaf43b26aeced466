"""What the demo needs of a flywheel, as a Protocol, so that the simulation never imports the orchestrator."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol, TypeVar

from flywheel_assets.records import pair_id
from flywheel_assets.simulation.play import DayStats


@dataclass(frozen=True, kw_only=True)
class DayCounts:
    """What a range of days brought into gold."""

    joined: int
    """Matched feedback events."""
    kept: int
    """Rows that became gold: preference pairs and accepted outputs."""
    dropped: Mapping[str, int]
    """Reason → rows; with `kept` they make up `joined`."""
    refused_edits: Mapping[str, str]
    """Prediction id → reason, of every edit that did not become gold."""


@dataclass(frozen=True)
class Skipped:
    """The trigger did not fire."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class TurnReport:
    """One gold version, from its export to the decision about its adapter."""

    version: str
    train_pairs: int
    accepted: int
    """Accepted outputs mixed into training."""
    holdout_pairs: int
    regression_rows: int
    reasons: Mapping[str, int]
    """Gold rows that resolution left out, by reason."""
    challenger_stage: str
    """sft | preference: which stage's adapter asked to be promoted."""
    ned_base: float
    """Mean normalized edit distance on the primary held-out rows, like the next two; 0 = exactly the user's text."""
    ned_champion: float
    """Of what served before; on the first turn the base model."""
    ned_challenger: float
    promoted: bool
    sentence: str
    seconds: float
    """Wall time from the trigger to the decision."""
    champion_adapter: Path | None
    """What serves after the decision; None: still the base model."""
    train_pair_ids: frozenset[str] = field(repr=False)


Counts = TypeVar("Counts", covariant=True)
Turn = TypeVar("Turn", covariant=True)


class Wheel(Protocol[Counts, Turn]):
    """The flywheel of one application as its demo drives it."""

    def materialize(self, first: date, last: date) -> Counts:
        """Materialize every daily asset for a range of days, in one run."""
        ...

    def turn(self) -> Turn | Skipped:
        """Evaluate the trigger and, where it fires, run what it requests to the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class VandalAccount:
    """What became of the vandals' edits; only the simulation knows whose they were."""

    edits: int
    caught: Mapping[str, int]
    """Reason → edits that never became gold."""
    in_gold: Mapping[str, int]
    """Kind of vandalism → edits that nothing caught."""
    in_last_training: int
    """Of those in gold: pairs that the last version trained on; the others were held out or left out."""
    last_training_pairs: int

    @property
    def sentence(self) -> str:
        """All of it in plain words."""
        if not self.edits:
            return "Nobody vandalised anything."
        caught = ", ".join(f"{count} as {reason}" for reason, count in _by_count(self.caught)) or "none"
        slipped = sum(self.in_gold.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in _by_count(self.in_gold)) or "none"
        return (
            f"Vandals made {self.edits} edits. The gate caught {self.edits - slipped} ({caught}); {slipped} became "
            f"gold ({kinds}), and {self.in_last_training} of them were among the {self.last_training_pairs} pairs of "
            "the last training."
        )


def account_for_vandals(
    application: str, days: Sequence[DayStats], refused: Mapping[str, str], last_turn: TurnReport | None
) -> VandalAccount:
    """Follow every vandal's edit to where it ended."""
    culprits = {prediction: kind for day in days for prediction, kind in day.vandalism.items()}
    in_gold = {prediction: kind for prediction, kind in culprits.items() if prediction not in refused}
    trained = last_turn.train_pair_ids if last_turn else frozenset()
    return VandalAccount(
        edits=len(culprits),
        caught=dict(Counter(refused[prediction] for prediction in culprits if prediction in refused)),
        in_gold=dict(Counter(str(kind) for kind in in_gold.values())),
        in_last_training=sum(pair_id(application, prediction) in trained for prediction in in_gold),
        last_training_pairs=last_turn.train_pairs if last_turn else 0,
    )


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))
