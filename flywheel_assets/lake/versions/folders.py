"""Names the folders of gold versions, reads and writes their pin and promotion, and follows the promotions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.errors import DamagedFileError, UnknownNameError
from flywheel_assets.lake.storage.files import decode_file, write_once
from flywheel_assets.promotion.text_limits import Route

TRAINING_REPORT = "training.json"
"""Every trainer's report, within its result."""
_VERSION = re.compile(r"^[a-z][a-z0-9_]*_gold_v([1-9][0-9]*)\Z")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Names the snapshots and days of which a version consists, before anything is resolved."""

    version: str
    snapshot_id: int
    """Of the gold table."""
    days: dict[str, str]
    """Closed day → content hash of its gold partition."""
    exclusions: list[str] = []
    """Ids of the exclusions in force when it was pinned: the rows they cover are left out."""
    also_read: dict[str, int | None] = {}
    """Snapshot of each other table whose rows are read, for instance to be judged on; null: it was empty."""
    schema_version: int = 1

    @property
    def dates(self) -> list[date]:
        """The closed days, ascending."""
        return sorted(map(date.fromisoformat, self.days))


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """Records the decision about the model of one gold version, and its grounds."""

    version: str
    promoted: bool
    sentence: str
    """One sentence why or why not, with the numbers."""
    champion_before: str | None
    """Gold version of the champion it was scored against; None: the base model."""
    checks: list[dict[str, Any]]
    announced: list[str] = []
    """The messages that the serving side got."""
    threshold: float | None = None
    """Score from which the model alerts once it serves, derived for it; None: it alerts on no score."""
    route: str | None = None
    """Of a text model's promotion: "proven_gain" or "newer_data"; None: decided before there were routes."""
    measure: str | None = None
    """By which a text model was promoted: "likelihood", "sampled_answers", "judge" or "distance"."""
    look: int | None = None
    """Number of this test among those of challengers to `champion_before`; None: nothing was tested."""
    alpha: float | None = None
    """Level of this test, as the look leaves it: with the evaluation's report, the decision can be computed again."""
    anchor: str | None = None
    """Gold version that a promotion by newer data was held against besides the champion."""
    schema_version: int = 1


@dataclass(frozen=True)
class VersionFolder:
    """Holds everything that belongs to one gold version, and shows how far it has come."""

    path: Path

    @property
    def version(self) -> str:
        """The version's name."""
        return self.path.name

    @property
    def pin(self) -> Path:
        """The file that names the snapshot and the days of the version."""
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
    def folds(self) -> Path:
        """The results of a cross-fit's trainings but the deployed model's: `fold_1` and so on, each whole or absent."""
        return self.path / "folds"

    def fold(self, number: int) -> Path:
        """The result of the training of one fold, counted from 1."""
        return self.folds / f"fold_{number}"

    @property
    def evaluation(self) -> Path:
        """The evaluation's result; exists only when it succeeded."""
        return self.path / "evaluation"

    @property
    def promotion(self) -> Path:
        """The decision; exists only when the version is finished."""
        return self.path / "promotion.json"

    @property
    def training_report(self) -> Path:
        """The trainer's report; exists only when the training succeeded."""
        return self.training / TRAINING_REPORT

    @property
    def is_trained(self) -> bool:
        """A training on this version succeeded."""
        return self.training_report.exists()

    @property
    def is_finished(self) -> bool:
        """The promotion of the version's model is decided."""
        return self.promotion.exists()

    @property
    def undone(self) -> Path:
        """The mark of the rollback that took gold back behind this version; exists only after one."""
        return self.path / "rolled_back.json"


