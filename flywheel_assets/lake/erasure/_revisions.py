"""Writes a version's export without a person's rows, as a new revision with its own manifest.

    export/      dpo_gold_v6.jsonl …       becomes    export.r2/   dpo_gold_v6.r2.jsonl …

The new revision is prepared under a hidden name, so that an erasure can note its changes first. Then it appears by one
rename, and the old revision is deleted. The file names distinguish revisions in every place that has copies. The
manifest keeps the sha256 of its predecessor, so that a model trained from that one can still be found.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.storage.commits import verify_locks
from flywheel_assets.lake.storage.files import hash_file, make_hidden_path, replace_file, sync_folder, write_synced
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.exports import (
    MANIFEST_FILE,
    ExportedFile,
    ExportSet,
    Manifest,
    Revised,
    encode_manifest,
    hash_manifest,
    read_manifest,
)
from flywheel_assets.lake.versions.folders import VersionFolder
from flywheel_assets.lake.versions.summaries import write_keyed_rows_sql

_REVISION = re.compile(r"(\.r\d+)?(?=\.)")


@dataclass(frozen=True)
class PreparedRevision:
    """The next revision of an export, complete on disk under a hidden name."""

    revised: Revised
    manifest_sha256: str
    building: Path
    final: Path
    replaced: Path

    def publish(self) -> None:
        """Publish the revision by one rename, and delete the one before.

        Raises:
            LockLostError: a lock of the caller is lost; nothing has appeared.
        """
        verify_locks()
        os.rename(self.building, self.final)
        sync_folder(self.final.parent)
        shutil.rmtree(self.replaced)


def prepare_revision(
    lake: Lake, folder: VersionFolder, keys: set[str], snapshot_id: int, gold_rows_removed: int, erasure: str
) -> PreparedRevision:
    """Write the next revision of an export without the examples `keys`.

    Args:
        lake: for its DuckDB connections.
        folder: the version.
        keys: `pair_id` or `prediction_id` of the examples to delete.
        snapshot_id: the snapshot that the version's tag will point to.
        gold_rows_removed: rows that the pinned days of gold lose.
        erasure: id of the erasure.
    """
    old_folder = folder.export
    old = read_manifest(old_folder)
    revision = old.revision + 1
    final = folder.path / f"export.r{revision}"
    building = make_hidden_path(final)
    building.mkdir(parents=True)
    files: dict[ExportSet, ExportedFile] = {}
    for which, file in old.files.items():
        name = _REVISION.sub(f".r{revision}", file.name, count=1)
        rows = _write_without_keys(lake, old_folder / file.name, building / name, keys)
        size = (building / name).stat().st_size
        files[which] = ExportedFile(name=name, rows=rows, bytes=size, sha256=hash_file(building / name))
    revised = Revised(
        erasure=erasure,
        manifest_sha256_before=hash_manifest(old_folder),
        snapshot_id_before=old.snapshot_id,
        rows_removed={which: old.files[which].rows - file.rows for which, file in files.items()},
        gold_rows_removed=gold_rows_removed,
    )
    manifest: Manifest = msgspec.structs.replace(
        old, files=files, snapshot_id=snapshot_id, revision=revision, erasures=[*old.erasures, revised]
    )
    write_synced(building / MANIFEST_FILE, encode_manifest(manifest))
    sync_folder(building)
    return PreparedRevision(revised, hash_manifest(building), building, final, old_folder)


def count_exported_rows(lake: Lake, folder: VersionFolder, keys: set[str]) -> int:
    """Count the exported rows of these examples."""
    with lake.connect() as connection:
        connection.register("gone", pa.table({"key": pa.array(sorted(keys), pa.string())}))
        found = 0
        for file in read_manifest(folder.export).files.values():
            rows = (
                f"SELECT count(*) FROM ({write_keyed_rows_sql(folder.export / file.name)}) SEMI JOIN gone USING (key)"
            )
            found += sum(number for (number,) in connection.execute(rows).fetchall())
    return found


def drop_older_revisions(folder: VersionFolder) -> None:
    """Delete revisions before the newest, which a crash after its rename may have left."""
    newest = folder.export
    for path in folder.path.glob("export*"):
        if path != newest and path.is_dir():
            shutil.rmtree(path)


def erase_scored_rows(
    lake: Lake, folder: VersionFolder, keys: set[str], user_id: str, on_changing: Callable[[str, int], None]
) -> None:
    """Remove a person's rows from a version's per-row scores, and reseal the reports on them.

    Args:
        lake: for its DuckDB connections.
        folder: the version.
        keys: `pair_id` or `prediction_id` of the examples to delete.
        user_id: the person.
        on_changing: called with each file's sha256 and the number of rows that it is about to lose.
    """
    for place in (folder.evaluation, folder.training, *sorted(folder.folds.glob("fold_*"))):
        for left in place.glob(".*.parquet.*"):
            _finish_or_delete(left)
        for path in sorted(place.glob("*.parquet")):
            names = set(pq.read_schema(path).names)
            column = next((name for name in ("pair_id", "prediction_id") if name in names), None)
            if column is None and "subject" not in names:
                continue
            building = make_hidden_path(path)
            after = _write_kept_parquet(lake, path, building, column, keys, user_id if "subject" in names else None)
            before = pq.read_metadata(path).num_rows
            if after == before:
                building.unlink()
                continue
            sha256 = hash_file(path)
            on_changing(sha256, before - after)
            # The reports change first: after a crash in between they name the hidden file, and the next run puts it
            # in place.
            for report in place.glob("*.json"):
                replace_file(report, report.read_bytes().replace(sha256.encode(), hash_file(building).encode()))
            os.replace(building, path)
            sync_folder(place)


def _finish_or_delete(left: Path) -> None:
    """Put a killed run's file of scores in place if a report seals it already; otherwise delete it.

    No reader opens it, and it may contain rows of any person.
    """
    sha256 = hash_file(left).encode()
    if any(sha256 in report.read_bytes() for report in left.parent.glob("*.json")):
        os.replace(left, left.with_name(left.name.removeprefix(".").rpartition(".")[0]))
    else:
        left.unlink()


def _write_without_keys(lake: Lake, path: Path, target: Path, keys: set[str]) -> int:
    if path.suffix == ".parquet":
        return _write_kept_parquet(lake, path, target, "prediction_id", keys, None)
    decoder = msgspec.json.Decoder(_Key)
    rows = 0
    with open(path, "rb") as lines, open(target, "wb") as kept:
        for line in lines:
            if decoder.decode(line).pair_id not in keys:
                kept.write(line)
                rows += 1
        kept.flush()
        os.fsync(kept.fileno())
    return rows


class _Key(msgspec.Struct):
    pair_id: str


def _write_kept_parquet(
    lake: Lake, path: Path, target: Path, column: str | None, keys: set[str], subject: str | None
) -> int:
    conditions = []
    with lake.connect(keeps_order=True) as connection:
        connection.register("gone", pa.table({"key": pa.array(sorted(keys), pa.string())}))
        if column is not None:
            conditions.append(f"{column} IN (SELECT key FROM gone)")
        if subject is not None:
            conditions.append(f"subject = {quote(subject)}")
        where = f"NOT coalesce({' OR '.join(conditions)}, false)"
        source = f"read_parquet({quote(str(path))})"
        connection.execute(
            f"COPY (SELECT * FROM {source} WHERE {where}) TO {quote(str(target))} (FORMAT parquet, COMPRESSION zstd)"
        )
    with open(target, "rb") as written:
        os.fsync(written.fileno())
    return int(pq.read_metadata(target).num_rows)
