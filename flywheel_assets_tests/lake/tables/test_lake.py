"""Partition replace in Iceberg: what a commit changes, what it must not, and what a crash leaves behind."""

import multiprocessing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from filelock import FileLock
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table

from flywheel_assets.errors import CommitContentionError, PartitionMismatchError
from flywheel_assets.lake.daily.ledger import hash_content
from flywheel_assets.lake.tables import iceberg
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, LEDGER, QUARANTINE, RAW_PREDICTIONS
from flywheel_assets.lake.tables.tags import create_tag
from flywheel_assets_tests.builders import DAY, day, make_gold, make_joined, make_prediction, table
from flywheel_assets_tests.lake.workbench import Workbench, write_day


def predictions(number: int, on: date = DAY) -> list[dict[str, Any]]:
    return [{"received_date": on, **make_prediction()} for _ in range(number)]


def refusal(row_id: str, stage: str, on: date = DAY) -> dict[str, Any]:
    return {"day": on, "stage": stage, "row_id": row_id, "reason": "policy"}


def test_replacing_twice_gives_the_same_table(bench: Workbench) -> None:
    rows = predictions(3)
    bench.write(RAW_PREDICTIONS, DAY, rows)
    before = bench.rows(RAW_PREDICTIONS)
    bench.write(RAW_PREDICTIONS, DAY, rows)
    assert bench.rows(RAW_PREDICTIONS) == before
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {DAY: 3}


def test_rows_come_back_as_they_were(bench: Workbench) -> None:
    rows = [make_joined(final_text=None, value=0.25, label="", thread_id="t"), make_joined()]
    bench.write(JOINED_FEEDBACK, DAY, rows)
    found = bench.lake.read(JOINED_FEEDBACK)
    assert found.schema.names == JOINED_FEEDBACK.schema.names
    assert found.schema.types == JOINED_FEEDBACK.schema.types
    assert bench.rows(JOINED_FEEDBACK) == sorted(rows, key=lambda row: row["feedback_event_id"])


def test_other_days_stay_and_zero_rows_clear_a_day(bench: Workbench) -> None:
    for offset in range(3):
        bench.write(RAW_PREDICTIONS, day(offset), predictions(offset + 1, day(offset)))
    bench.write(RAW_PREDICTIONS, day(1), [])
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {day(0): 1, day(2): 3}
    bench.write(RAW_PREDICTIONS, day(1), [])
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {day(0): 1, day(2): 3}


def test_clearing_a_table_that_never_had_a_row_commits_nothing(bench: Workbench) -> None:
    bench.write(RAW_PREDICTIONS, DAY, [])
    assert bench.lake.load_table(RAW_PREDICTIONS).current_snapshot() is None
    assert bench.lake.read(RAW_PREDICTIONS).num_rows == 0
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {}


def test_rows_of_another_day_are_refused(bench: Workbench) -> None:
    bench.write(RAW_PREDICTIONS, DAY, predictions(1))
    mixed = [*predictions(1), *predictions(1, day(1))]
    with pytest.raises(PartitionMismatchError, match=r"received_date = 2026-03-02 contain 2026-03-02 … 2026-03-03"):
        bench.write(RAW_PREDICTIONS, DAY, mixed)
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {DAY: 1}


def test_rows_of_another_stage_are_refused(bench: Workbench) -> None:
    with pytest.raises(PartitionMismatchError, match="stage = curation"):
        bench.write(QUARANTINE, DAY, [refusal("a", "raw_predictions")], stage="curation")


def test_stages_of_the_quarantine_do_not_touch_each_other(bench: Workbench) -> None:
    for stage in ("curation", "ground_truth"):
        for on in (day(0), day(1)):
            bench.write(QUARANTINE, on, [refusal(f"{stage} 1", stage, on), refusal(f"{stage} 2", stage, on)], stage)
    bench.write(QUARANTINE, DAY, [refusal("new", "curation")], stage="curation")
    assert [(row["day"], row["row_id"]) for row in bench.rows(QUARANTINE)] == [
        (day(0), "new"),
        (day(0), "ground_truth 1"),
        (day(0), "ground_truth 2"),
        (day(1), "curation 1"),
        (day(1), "curation 2"),
        (day(1), "ground_truth 1"),
        (day(1), "ground_truth 2"),
    ]
    assert bench.lake.count_rows_per_day(QUARANTINE) == {day(0): 3, day(1): 4}
    assert bench.lake.count_rows_per_day(QUARANTINE, "curation") == {day(0): 1, day(1): 2}
    bench.write(QUARANTINE, DAY, [], stage="curation")
    assert bench.lake.count_rows_per_day(QUARANTINE, "curation") == {day(1): 2}


