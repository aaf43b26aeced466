"""Gold versions: `dpo_gold_v<N>` is a tag on the gold table, resolved once and exported.

    <versions_dir>/<application>/dpo_gold_v<N>/
        pin.json        which snapshot and which closed days the version consists of; written first, never changed
        export/         what is trained and evaluated on, sealed by a manifest (see `lake.exports`)
        training/       the trainer's result
        evaluation/     the scores
        promotion.json  the decision; with it the version is finished

Cutting a version is three steps, each of which a repeated run finds done or does: pin, tag, export. What the version
holds is decided by the pin alone, so a crash between any two of them changes nothing. A pin with nothing to train on is
taken back before anything is tagged.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.resolution import ResolutionRules, resolve
from flywheel_assets.errors import EmptyVersionError, UnknownNameError, VersionConflictError
from flywheel_assets.lake import ledger
from flywheel_assets.lake.exports import (
    ExportedRow,
    ExportSet,
    Manifest,
    read_manifest,
    read_rows,
    verify_manifest,
    write_export,
)
from flywheel_assets.lake.files import write_once
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, Lake

VERSION_PREFIX = "dpo_gold_v"
_TEXTS = ("prompt", "chosen", "rejected")
"""What no decision of resolution looks at, and nearly all of gold's bytes."""
_VERSION = re.compile(rf"^{VERSION_PREFIX}([1-9][0-9]*)\Z")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What a version consists of, before anything is resolved."""

    version: str
    snapshot_id: int
    days: dict[str, str]
    """Closed day → content hash of its gold partition."""


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
        """The exported rows and their manifest."""
        return self.path / "export"

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
            raise UnknownNameError("gold version", version, [f"{VERSION_PREFIX}<N>"])
        return VersionFolder(self.root / self.application / version)

    def __iter__(self) -> Iterator[VersionFolder]:
        """Every version that was ever begun, oldest first."""
        parent = self.root / self.application
        names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        return iter([self.folder(name) for name in sorted(filter(_VERSION.match, names), key=version_number)])

    def last_trained(self) -> VersionFolder | None:
        """The newest version on which a training succeeded."""
        return next((folder for folder in reversed(list(self)) if folder.is_trained), None)


def version_number(version: str) -> int:
    """The N of `dpo_gold_v<N>`; 0 for anything else."""
    match = _VERSION.match(version)
    return int(match[1]) if match else 0


def tagged_versions(lake: Lake) -> dict[str, int]:
    """Every gold version that is a tag in the lake, with its snapshot id."""
    references = lake.table(CURATED_DPO_PAIRS).metadata.refs
    return {name: reference.snapshot_id for name, reference in references.items() if _VERSION.match(name)}


def cut_version(lake: Lake, versions: Versions, version: str, rules: ResolutionRules, code_version: str) -> Manifest:
    """Pin the gold table's closed days under `version`, resolve and export them; a repeated cut verifies and returns.

    Raises:
        EmptyVersionError: no closed day holds anything to train on.
        VersionConflictError: the tag or the export exists with other content.
    """
    folder = versions.folder(version)
    pin = _pin(lake, folder)
    if folder.export.exists():
        _tag(lake, pin)
        return _verified(folder, pin)
    resolution = resolve(_rows_of_days(lake, pin.days, pin.snapshot_id), rules)
    if not resolution.train.num_rows:
        if version not in tagged_versions(lake):
            # Nothing was begun: the same name may be cut again when there is something to train on.
            folder.pin.unlink()
        raise EmptyVersionError(f"{version} has no training pair in {len(pin.days)} closed days: nothing to train on")
    _tag(lake, pin)
    return write_export(
        folder.export,
        version=version,
        application=lake.application,
        snapshot_id=pin.snapshot_id,
        rows={
            ExportSet.TRAIN: exported_rows(resolution.train),
            ExportSet.ACCEPTED: exported_rows(resolution.accepted),
            ExportSet.HOLDOUT: exported_rows(resolution.holdout),
            ExportSet.REGRESSION: exported_rows(resolution.regression),
        },
        dropped=resolution.dropped,
        days=pin.days,
        rules=asdict(rules),
        code_version=code_version,
    )


def _verified(folder: VersionFolder, pin: Pin) -> Manifest:
    """An export that exists is checked, not made again: later rules or code would resolve the same pin differently."""
    manifest = verify_manifest(folder.export)
    if (manifest.snapshot_id, manifest.days) != (pin.snapshot_id, pin.days):
        raise VersionConflictError(
            f"the export of {folder.version} was made from snapshot {manifest.snapshot_id} and {len(manifest.days)} "
            f"days, its pin says {pin.snapshot_id} and {len(pin.days)}. Versions never change: cut a new one."
        )
    return manifest


def pair_ids_to_train_now(lake: Lake, rules: ResolutionRules, days: Iterable[date]) -> set[str]:
    """The pairs that a version cut now over the closed days `days` would train on; reads no text."""
    narrow = [name for name in records.CURATED_DPO_PAIRS.names if name not in _TEXTS]
    gold = lake.read(CURATED_DPO_PAIRS, days, narrow)
    for name in _TEXTS:
        gold = gold.append_column(name, pa.repeat("", len(gold)))
    return set(resolve(gold, rules).train["pair_id"].to_pylist())


def trained_pair_ids(folder: VersionFolder) -> set[str]:
    """The pairs that a version's training file holds."""
    manifest = read_manifest(folder.export)
    return {row.pair_id for row in read_rows(folder.export, manifest, ExportSet.TRAIN)}


