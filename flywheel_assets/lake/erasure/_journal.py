"""The journal of an erasure: a repeated one goes on from it. Holds names of tables, days and counts only.

Rows of tables, versions and scores are noted before they change, so that noting them again counts them once:
after a kill between note and change they are found again, after a later one they are not, and the receipt is the
same. It lies with the receipts, as `unfinished-<keyed hash of the user id>.json`, until the receipt is written.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from flywheel_assets.lake.erasure.rows import Partition
from flywheel_assets.lake.erasure.versions import ErasedVersion
from flywheel_assets.lake.storage.files import replace_file


class Progress(msgspec.Struct, kw_only=True):
    """How things stood before the attempts, and what all of them have done."""

    in_step: dict[str, list[date]] = {}
    """Per raw table the days whose ledger entry was that of what had landed when one of the attempts began."""
    touched: dict[str, list[Partition]] = {}
    """Per table the partitions that were, or are about to be, rewritten."""
    rows: dict[str, dict[str, int]] = {}
    """Per table and partition the most rows of the person that were found there."""
    scores: dict[str, int] = {}
    """Rows taken out of each file of scores, by the sha256 that it had."""
    versions: dict[str, ErasedVersion] = {}
    """By tag."""
    counts: dict[str, dict[str, int]] = {}
    """What went from other places, by kind of place and place."""


@dataclass(frozen=True)
class Journal:
    """The progress on disk; every change of it is durable before the call returns."""

    path: Path
    progress: Progress

    @classmethod
    def at(cls, path: Path, in_step: Mapping[str, Iterable[date]]) -> "Journal":
        """Go on from an attempt that was killed, or begin; runs may have ingested days since."""
        progress = msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()
        for table, days in in_step.items():
            progress.in_step[table] = sorted({*progress.in_step.get(table, []), *days})
        journal = cls(path, progress)
        journal._save()
        return journal

    def touch(self, table: str, rows: Mapping[Partition, int]) -> None:
        """Note partitions, and how many of their rows go, before they change."""
        progress = self.progress
        progress.touched[table] = list(dict.fromkeys([*progress.touched.get(table, []), *rows]))
        noted = progress.rows.setdefault(table, {})
        for (day, stage), number in rows.items():
            # A second attempt finds fewer, unless another run has written some of them again.
            name = f"{day} {stage or ''}".strip()
            noted[name] = max(noted.get(name, 0), number)
        self._save()

    def note_version(self, version: ErasedVersion) -> None:
        """Note a version before it changes."""
        self.progress.versions[version.tag] = version.after(self.progress.versions.get(version.tag))
        self._save()

    def note_scores(self, sha256: str, rows: int) -> None:
        """Note how many rows a file of scores is about to lose."""
        self.progress.scores[sha256] = rows
        self._save()

    def count_rows(self, table: str) -> int:
        """Return how many rows were erased from a table."""
        return sum(self.progress.rows.get(table, {}).values())

    def count(self, kind: str, place: str, number: int) -> None:
        """Add to what went from a place, when it is gone."""
        counts = Counter(self.progress.counts.get(kind, {}))
        counts[place] += number
        self.progress.counts[kind] = dict(counts)
        self._save()

    def close(self) -> None:
        """Delete the journal: the receipt is written."""
        self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        replace_file(self.path, msgspec.json.encode(self.progress))
