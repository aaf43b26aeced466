"""Versions as others see them: summaries, differences, copies on disk and on S3, rows read by other engines."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import ManifestMismatchError, UnknownNameError, VersionConflictError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest, read_rows
from flywheel_assets.lake.versions.folders import VersionFolder, Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.publishing import LocalFolder, Published, list_copies, publish_export
from flywheel_assets.lake.versions.summaries import SetDifference, compare_versions, find_summary, summarize_versions
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench

RULES = ResolutionRules(holdout_share=0.0)
BUCKET = "copies"


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    """v1 of two days; v2 without one user's pair, with one pair edited anew and a day more."""
    versions = Versions(bench.root / "versions", APPLICATION)
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 1)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    exclude_rows(bench.lake, ExclusionRule(user_id=f"user {day(0)} 2"), who="ada", reason="r", now=LONG_AFTER)
    write_gold(bench, day(1), 1, text="again")
    write_gold(bench, day(2), 2)
    cut_pair_version(bench.lake, versions, "dpo_gold_v2", RULES, "2")
    return versions


def no_s3() -> Any:
    raise AssertionError("S3 was asked")


def copy(bench: Workbench, folder: VersionFolder, to: str, client: Any = None) -> list[tuple[str, bool]]:
    published = publish_export(folder, to, bench.root / "scratch", (lambda: client) if client else no_s3)
    return [(file.where.rsplit("/", 1)[-1], file.is_new) for file in published]


def test_a_difference_names_rows_reasons_days_and_exclusions(versions: Versions) -> None:
    found = compare_versions(versions.folder("dpo_gold_v1"), versions.folder("dpo_gold_v2"))
    assert found.sets["train"] == SetDifference(added=2, removed=1, changed=1, kept=2)
    assert found.dropped == {"excluded": (0, 1)}
    assert (found.days_added, found.days_removed, found.days_changed) == ([str(day(2))], [], [str(day(1))])
    assert list(found.exclusions_added.values()) == ["one user"]
    back = compare_versions(versions.folder("dpo_gold_v2"), versions.folder("dpo_gold_v1"))
    assert back.sets["train"] == SetDifference(added=1, removed=2, changed=1, kept=2)


def test_a_summary_knows_what_became_of_a_version(bench: Workbench, versions: Versions) -> None:
    folder = versions.folder("dpo_gold_v1")
    folder.training.mkdir()
    (folder.training / "training.json").write_text('{"adapter_sha256": "abc"}')
    decision = {
        "version": "dpo_gold_v1",
        "promoted": True,
        "sentence": "Better.",
        "champion_before": None,
        "checks": [],
    }
    folder.promotion.write_text(json.dumps(decision))
    (versions.root / APPLICATION / "dpo_gold_v3").mkdir()
    first, second, third = summarize_versions(bench.lake, versions, CURATED_DPO_PAIRS)
    assert (first.trained, first.promoted, first.decision, first.rows["train"]) == ("abc", True, "Better.", 4)
    assert (second.trained, second.promoted, second.rows["train"]) == (None, None, 5)
    assert (third.snapshot_id, third.manifest) == (None, None)
    with pytest.raises(UnknownNameError, match="known: dpo_gold_v1, dpo_gold_v2, dpo_gold_v3"):
        find_summary(bench.lake, versions, CURATED_DPO_PAIRS, "dpo_gold_v9")


