"""Summarizes gold versions and compares two of them, from files and never from Dagster."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import DamagedFileError, UnknownNameError
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.storage.files import decode_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, hash_manifest, read_manifest
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, parse_version_number, read_promotion

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class VersionSummary:
    """Describes one version as `flywheel gold` shows it."""

    version: str
    snapshot_id: int | None
    """The snapshot of its tag; None: it was never tagged."""
    manifest: Manifest | None
    """None: it was never exported."""
    manifest_sha256: str | None
    trained: str | None
    """sha256 of the model that was trained from it."""
    promoted: bool | None
    """None: not decided."""
    decision: str | None
    is_undone: bool
    """The gold table was rolled back behind it."""
    damage: str | None = None
    """The sentence about a file of the version that cannot be read; the facts that it holds are None."""

    @property
    def rows(self) -> dict[str, int]:
        """Rows by exported set."""
        return {which.value: file.rows for which, file in self.manifest.files.items()} if self.manifest else {}


def summarize_versions(lake: Lake, versions: Versions, gold: TableSpec) -> list[VersionSummary]:
    """Summarize every version that was ever begun or tagged, oldest first."""
    tagged = list_tags(lake, gold)
    names = {folder.version for folder in versions} | {name for name in tagged if parse_version_number(name)}
    return [
        _summarize_folder(versions.folder(name), tagged.get(name)) for name in sorted(names, key=parse_version_number)
    ]


def find_summary(lake: Lake, versions: Versions, gold: TableSpec, version: str) -> VersionSummary:
    """Find the summary of one version.

    Raises:
        UnknownNameError: it was never begun; the message lists the versions that were.
    """
    known = {summary.version: summary for summary in summarize_versions(lake, versions, gold)}
    if version not in known:
        raise UnknownNameError("gold version", version, known)
    return known[version]


def _summarize_folder(folder: VersionFolder, snapshot_id: int | None) -> VersionSummary:
    exported = (folder.export / "manifest.json").exists()
    damages: list[str] = []

    def read(is_there: bool, reader: Callable[[Path], _Read], path: Path) -> _Read | None:
        """Read one of the version's files; one that is damaged hides neither the others nor other versions."""
        try:
            return reader(path) if is_there else None
        except DamagedFileError as error:
            damages.append(str(error))
            return None

    manifest = read(exported, read_manifest, folder.export)
    decision = read(folder.is_finished, read_promotion, folder.promotion)
    return VersionSummary(
        version=folder.version,
        snapshot_id=snapshot_id,
        manifest=manifest,
        manifest_sha256=hash_manifest(folder.export) if exported else None,
        trained=read(folder.is_trained, _read_model_sha256, folder.training_report),
        promoted=decision.promoted if decision else None,
        decision=decision.sentence if decision else None,
        is_undone=folder.undone.exists(),
        damage=" ".join(damages) or None,
    )


class _Trained(msgspec.Struct):
    adapter_sha256: str | None = None
    model_sha256: str | None = None


def _read_model_sha256(report: Path) -> str:
    way_back = (
        "it is the trainer's report. Restore it from a backup; else move the version's folder `training` away and "
        f"`flywheel retry {report.parent.parent.name}`, which trains again."
    )
    trained = decode_file(report, _Trained, way_back)
    return trained.adapter_sha256 or trained.model_sha256 or "unknown"


@dataclass(frozen=True)
class SetDifference:
    """Counts the differences of one exported set, by the rows' key."""

    added: int
    removed: int
    changed: int
    """Same key, other content."""
    kept: int


@dataclass(frozen=True)
class VersionDifference:
    """Lists the differences between a first and a second version."""

    sets: Mapping[str, SetDifference]
    dropped: Mapping[str, tuple[int, int]]
    """By reason, in the first and in the second, where they differ."""
    days_added: list[str] = field(default_factory=list)
    days_removed: list[str] = field(default_factory=list)
    days_changed: list[str] = field(default_factory=list)
    exclusions_added: Mapping[str, str] = field(default_factory=dict)
    exclusions_removed: Mapping[str, str] = field(default_factory=dict)
    rules_changed: Mapping[str, tuple[object, object]] = field(default_factory=dict)