@dataclass(frozen=True)
class Versions:
    """Lists all gold versions of one application."""

    root: Path
    application: str

    def folder(self, version: str) -> VersionFolder:
        """Return the folder of one version, existing or not.

        Raises:
            UnknownNameError: `version` is no version's name.
        """
        if not _VERSION.match(version):
            raise UnknownNameError("gold version", version, ["<word>_gold_v<N>"])
        return VersionFolder(self.root / self.application / version)

    def __iter__(self) -> Iterator[VersionFolder]:
        """Iterate over every version that was ever begun, oldest first."""
        parent = self.root / self.application
        names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        return iter([self.folder(name) for name in sorted(filter(_VERSION.match, names), key=parse_version_number)])

    def find_last_trained(self) -> VersionFolder | None:
        """Find the newest version with a successful training, behind which gold was not rolled back."""
        trained = (folder for folder in reversed(list(self)) if folder.is_trained and not folder.undone.exists())
        return next(trained, None)


def parse_version_number(version: str) -> int:
    """Return the N of `<word>_gold_v<N>`; 0 for anything else."""
    match = _VERSION.match(version)
    return int(match[1]) if match else 0


def read_pin(folder: VersionFolder) -> Pin:
    """Read the pin of a version.

    Raises:
        DamagedFileError: it is damaged or gone.
    """
    way_back = (
        "it names the snapshot and the days of the version. Where the version has an export, `flywheel fsck --repair` "
        "writes it again from the manifest; else restore it from a backup, or `flywheel abandon "
        f"{folder.version} --reason … --yes`."
    )
    try:
        return decode_file(folder.pin, Pin, way_back)
    except FileNotFoundError:
        raise DamagedFileError(f"{folder.pin} is missing: {way_back}") from None


def encode_pin(pin: Pin) -> bytes:
    """Return the bytes of a pin's file."""
    return msgspec.json.format(msgspec.json.encode(pin))


def record_promotion(path: Path, promotion: Promotion) -> Promotion:
    """Write the decision once; return the one that holds."""
    write_once(path, msgspec.json.format(msgspec.json.encode(promotion)))
    return read_promotion(path)


def read_promotion(path: Path) -> Promotion:
    """Read a decision.

    Raises:
        UnknownNameError: nothing was decided yet.
        DamagedFileError: it is damaged.
    """
    if not path.exists():
        raise UnknownNameError("promotion decision", str(path), [], "Materialize promotion for this version first.")
    version = path.parent.name
    way_back = (
        f"it is the decision about {version}. Restore it from a backup; else move the file away and `flywheel retry "
        f"{version}`, which decides again from the evaluation."
    )
    return decode_file(path, Promotion, way_back)


def count_looks(versions: Versions, challenger: VersionFolder | None, champion: str | None) -> int:
    """Count this and every earlier test of a challenger since the last proven gain, so that they share one α.

    A promotion by newer data changes the champion and proves no gain: the tests before it count on. Without a
    challenger it is the test of a version that is cut next.
    """
    champions = {champion}
    if champion is not None:
        champions.update(_list_champions_since_gain(versions, versions.folder(champion)))
    own = challenger.version if challenger else None
    others = (folder for folder in versions if folder.is_finished and folder.version != own)
    decided = (read_promotion(folder.promotion) for folder in others)
    return 1 + sum(each.champion_before in champions and each.look is not None for each in decided)


def find_anchor(versions: Versions, champion: VersionFolder) -> VersionFolder | None:
    """Find the version that was promoted last by a proven gain, from the champion backwards.

    Promotions by newer data are held against it, so that their margins do not add up from version to version. None: its
    adapter was removed; then only a proven gain is promoted.
    """
    found = versions.folder(_list_champions_since_gain(versions, champion)[-1])
    return found if found == champion or found.is_trained else None


def _list_champions_since_gain(versions: Versions, champion: VersionFolder) -> list[str]:
    """List the champions from this one back to the last that was promoted by a proven gain."""
    found = [champion.version]
    while champion.is_finished:
        promotion = read_promotion(champion.promotion)
        if promotion.route != Route.NEWER_DATA or promotion.champion_before is None:
            break
        champion = versions.folder(promotion.champion_before)
        found.append(champion.version)
    return found


def find_last_promoted(versions: Versions) -> VersionFolder | None:
    """Find the newest version that was promoted and not rolled back: the champion, unless a person moved the alias."""
    for folder in reversed(list(versions)):
        if folder.is_finished and not folder.undone.exists() and read_promotion(folder.promotion).promoted:
            return folder
    return None