@pytest.mark.long
def test_a_long_range_is_one_commit(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """260 days with holes: the day before, the day after and the days without a file are looked at."""
    days = [day(offset) for offset in range(260) if offset not in (17, 200)]
    for outside in (day(-1), day(17), day(260)):
        bench.write(CURATED_DPO_PAIRS, outside, [make_gold(completed_date=outside)])
    bench.write(CURATED_DPO_PAIRS, day(100), [make_gold(completed_date=day(100)) for _ in range(5)])

    empty = {day(100), day(259)}
    gold = make_gold()
    files = {}
    with bench.lake.connect() as connection:
        for on in set(days) - empty:
            connection.register("given", table(CURATED_DPO_PAIRS.schema, [{**gold, "completed_date": on}]))
            files[on] = bench.lake.write_day(connection, CURATED_DPO_PAIRS, on, "SELECT * FROM given") or Path()
    commits = []
    commit = Table._do_commit
    monkeypatch.setattr(Table, "_do_commit", lambda *given, **named: (commits.append(1), commit(*given, **named))[1])
    bench.lake.replace_days(CURATED_DPO_PAIRS, days, files, {"flywheel.run-id": "range"})
    assert len(commits) == 1
    expected = dict.fromkeys({*days, day(-1), day(17), day(260)} - empty, 1)
    assert bench.lake.count_rows_per_day(CURATED_DPO_PAIRS) == expected
    after = bench.lake.load_table(CURATED_DPO_PAIRS)
    head = after.current_snapshot()
    assert head is not None
    manifests = head.manifests(after.io)
    assert max((each.added_files_count or 0) + (each.existing_files_count or 0) for each in manifests) < 200
    assert bench.lake.read(CURATED_DPO_PAIRS, days).num_rows == len(files)
    assert bench.lake.read(CURATED_DPO_PAIRS, [day(17), day(260), day(999)]).num_rows == 2


def test_a_metadata_file_is_parsed_once_and_a_new_one_is_seen(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    parse = FromInputFile.table_metadata
    bench.write(CURATED_DPO_PAIRS, day(0), [make_gold(completed_date=day(0))])
    another = bench.open_lake()
    monkeypatch.setattr(FromInputFile, "table_metadata", lambda file: (parsed.append(file.location), parse(file))[1])
    for _ in range(3):
        assert another.count_rows_per_day(CURATED_DPO_PAIRS) == {day(0): 1}
    assert len(parsed) == 1
    bench.write(CURATED_DPO_PAIRS, day(1), [make_gold(completed_date=day(1))])
    assert another.count_rows_per_day(CURATED_DPO_PAIRS) == {day(0): 1, day(1): 1}


def test_no_rows_are_hashed_without_a_statement_as_with_one() -> None:
    ((said,),) = duckdb.sql("SELECT md5(coalesce(string_agg(a, ''), '')) FROM (SELECT '' AS a) WHERE false").fetchall()
    assert hash_content(CURATED_DPO_PAIRS.schema.empty_table()) == said


def test_a_burst_of_commits_leaves_few_snapshots_and_every_tag(bench: Workbench, monkeypatch: Any) -> None:
    """A backfill of a thousand runs in an hour made 2,000 snapshots, and every commit a second slower, until Sunday."""
    monkeypatch.setattr(iceberg, "MOST_SNAPSHOTS", 12)
    monkeypatch.setattr(iceberg, "KEPT_SNAPSHOTS", 6)
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(chosen="first")])
    first = bench.lake.load_table(CURATED_DPO_PAIRS).current_snapshot()
    assert first is not None
    create_tag(bench.lake, CURATED_DPO_PAIRS, "dpo_gold_v1", first.snapshot_id)
    found = []
    for number in range(20):
        bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(chosen=str(number))])
        found.append(len(bench.lake.load_table(CURATED_DPO_PAIRS).snapshots()))
    # The newest change's DELETE and APPEND, the head before it and the tag come on top.
    assert max(found) <= 12 + 4
    assert min(found[10:]) >= 6
    assert [row["chosen"] for row in bench.rows(CURATED_DPO_PAIRS)] == ["19"]
    assert bench.lake.read(CURATED_DPO_PAIRS, snapshot_id=first.snapshot_id)["chosen"].to_pylist() == ["first"]


