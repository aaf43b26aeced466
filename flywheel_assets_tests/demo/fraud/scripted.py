"""Stand-ins for what a test of the fraud story does not want to run: a model, capture, and the flywheel."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from flywheel_assets.demo.capture_client import SimulatedClock
from flywheel_assets.demo.fraud.report import ClassifierTurn, MinedDays
from flywheel_assets.demo.fraud.world import Floats
from flywheel_assets.demo.staging import Skipped


@dataclass
class Scripted:
    """A model whose score is a feature, scaled."""

    model_version: str = "scripted"
    feature: str = "amount"
    scale: float = 2_000.0

    def score(self, features: pa.Table) -> Floats:
        """The feature over the scale, at most 1."""
        return np.minimum(1.0, features[self.feature].to_numpy() / self.scale)


@dataclass
class RecordingDoor:
    """Accepts everything, remembers it with the clock's time, and ends days as the real door does."""

    first_day: date
    clock: SimulatedClock = field(init=False)
    sent: list[tuple[datetime, str, Mapping[str, Any]]] = field(default_factory=list)
    ended: list[date] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = SimulatedClock(datetime.combine(self.first_day, time(tzinfo=UTC)))

    @contextmanager
    def open_sender(self) -> Iterator["RecordingDoor"]:
        """Itself."""
        yield self

    def send_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Remember CloudEvents under their type."""
        self.sent += [(self.clock(), event["type"], event) for event in _as_received(events)]

    def send_plain(self, path: str, body: Sequence[Mapping[str, Any]], count: int) -> None:
        """Remember plain elements under their path."""
        assert len(body) == count
        self.sent += [(self.clock(), path, element) for element in _as_received(body)]

    def end_day(self, day: date) -> None:
        """Remember the day."""
        self.ended.append(day)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """What was sent of that kind, in order."""
        return [element for _, sent, element in self.sent if sent == kind]


def _as_received(sent: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a server decodes: only what JSON can hold arrives."""
    received: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(sent))
    return received


@dataclass
class ScriptedWheel:
    """A wheel that turns as it is told, once per chapter, and remembers the days it was given."""

    turns: list[ClassifierTurn | Skipped]
    materialized: list[tuple[date, date]] = field(default_factory=list)

    def materialize(self, first: date, last: date) -> MinedDays:
        """The same counts for every range."""
        self.materialized.append((first, last))
        return MinedDays(rows=1_000, kept=120, dropped={"not_drawn": 880})

    def turn(self) -> ClassifierTurn | Skipped:
        """The next report."""
        return self.turns.pop(0)


def turn_report(version: str, *, promoted: bool, champion: Path | None = None) -> ClassifierTurn:
    """A plausible turn of the wheel."""
    return ClassifierTurn(
        version=version,
        reason="300 new positives",
        train_rows=9_000,
        train_positives=400,
        test_rows=26_000,
        test_positives=200,
        ap_incumbent=0.4,
        ap_challenger=0.5,
        promoted=promoted,
        sentence="promoted: better" if promoted else "not promoted: not better",
        seconds=3.0,
        champion=champion,
    )
