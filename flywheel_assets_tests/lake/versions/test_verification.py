"""`verify`: each way in which a version can stop being what it says, made one at a time."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets.lake.versions.exports import (
    ExportedFile,
    ExportedRow,
    ExportSet,
    build_json_lines_writer,
    encode_manifest,
    read_manifest,
    read_rows,
)
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.builders import APPLICATION, DAY, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench

VERSION = "dpo_gold_v1"
GOLD = CURATED_DPO_PAIRS
Rows = dict[ExportSet, list[ExportedRow]]


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    """One version with every set filled, of which one user was excluded."""
    versions = Versions(bench.root / "versions", APPLICATION)
    write_gold(bench, DAY, 40)
    rows = bench.rows(GOLD)
    accepted = [make_gold(example_kind="accepted_output", subject=f"fan {number}") for number in range(40)]
    bench.write(GOLD, DAY, [*rows, *accepted])
    now = datetime(2026, 11, 21, tzinfo=UTC)
    exclude_rows(bench.lake, ExclusionRule(user_id=f"user {DAY} 0"), who="ada", reason="r", now=now)
    cut_pair_version(bench.lake, versions, VERSION, ResolutionRules(holdout_share=0.3), "1")
    return versions


def differences(bench: Workbench, versions: Versions) -> str:
    return "\n".join(verify_versions(bench.lake, versions, GOLD).differences)


def rewrite(versions: Versions, change: Callable[[Rows], object]) -> None:
    """Change an export and seal it anew, as somebody would who wants the manifest to hold."""
    folder = versions.folder(VERSION).export
    manifest = read_manifest(folder)
    rows = {which: read_rows(folder, manifest, which) for which in manifest.files}
    change(rows)
    files = build_json_lines_writer(VERSION, [(which, row) for which in rows for row in rows[which]])(folder)
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))


def test_a_version_as_it_was_cut_is_in_order(bench: Workbench, versions: Versions) -> None:
    manifest = read_manifest(versions.folder(VERSION).export)
    empty = {which for which, file in manifest.files.items() if not file.rows}
    assert empty == {ExportSet.DEMONSTRATIONS, ExportSet.OBJECTIONS}
    assert manifest.dropped["excluded"] == 1
    found = verify_versions(bench.lake, versions, GOLD)
    assert (found.versions, found.differences) == (1, ())


def moved(rows: Rows) -> None:
    rows[ExportSet.TRAIN].append(rows[ExportSet.HOLDOUT].pop())
    rows[ExportSet.TRAIN].append(
        msgspec.structs.replace(rows[ExportSet.TRAIN][0], subject=rows[ExportSet.HOLDOUT][0].subject)
    )


def doubled(rows: Rows) -> None:
    rows[ExportSet.TRAIN].append(rows[ExportSet.TRAIN][0])


def same_texts(rows: Rows) -> None:
    first = rows[ExportSet.TRAIN][0]
    rows[ExportSet.TRAIN][0] = msgspec.structs.replace(first, rejected=first.chosen)


def edited(rows: Rows) -> None:
    rows[ExportSet.TRAIN][0] = msgspec.structs.replace(rows[ExportSet.TRAIN][0], chosen="something else")


def lost(rows: Rows) -> None:
    rows[ExportSet.REGRESSION].pop()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (moved, "held-out subjects are in the training rows"),
        (doubled, "names 1 examples twice"),
        (same_texts, "1 pairs of train have the same chosen and rejected text"),
        (edited, "1 rows of train are not in the pinned days"),
        (lost, "80 rows were pinned, 79 are exported or left out for a reason"),
    ],
)
def test_a_resealed_export_is_compared_with_the_table(
    bench: Workbench, versions: Versions, change: Callable[[Rows], object], complaint: str
) -> None:
    rewrite(versions, change)
    assert complaint in differences(bench, versions)


def test_an_excluded_row_is_found(bench: Workbench, versions: Versions) -> None:
    (row,) = [row for row in bench.rows(GOLD) if row["subject"] == f"user {DAY} 0"]
    values = {name: row[name] for name in ExportedRow.__struct_fields__ if name != "completed_date" and name in row}
    smuggled = ExportedRow(completed_date=str(DAY), **values)
    rewrite(versions, lambda rows: rows[ExportSet.TRAIN].append(smuggled))
    assert "1 rows of train are excluded" in differences(bench, versions)


def test_a_damaged_file_is_named(bench: Workbench, versions: Versions) -> None:
    path = versions.folder(VERSION).export / f"{VERSION}.jsonl"
    path.write_bytes(path.read_bytes()[:-2])
    assert f"{VERSION}.jsonl has sha256" in differences(bench, versions)
    path.unlink()
    assert "nothing: it is missing" in differences(bench, versions)


def test_a_miscounted_manifest_is_found(bench: Workbench, versions: Versions) -> None:
    folder = versions.folder(VERSION).export
    manifest = read_manifest(folder)
    train = manifest.files[ExportSet.TRAIN]
    files = {
        **manifest.files,
        ExportSet.TRAIN: ExportedFile(name=train.name, rows=1, bytes=train.bytes, sha256=train.sha256),
    }
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))
    assert f"{VERSION}.jsonl has {train.rows} rows, its manifest says 1" in differences(bench, versions)


def test_a_tag_that_is_gone_or_moved_is_found(bench: Workbench, versions: Versions) -> None:
    tagged = bench.lake.load_table(GOLD).metadata.refs[VERSION].snapshot_id
    write_gold(bench, DAY, 2, text="later")
    table = bench.lake.load_table(GOLD)
    head = table.current_snapshot()
    assert head is not None
    table.manage_snapshots().create_tag(head.snapshot_id, VERSION).commit()
    assert f"its tag points to snapshot {head.snapshot_id}, its manifest says {tagged}" in differences(bench, versions)
    bench.lake.load_table(GOLD).manage_snapshots().remove_tag(VERSION).commit()
    assert "its tag is gone" in differences(bench, versions)


def test_a_pin_that_says_something_else_is_found(bench: Workbench, versions: Versions) -> None:
    path = versions.folder(VERSION).pin
    path.write_bytes(path.read_bytes().replace(str(DAY).encode(), b"2026-03-09"))
    assert "its pin and its manifest name other snapshots, days or exclusions" in differences(bench, versions)


def test_a_trained_version_without_its_export_is_found(bench: Workbench, versions: Versions) -> None:
    import shutil

    folder = versions.folder(VERSION)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    shutil.rmtree(folder.export)
    assert differences(bench, versions) == f"{VERSION}: its export is missing"
