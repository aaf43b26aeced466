"""The folders of gold versions: what lies in each, and which versions there are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.versions.pins import (
    Pin,
)

_VERSION = re.compile(r"^[a-z][a-z0-9_]*_gold_v([1-9][0-9]*)\Z")


@dataclass(frozen=True)
class VersionFolder:
    """Everything that belongs to one gold version, and how far it has come."""

    path: Path

    @property
    def version(self) -> str:
        """The version's name."""
        return self.path.name

    @property
    def pin(self) -> Path:
        """Which snapshot and days the version consists of."""
        return self.path / "pin.json"

    @property
    def export(self) -> Path:
        """The exported rows and their manifest, in their newest revision: an erasure writes `export.r2` and so on."""
        revisions = [path for path in self.path.glob("export.r*") if path.suffix[2:].isdigit()]
        return max(revisions, key=lambda path: int(path.suffix[2:]), default=self.path / "export")

    @property
    def training(self) -> Path:
        """The trainer's result; exists only when the training succeeded."""
        return self.path / "training"

    @property
    def evaluation(self) -> Path:
        """The evaluation's result; exists only when it succeeded."""
        return self.path / "evaluation"

    @property
    def promotion(self) -> Path:
        """The decision; exists only when the version is finished."""
        return self.path / "promotion.json"

    @property
    def is_trained(self) -> bool:
        """A training on this version succeeded."""
        return (self.training / "training.json").exists()

    @property
    def is_finished(self) -> bool:
        """It was decided whether its model is promoted."""
        return self.promotion.exists()

    @property
    def undone(self) -> Path:
        """Which rollback took the gold table back behind this version; exists only where one did."""
        return self.path / "rolled_back.json"


@dataclass(frozen=True)
class Versions:
    """All gold versions of one application."""

    root: Path
    application: str

    def folder(self, version: str) -> VersionFolder:
        """The folder of one version, existing or not.

        Raises:
            UnknownNameError: `version` is no version's name.
        """
        if not _VERSION.match(version):
            raise UnknownNameError("gold version", version, ["<word>_gold_v<N>"])
        return VersionFolder(self.root / self.application / version)

    def __iter__(self) -> Iterator[VersionFolder]:
        """Every version that was ever begun, oldest first."""
        parent = self.root / self.application
        names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        return iter([self.folder(name) for name in sorted(filter(_VERSION.match, names), key=version_number)])

    def last_trained(self) -> VersionFolder | None:
        """The newest version on which a training succeeded, and behind which gold was not rolled back."""
        trained = (folder for folder in reversed(list(self)) if folder.is_trained and not folder.undone.exists())
        return next(trained, None)


def version_number(version: str) -> int:
    """The N of `<word>_gold_v<N>`; 0 for anything else."""
    match = _VERSION.match(version)
    return int(match[1]) if match else 0


def read_pin(folder: VersionFolder) -> Pin:
    """What a version was pinned to."""
    return msgspec.json.decode(folder.pin.read_bytes(), type=Pin)
