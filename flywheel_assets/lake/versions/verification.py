"""Verifies every gold version against its manifest, files, pin, tag and gold table (`flywheel verify`).

The findings hold no user text, so that asset checks may show them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.curation.texts.resolution import find_folds
from flywheel_assets.errors import FlywheelError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exclusions import find_exclusions, write_excluded_sql
from flywheel_assets.lake.versions.exports import (
    FOLDS,
    HELD_OUT,
    LEARNT,
    ExportSet,
    Manifest,
    count_folds,
    list_reused_sets,
    verify_manifest,
)
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, parse_version_number, read_pin
from flywheel_assets.lake.versions.trainability import UNTRAINABLE_REASONS

_LONGEST_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Verification:
    """Counts the verified versions and lists their differences."""

    versions: int
    differences: tuple[str, ...]
    """One sentence each, led by the version's name."""


def verify_versions(lake: Lake, versions: Versions, gold: TableSpec) -> Verification:
    """Verify every exported version, and that every tag of a version has one."""
    exported = [folder for folder in versions if folder.export.exists()]
    tagged = list_tags(lake, gold)
    found = [
        f"{folder.version}: {difference}"
        for folder in exported
        for difference in verify_readable(lake, gold, folder, tagged.get(folder.version))
    ]
    known = {folder.version for folder in exported}
    # A cut tags before it exports: an export is missing only from a version that was trained or decided.
    begun = {folder.version for folder in versions if folder.is_trained or folder.is_finished}
    lost = sorted(name for name in tagged if parse_version_number(name) and name in begun and name not in known)
    return Verification(len(exported), (*found, *(f"{name}: its export is missing" for name in lost)))


def verify_readable(lake: Lake, gold: TableSpec, folder: VersionFolder, tag_snapshot: int | None) -> Iterator[str]:
    """Verify one version; a file that cannot be read is a difference of this version, and hides no other."""
    try:
        yield from verify_version(lake, gold, folder, tag_snapshot)
    except (FlywheelError, OSError, duckdb.Error, pa.ArrowException) as error:
        if isinstance(error, FlywheelError) and error.is_transient:
            raise
        # A library's message may quote rows, which are users'.
        yield (
            str(error)
            if isinstance(error, FlywheelError)
            else (f"its rows cannot be read ({type(error).__name__}): `flywheel fsck` names the damaged file")
        )


def verify_version(lake: Lake, gold: TableSpec, folder: VersionFolder, tag_snapshot: int | None) -> Iterator[str]:
    """Find the differences of one version, as sentences; stop at damage that makes the rest unreadable."""
    try:
        manifest = verify_manifest(folder.export)
    except FlywheelError as error:
        yield str(error)
        return
    except OSError as error:
        yield f"its manifest cannot be read: {type(error).__name__}"
        return
    if tag_snapshot is None:
        yield f"its tag is gone from {gold.name}"
        return
    if tag_snapshot != manifest.snapshot_id:
        yield f"its tag points to snapshot {tag_snapshot}, its manifest says {manifest.snapshot_id}"
        return
    pin = read_pin(folder)
    if (pin.snapshot_id, pin.days, sorted(pin.exclusions)) != (
        manifest.snapshot_id,
        manifest.days,
        sorted(manifest.exclusions),
    ):
        yield "its pin and its manifest name other snapshots, days or exclusions"
        return
    with lake.connect() as connection:
        for which, file in manifest.files.items():
            connection.execute(f"CREATE TEMP VIEW {which.value} AS {_write_rows_sql(folder.export / file.name)}")
        lake.register(connection, gold, pin.dates, view="gold", snapshot_id=manifest.snapshot_id)
        yield from _check_counts(connection, manifest)
        yield from _check_sides(connection, manifest)
        yield from _check_contents(connection, lake, gold, manifest)


def _list_gold_sets(manifest: Manifest) -> list[ExportSet]:
    """List the sets whose rows are gold rows and are not counted among the dropped.

    A classifier is judged on all predictions of later weeks, and several of its models share gold rows, as those of a
    cross-fit do.
    """
    others = (ExportSet.EVALUATION, ExportSet.UNTRAINABLE, *list_reused_sets(manifest))
    return [which for which in manifest.files if which not in others]


def _write_rows_sql(path: Path) -> str:
    """Write SQL for an exported file as (key, subject, text_hash, is_same); classification rows have no texts."""
    if path.suffix == ".parquet":
        return (
            "SELECT prediction_id AS key, NULL::VARCHAR AS subject, NULL::VARCHAR AS text_hash, false AS is_same "
            f"FROM read_parquet({quote(str(path))})"
        )
    columns = "{pair_id: 'VARCHAR', subject: 'VARCHAR', prompt: 'VARCHAR', chosen: 'VARCHAR', rejected: 'VARCHAR'}"
    return (
        f"SELECT pair_id AS key, subject, {_write_text_hash_sql('pair_id')} AS text_hash, "
        "coalesce(chosen = rejected, false) AS is_same "
        f"FROM read_ndjson({quote(str(path))}, columns = {columns}, maximum_object_size = {_LONGEST_LINE_BYTES})"
    )


