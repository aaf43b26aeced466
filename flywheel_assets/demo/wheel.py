"""Defines a flywheel for the demo's stories as a Protocol, so that no story imports the orchestrator."""

from dataclasses import dataclass
from datetime import date
from typing import Protocol, TypeVar


@dataclass(frozen=True)
class Skipped:
    """The trigger did not fire."""

    reason: str


Counts = TypeVar("Counts", covariant=True)


Turn = TypeVar("Turn", covariant=True)


class Wheel(Protocol[Counts, Turn]):
    """The flywheel of one application as its demo drives it."""

    def materialize(self, first: date, last: date) -> Counts:
        """Materialize every daily asset for a range of days, in one run."""
        ...

    def turn(self) -> Turn | Skipped:
        """Evaluate the trigger and, where it fires, run its request to the end."""
        ...