def exported_rows(rows: pa.Table) -> list[ExportedRow]:
    """Gold rows as an export writes them, in the table's order."""
    columns = [name for name in ExportedRow.__struct_fields__ if name != "completed_date"]
    dates = (day.isoformat() for day in rows["completed_date"].to_pylist())
    values = rows.select(columns).to_pylist()
    return [ExportedRow(completed_date=day, **row) for day, row in zip(dates, values, strict=True)]


def _pin(lake: Lake, folder: VersionFolder) -> Pin:
    if not folder.pin.exists():
        # In this order a day that is curated in between is left to the next version, not taken for covered.
        days = ledger.closed_days(lake, CURATED_DPO_PAIRS.name)
        snapshot = lake.table(CURATED_DPO_PAIRS).current_snapshot()
        if snapshot is None or not days:
            raise EmptyVersionError(
                f"{folder.version}: gold has no closed day yet. A day closes when it is materialized "
                "later than 15 minutes after its end (UTC)."
            )
        pin = Pin(
            version=folder.version,
            snapshot_id=snapshot.snapshot_id,
            days={day.isoformat(): content for day, content in days.items()},
        )
        write_once(folder.pin, msgspec.json.format(msgspec.json.encode(pin)))
    # Two cuts at once: the pin that was written first is the one that holds for both.
    return msgspec.json.decode(folder.pin.read_bytes(), type=Pin)


def _tag(lake: Lake, pin: Pin) -> None:
    """Tag the pinned snapshot under the lock; pyiceberg would silently move an existing tag, so that is refused."""
    table = lake.table(CURATED_DPO_PAIRS)
    with lake.locked(CURATED_DPO_PAIRS):
        table.refresh()
        existing = table.metadata.refs.get(pin.version)
        if existing is None:
            # In a commit of its own: a tag that shares a transaction with an append is lost when that is retried.
            table.manage_snapshots().create_tag(pin.snapshot_id, pin.version).commit()
        elif existing.snapshot_id != pin.snapshot_id:
            raise VersionConflictError(
                f"the tag {pin.version} points to snapshot {existing.snapshot_id}, this cut was pinned to "
                f"{pin.snapshot_id}. Versions never move: cut a new one."
            )


def _rows_of_days(lake: Lake, days: Mapping[str, str], snapshot_id: int) -> pa.Table:
    return lake.read(CURATED_DPO_PAIRS, [date.fromisoformat(day) for day in days], snapshot_id=snapshot_id)