def compare_versions(first: VersionFolder, second: VersionFolder) -> VersionDifference:
    """Compare two exported versions; rows are compared by key and content hash, in DuckDB, in bounded memory.

    Raises:
        UnknownNameError: one of them was never exported.
    """
    old, new = read_manifest(first.export), read_manifest(second.export)
    with _open_files(first, old, "old") as connection:
        _register_files(connection, second, new, "new")
        sets = {
            which.value: _count_differences(connection, which)
            for which in ExportSet
            if which in old.files or which in new.files
        }
    reasons = sorted({*old.dropped, *new.dropped})
    return VersionDifference(
        sets=sets,
        dropped={
            reason: (old.dropped.get(reason, 0), new.dropped.get(reason, 0))
            for reason in reasons
            if old.dropped.get(reason, 0) != new.dropped.get(reason, 0)
        },
        days_added=sorted(new.days.keys() - old.days.keys()),
        days_removed=sorted(old.days.keys() - new.days.keys()),
        days_changed=sorted(day for day in old.days.keys() & new.days.keys() if old.days[day] != new.days[day]),
        exclusions_added={key: new.exclusions[key] for key in new.exclusions.keys() - old.exclusions.keys()},
        exclusions_removed={key: old.exclusions[key] for key in old.exclusions.keys() - new.exclusions.keys()},
        rules_changed={
            name: (old.rules.get(name), new.rules.get(name))
            for name in sorted({*old.rules, *new.rules})
            if old.rules.get(name) != new.rules.get(name)
        },
    )


@contextmanager
def _open_files(folder: VersionFolder, manifest: Manifest, prefix: str) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        _register_files(connection, folder, manifest, prefix)
        yield connection


def _register_files(
    connection: duckdb.DuckDBPyConnection, folder: VersionFolder, manifest: Manifest, prefix: str
) -> None:
    for which in ExportSet:
        name = f"{prefix}_{which.value}"
        if which not in manifest.files:
            connection.execute(f"CREATE TEMP VIEW {name} AS SELECT '' AS key, '' AS content WHERE false")
            continue
        path = folder.export / manifest.files[which].name
        connection.execute(f"CREATE TEMP VIEW {name} AS {write_keyed_rows_sql(path)}")


def write_keyed_rows_sql(path: Path) -> str:
    """Write SQL for the rows of one exported file as (key, content).

    The key names the example, the content is a hash of the row without the columns that depend on the version's last
    day only: each version would count as changing every evaluation row.
    """
    if path.suffix == ".parquet":
        rows = f"SELECT COLUMNS(lambda name: name NOT IN ('week', 'known_share')) FROM read_parquet({quote(str(path))})"
        return f"SELECT prediction_id AS key, md5(to_json(r)::VARCHAR) AS content FROM ({rows}) r"
    objects = f"read_ndjson_objects({quote(str(path))}, maximum_object_size = {64 * 2**20})"
    return f"SELECT json ->> '$.pair_id' AS key, md5(json::VARCHAR) AS content FROM {objects}"


def _count_differences(connection: duckdb.DuckDBPyConnection, which: ExportSet) -> SetDifference:
    found = connection.execute(
        "SELECT count(*) FILTER (o.key IS NULL), count(*) FILTER (n.key IS NULL), "
        "count(*) FILTER (o.content <> n.content), count(*) FILTER (o.content = n.content) "
        f"FROM old_{which.value} o FULL JOIN new_{which.value} n ON o.key = n.key"
    ).fetchone()
    assert found is not None
    return SetDifference(*found)


def require_manifest(summary: VersionSummary) -> Manifest:
    """Return the manifest of a version.

    Raises:
        UnknownNameError: it was never exported.
        DamagedFileError: its manifest is damaged.
    """
    if summary.manifest is None and summary.damage is not None:
        raise DamagedFileError(summary.damage)
    if summary.manifest is None:
        raise UnknownNameError("export", summary.version, [], "Its run has not got that far: `flywheel retry` it.")
    return summary.manifest