def test_a_commit_builds_the_metadata_once_per_change(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyiceberg's own transaction copied all of it 42 times: 1 s a commit with 320 snapshots."""
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold()])
    built = []
    update = iceberg.update_table_metadata
    monkeypatch.setattr(iceberg, "update_table_metadata", lambda *given: (built.append(1), update(*given))[1])
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(chosen="again")])
    # As it was, after the DELETE, after the APPEND.
    assert 1 <= len(built) <= 3
    assert [row["chosen"] for row in bench.rows(CURATED_DPO_PAIRS)] == ["again"]


def test_small_manifests_are_merged_up_to_a_size(bench: Workbench) -> None:
    """One manifest of ten years was rewritten for every day that was replaced: 1 to 1.5 s."""
    for offset in range(12):
        bench.write(CURATED_DPO_PAIRS, day(offset), [make_gold(completed_date=day(offset))])
    table = bench.lake.load_table(CURATED_DPO_PAIRS)
    head = table.current_snapshot()
    assert head is not None
    assert len(head.manifests(table.io)) <= 5
    limit = int(table.properties["commit.manifest.target-size-bytes"])
    merged_at = int(table.properties["commit.manifest.min-count-to-merge"])
    # Else the newest manifests fill a bin before there are enough of them, and are never merged.
    assert merged_at * max(each.manifest_length for each in head.manifests(table.io)[:1]) < limit


def test_a_snapshot_is_read_as_it_was(bench: Workbench) -> None:
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(chosen="first")])
    pinned = bench.lake.load_table(CURATED_DPO_PAIRS).current_snapshot()
    assert pinned is not None
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(chosen="second")])
    bench.write(CURATED_DPO_PAIRS, day(1), [make_gold(completed_date=day(1), chosen="third")])

    def chosen(snapshot_id: int | None, days: list[date] | None) -> list[str]:
        rows = bench.lake.read(CURATED_DPO_PAIRS, days, ["chosen"], snapshot_id)
        return sorted(rows["chosen"].to_pylist())

    assert chosen(pinned.snapshot_id, None) == ["first"]
    assert chosen(pinned.snapshot_id, [DAY, day(1)]) == ["first"]
    assert chosen(None, [DAY, day(1)]) == ["second", "third"]
    assert chosen(None, []) == []


def test_a_view_can_be_pointed_at_other_days(bench: Workbench) -> None:
    """A range failed on the first day whose edits all carried their text, when an earlier day had read predictions."""
    bench.write(RAW_PREDICTIONS, day(0), predictions(2))
    bench.write(RAW_PREDICTIONS, day(1), predictions(3, day(1)))
    found = []
    with bench.lake.connect() as connection:
        for days in ([day(0)], [], [day(7)], [day(1)], [day(7)], None):
            bench.lake.register(connection, RAW_PREDICTIONS, days)
            found += connection.sql("SELECT count(*) FROM raw_predictions").fetchall()
    assert found == [(2,), (0,), (0,), (3,), (0,), (5,)]


def test_who_wrote_is_in_the_snapshot(bench: Workbench) -> None:
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold()])
    snapshot = bench.lake.load_table(CURATED_DPO_PAIRS).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert (snapshot.summary["flywheel.run-id"], snapshot.summary["total-records"]) == ("run", "1")


def test_a_crash_before_the_commit_leaves_the_table_as_it_was(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(RAW_PREDICTIONS, DAY, predictions(1))
    before = bench.rows(RAW_PREDICTIONS)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tables.Lake, "_commit_once", crash)
        with pytest.raises(KeyboardInterrupt):
            bench.write(RAW_PREDICTIONS, DAY, predictions(5))
    with monkeypatch.context() as patched:  # the files lie in the table's folder already
        patched.setattr(Table, "_do_commit", crash)
        with pytest.raises(KeyboardInterrupt):
            bench.write(RAW_PREDICTIONS, DAY, predictions(5))
    assert bench.rows(RAW_PREDICTIONS) == before
    bench.write(RAW_PREDICTIONS, DAY, predictions(5))
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {DAY: 5}


