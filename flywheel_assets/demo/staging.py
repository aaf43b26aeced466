"""Gives every demo its stage: the flywheel as a Protocol, progress bars, wall time, the hardware.

With the Protocol no story imports the orchestrator.
"""

import os
import platform
import resource
import time
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


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


class Stopwatch:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, stage: str) -> None:
        """End the stage that began with the last lap."""
        now = time.monotonic()
        self.seconds[stage] = round(now - self._since, 2)
        self._since = now


def make_progress_bar(console: Console) -> Progress:
    """Make a bar that leaves no trace on the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def describe_hardware() -> dict[str, Any]:
    """Describe the machine of the measurements; names no host."""
    self_kib, child_kib = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "peak_memory_gib": round(self_kib / 2**20, 2),
        "peak_memory_of_largest_child_gib": round(child_kib / 2**20, 2),
    }
