"""Defines a finding: the damaged thing, what is wrong, its cause, its repair, and whether `--repair` may do that."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path

LOST = "It was deleted by hand, lost by a disk, or is missing from a restored copy."
ALTERED = "It was cut off, overwritten, or damaged on its disk; nothing of this project changes it once it is there."


class MendKind(StrEnum):
    """The repairs that lose nothing which could still be read."""

    REMOVE_LEFTOVER = "remove_leftover"
    """Of a killed process; the weekly maintenance would remove it, too."""
    WRITE_HOME_ID = "write_home_id"
    """From the home's other parts."""
    WRITE_PIN = "write_pin"
    """From the version's verified manifest."""
    SET_ASIDE = "set_aside"
    """Move a damaged file that is made again, or that nothing reads, into `set_aside` in the home."""
    MAKE_DAY = "make_day"
    """Materialize a day again, from landing."""


@dataclass(frozen=True)
class Mend:
    """One repair that `--repair` may do."""

    kind: MendKind
    path: Path | None = None
    day: date | None = None
    version: str | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; no field holds a user's text."""

    place: str
    """For instance `assistant.curated_dpo_pairs 2026-03-02`."""
    file: str
    """Path or URI; empty where no single file is wrong."""
    problem: str
    cause: str
    repair: str
    """A sentence with the command to run."""
    mend: Mend | None = None
    """The repair that `--repair` does; None: it takes a person."""
    application: str | None = None
    """None: applications share the thing."""

    def __str__(self) -> str:
        where = f"{self.place}: {self.file}" if self.file else f"{self.place}:"
        return f"{where} {self.problem}. {self.cause} Repair: {self.repair}"


@dataclass
class Report:
    """The result of an inspection."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)
    """Things by kind, for instance `data files`."""
    bytes_read: int = 0
    """Of contents: hashed or decoded."""
    not_looked_at: list[str] = field(default_factory=list)

    def count(self, kind: str, number: int = 1) -> None:
        """Count things that were looked at."""
        self.looked_at[kind] = self.looked_at.get(kind, 0) + number

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        self.findings.extend(findings)

    def merge(self, other: "Report") -> None:
        """Add another inspection's result."""
        self.findings.extend(other.findings)
        for kind, number in other.looked_at.items():
            self.count(kind, number)
        self.bytes_read += other.bytes_read
        self.not_looked_at.extend(each for each in other.not_looked_at if each not in self.not_looked_at)


@dataclass(frozen=True)
class Sample:
    """Draws the files whose contents are read today: over some days each file is drawn once."""

    share: float
    """Of the files; 1: all."""
    today: date

    def draws(self, name: str) -> bool:
        """Return whether the contents of a file are read."""
        every = max(1, round(1 / self.share))
        return zlib.crc32(name.encode()) % every == self.today.toordinal() % every