def test_a_lost_commit_is_tried_again_on_the_new_state(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer commits between load and commit: its day is there afterwards, and ours is there once."""
    bench.write(RAW_PREDICTIONS, DAY, predictions(1))
    commit = Table._do_commit
    other = bench.open_lake()
    overtaken: list[bool] = []

    def overtaken_once(self: Table, *arguments: Any, **keywords: Any) -> None:
        if not overtaken:
            overtaken.append(True)
            monkeypatch.setattr(Table, "_do_commit", commit)
            with monkeypatch.context() as patched:
                patched.setattr(tables.Lake, "lock_table", lambda *_: FileLock(bench.root / "another.lock"))
                write_day(other, RAW_PREDICTIONS, day(1), predictions(2, day(1)))
            raise CommitFailedException("overtaken")
        commit(self, *arguments, **keywords)

    monkeypatch.setattr(Table, "_do_commit", overtaken_once)
    bench.write(RAW_PREDICTIONS, DAY, predictions(3))
    assert overtaken
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {day(0): 3, day(1): 2}


def test_a_lock_that_stays_taken_is_a_transient_error(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(RAW_PREDICTIONS, DAY, predictions(1))
    monkeypatch.setattr(tables, "_LOCK_TIMEOUT_S", 0.05)
    with bench.open_lake().lock_table(RAW_PREDICTIONS), pytest.raises(CommitContentionError, match="safe to run again"):
        bench.write(RAW_PREDICTIONS, DAY, predictions(2))
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {DAY: 1}


def write_many(root: Path, days: list[date]) -> None:
    bench = Workbench(root)
    for each in days:
        bench.write(CURATED_DPO_PAIRS, each, [make_gold(completed_date=each)])


@pytest.mark.long
def test_two_processes_write_different_days_of_a_table_that_does_not_exist_yet(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    first, second = [day(offset) for offset in range(4)], [day(offset) for offset in range(4, 8)]
    writers = [spawn.Process(target=write_many, args=(tmp_path, days)) for days in (first, second)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert Workbench(tmp_path).lake.count_rows_per_day(CURATED_DPO_PAIRS) == dict.fromkeys(first + second, 1)


def test_a_small_table_is_rewritten_under_its_lock(bench: Workbench) -> None:
    row = {
        "asset": "a",
        "day": DAY,
        "is_closed": True,
        "content_hash": "",
        "input_hashes": "{}",
        "rows_in": 0,
        "rows_kept": 0,
        "rows_by_reason": "{}",
        "run_id": "run",
        "code_version": "1",
        "recorded_at": datetime.fromisoformat("2026-03-02T12:00:00+00:00"),
    }

    def append(existing: pa.Table) -> pa.Table:
        fresh = table(LEDGER.schema, [{**row, "rows_in": existing.num_rows}])
        return pa.concat_tables([existing, fresh.cast(existing.schema)])

    for _ in range(3):
        bench.lake.replace_all(LEDGER, append, {})
    assert bench.lake.read(LEDGER)["rows_in"].to_pylist() == [0, 1, 2]


def test_applications_do_not_see_each_other(bench: Workbench) -> None:
    bench.write(RAW_PREDICTIONS, DAY, predictions(1))
    other = tables.Lake("drafting", bench.lake.catalog_uri, bench.lake.warehouse, bench.lake.scratch)
    assert other.read(RAW_PREDICTIONS).num_rows == 0
    assert bench.lake.read(RAW_PREDICTIONS).num_rows == 1


def test_a_warehouse_in_a_folder_with_odd_characters(tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "the user's  wärme % 20 [a]")
    bench.root.mkdir()
    bench.write(RAW_PREDICTIONS, DAY, predictions(2))
    assert len(bench.rows(RAW_PREDICTIONS, [DAY])) == 2


def test_columns_are_documented_in_the_table(bench: Workbench) -> None:
    schema = bench.lake.load_table(JOINED_FEEDBACK).schema()
    assert all(column.doc for column in schema.fields)
