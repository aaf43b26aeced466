"""Counts what became of the records of an import: by file, by kind of event, and by cause of refusal."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from flywheel_assets.formats.causes import Cause, Causes


@dataclass
class FileReport:
    """Says what one source is and what became of its records."""

    name: str
    shape: str = ""
    format: str = ""
    title: str = ""
    unit: str = "record"
    records: int = 0
    accepted: int = 0
    """Records of which at least one event was accepted."""
    refused: int = 0
    unused: int = 0
    """Records that have the format and say nothing of use."""
    unread: tuple[str, ...] = ()
    """Fields of its first records that become no part of an event."""
    escaped_rows: int = 0
    problem: str | None = None
    """Why the source as a whole could not be read; None: it could."""


@dataclass(frozen=True)
class ImportReport:
    """Counts an import: records = accepted + refused + unused."""

    files: tuple[FileReport, ...]
    events: Mapping[str, int]
    """Accepted events by kind: `prediction`, `edit`, `choice`, and the other signals."""
    causes: tuple[Cause, ...]
    """The most frequent first."""

    @property
    def records(self) -> int:
        """All records that were read."""
        return sum(each.records for each in self.files)

    @property
    def accepted(self) -> int:
        """Records of which at least one event was accepted."""
        return sum(each.accepted for each in self.files)

    @property
    def refused(self) -> int:
        """Records that were refused."""
        return sum(each.refused for each in self.files)

    @property
    def unused(self) -> int:
        """Records that say nothing of use."""
        return sum(each.unused for each in self.files)

    @property
    def exit_code(self) -> int:
        """0: everything was accepted; 1: nothing; 3: only a part."""
        is_whole = not self.refused and not any(each.problem for each in self.files)
        if not self.accepted:
            return 1
        return 0 if is_whole else 3


@dataclass
class Tally:
    """Collects the counts of an import while it runs."""

    files: list[FileReport] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    causes: Causes = field(default_factory=Causes)

    def open_file(self, name: str) -> FileReport:
        """Begin the report of a source."""
        self.files.append(FileReport(name))
        return self.files[-1]

    def refuse(self, file: FileReport, number: int, problem: str) -> None:
        """Count a refused record under its cause."""
        file.refused += 1
        self.causes.add(problem, file.name, file.unit, number)

    def report(self) -> ImportReport:
        """Return what was counted."""
        return ImportReport(tuple(self.files), dict(self.events), self.causes.sort())