def test_a_copy_has_every_row_in_both_formats(bench: Workbench, versions: Versions, tmp_path: Path) -> None:
    """Read by an engine that is not ours: the same count and the same hash over all rows."""
    folder = versions.folder("dpo_gold_v2")
    copy(bench, folder, str(tmp_path / "to"))
    manifest = read_manifest(folder.export)
    rows = [vars_of(row) for row in read_rows(folder.export, manifest, ExportSet.TRAIN)]
    parquet = duckdb.sql(f"SELECT * FROM '{tmp_path}/to/dpo_gold_v2.parquet'").to_arrow_table().to_pylist()
    assert parquet == rows
    lines = (tmp_path / "to" / "dpo_gold_v2.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_polars_reads_the_tagged_rows_of_a_version(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    polars = pytest.importorskip("polars")
    table = bench.lake.load_table(CURATED_DPO_PAIRS)
    manifest = read_manifest(versions.folder("dpo_gold_v1").export)
    frame = polars.scan_iceberg(table, snapshot_id=table.metadata.refs["dpo_gold_v1"].snapshot_id).collect()
    rows = read_rows(versions.folder("dpo_gold_v1").export, manifest, ExportSet.TRAIN)
    assert sorted(frame["pair_id"].to_list()) == sorted(row.pair_id for row in rows)
    assert sorted(frame["chosen"].to_list()) == sorted(row.chosen for row in rows)


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_names_are_never_used_twice_on_disk(bench: Workbench, versions: Versions, tmp_path: Path) -> None:
    folder, to = versions.folder("dpo_gold_v1"), tmp_path / "to"
    first = copy(bench, folder, str(to))
    assert {is_new for _, is_new in first} == {True}
    assert {is_new for _, is_new in copy(bench, folder, str(to))} == {False}
    assert list_copies(folder) == [str(to)]
    (to / "dpo_gold_v1.jsonl").write_text("somebody else's\n")
    with pytest.raises(VersionConflictError, match=r"dpo_gold_v1\.jsonl exists with other content"):
        copy(bench, folder, str(to))
    assert (to / "dpo_gold_v1.jsonl").read_text() == "somebody else's\n"
    assert not list(to.glob(".*")), "nothing half written is left"


def test_a_copy_that_was_not_finished_is_remembered(
    bench: Workbench, versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first file, a copy lay there that no receipt of an erasure named."""
    folder, put = versions.folder("dpo_gold_v1"), LocalFolder.put

    def crash_after_the_first(self: LocalFolder, name: str, path: Path, *, is_derived: bool) -> Published:
        if is_derived:
            raise KeyboardInterrupt
        return put(self, name, path, is_derived=is_derived)

    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "put", crash_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            copy(bench, folder, str(tmp_path / "to"))
    assert len(list((tmp_path / "to").iterdir())) == 1
    assert list_copies(folder) == [str(tmp_path / "to")]


def test_a_damaged_export_is_not_copied(bench: Workbench, versions: Versions, tmp_path: Path) -> None:
    file = versions.folder("dpo_gold_v1").export / "dpo_gold_v1.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ManifestMismatchError):
        copy(bench, versions.folder("dpo_gold_v1"), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def test_names_are_never_used_twice_on_s3(bench: Workbench, versions: Versions, s3: Any) -> None:
    folder, to = versions.folder("dpo_gold_v1"), f"s3://{BUCKET}/gold"
    names = [name for name, is_new in copy(bench, folder, to, s3) if is_new]
    assert len(names) == 13
    assert {is_new for _, is_new in copy(bench, folder, to, s3)} == {False}
    key = "gold/dpo_gold_v1.jsonl"
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert body == (folder.export / "dpo_gold_v1.jsonl").read_bytes()
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"somebody else's")
    with pytest.raises(VersionConflictError, match="exists with other content"):
        copy(bench, folder, to, s3)
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"somebody else's"


def test_of_two_copies_at_once_one_is_new(bench: Workbench, versions: Versions, tmp_path: Path) -> None:
    folder, results = versions.folder("dpo_gold_v1"), []
    copiers = [
        threading.Thread(target=lambda: results.append(copy(bench, folder, str(tmp_path / "to")))) for _ in range(2)
    ]
    for copier in copiers:
        copier.start()
    for copier in copiers:
        copier.join(60)
    news = [sum(is_new for _, is_new in result) for result in results]
    assert sum(news) == 13, news
