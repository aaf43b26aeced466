"""Groups refused records by cause: one sentence, how often, and where the first of them stands."""

import re
from dataclasses import dataclass

MOST_CAUSES = 100
OTHER = "other causes"
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between two sentences about one cause: what was received, and numbers."""


@dataclass
class Cause:
    """Counts the records that were refused for one cause; the first of them is the example."""

    problem: str
    file: str
    unit: str
    """What `number` counts: `line`, `record` or `row`."""
    number: int
    count: int = 1


class Causes:
    """Collects causes, however many records there are: all are counted, the first `MOST_CAUSES` are kept apart."""

    def __init__(self) -> None:
        self._causes: dict[str, Cause] = {}

    def add(self, problem: str, file: str, unit: str, number: int) -> None:
        """Count one refused record."""
        key = _PARTICULAR.sub("…", problem)
        if key not in self._causes and len(self._causes) >= MOST_CAUSES:
            key = problem = OTHER
        known = self._causes.get(key)
        if known is None:
            self._causes[key] = Cause(problem, file, unit, number)
        else:
            known.count += 1

    def sort(self) -> tuple[Cause, ...]:
        """Return the causes, the most frequent first."""
        return tuple(sorted(self._causes.values(), key=lambda cause: -cause.count))
