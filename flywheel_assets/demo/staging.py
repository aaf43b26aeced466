"""Serves every demo with progress bars, wall time by stage, and a description of the hardware."""

import os
import platform
import resource
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


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