def _write_text_hash_sql(key: str) -> str:
    return f"md5(concat_ws(chr(31), {key}, prompt, chosen, coalesce(rejected, chr(30))))"


def _read_number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])


def _check_counts(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Iterator[str]:
    for which, file in manifest.files.items():
        rows = _read_number(connection, f"SELECT count(*) FROM {which.value}")
        if rows != file.rows:
            yield f"{file.name} has {rows} rows, its manifest says {file.rows}"
        distinct = _read_number(connection, f"SELECT count(DISTINCT key) FROM {which.value}")
        if distinct != rows:
            yield f"{file.name} names {rows - distinct} examples twice"
    # An erasure removes rows from the table and from the files; `dropped` stays as it was before the erasure.
    accounted = sum(manifest.files[which].rows for which in _list_gold_sets(manifest)) + sum(manifest.dropped.values())
    for each in manifest.erasures:
        accounted += sum(each.rows_removed[which] for which in _list_gold_sets(manifest)) - each.gold_rows_removed
    in_gold = _read_number(connection, "SELECT count(*) FROM gold")
    if accounted != in_gold:
        yield f"{in_gold} rows were pinned, {accounted} are exported or left out for a reason"
    named = manifest.files[ExportSet.UNTRAINABLE].rows if ExportSet.UNTRAINABLE in manifest.files else 0
    named += sum(each.rows_removed.get(ExportSet.UNTRAINABLE, 0) for each in manifest.erasures)
    if named != (refused := sum(manifest.dropped.get(reason, 0) for reason in UNTRAINABLE_REASONS)):
        yield f"{refused} rows were refused by the tokenizer, {named} are named"


def _check_sides(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Iterator[str]:
    def union(sets: Sequence[ExportSet], column: str) -> str:
        there = [which.value for which in sets if which in manifest.files]
        return " UNION ALL ".join(f"SELECT {column} FROM {name}" for name in there) or f"SELECT '' AS {column} LIMIT 0"

    def find_subjects(sets: Sequence[ExportSet]) -> list[str]:
        query = f"SELECT DISTINCT subject FROM ({union(sets, 'subject')}) WHERE subject IS NOT NULL"
        return [subject for (subject,) in connection.execute(query).fetchall()]

    held_out = find_subjects(HELD_OUT)
    folds = count_folds(manifest)
    if folds is None:
        if both := len(set(find_subjects(LEARNT)).intersection(held_out)):
            yield f"{both} held-out subjects are in the training rows"
    else:
        own = find_folds(held_out, folds)
        for number, which in enumerate(FOLDS[:folds], start=1):
            of_fold = (subject for subject, fold in zip(held_out, own, strict=True) if fold == number)
            if both := len(set(find_subjects([which])).intersection(of_fold)):
                yield f"{both} subjects of {which.value} are in the rows that its model learns from"
    for which in manifest.files:
        same = _read_number(connection, f"SELECT count(*) FROM {which.value} WHERE is_same")
        if same:
            yield f"{same} pairs of {which.value} have the same chosen and rejected text"


def _check_contents(
    connection: duckdb.DuckDBPyConnection, lake: Lake, gold: TableSpec, manifest: Manifest
) -> Iterator[str]:
    covered = write_excluded_sql(gold, find_exclusions(lake, manifest.exclusions))
    for which in [*_list_gold_sets(manifest), *list_reused_sets(manifest)]:
        if "pair_id" in gold.schema.names:
            there = f"SELECT {_write_text_hash_sql('pair_id')} AS text_hash, {covered} AS is_excluded FROM gold"
            by = "text_hash"
        else:
            there = f"SELECT prediction_id AS key, {covered} AS is_excluded FROM gold"
            by = "key"
        # A row that an exclusion covers may have a twin that it does not: only rows without one are wrong.
        known = f"SELECT {by}, bool_and(is_excluded) AS is_excluded FROM ({there}) GROUP BY 1"
        unknown = _read_number(connection, f"SELECT count(*) FROM {which.value} ANTI JOIN ({known}) USING ({by})")
        if unknown:
            yield f"{unknown} rows of {which.value} are not in the pinned days of {gold.name}"
        out = _read_number(
            connection, f"SELECT count(*) FROM {which.value} JOIN ({known}) USING ({by}) WHERE is_excluded"
        )
        if out:
            yield f"{out} rows of {which.value} are excluded"
