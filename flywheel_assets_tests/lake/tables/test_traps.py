"""Traps of pyiceberg 0.12 that cost data, by the numbers of docs/gold.md; each test fails in the way the trap bites."""

import threading
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table
from sqlalchemy.exc import OperationalError

from flywheel_assets.errors import UnknownNameError, VersionConflictError
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.lake.tables.tags import create_tag, list_tags, set_head
from flywheel_assets.records import CURATION_STAGE
from flywheel_assets_tests.builders import DAY, day, make_gold
from flywheel_assets_tests.lake.gold import gold
from flywheel_assets_tests.lake.workbench import Workbench, head, write_day

GOLD = CURATED_DPO_PAIRS


class Interrupted:
    """Replaces the commit of a table by one that goes wrong the first time."""

    def __init__(self, error: Exception, *, after: bool = False) -> None:
        self.error, self.after, self.calls = error, after, 0
        self.commit = Table._do_commit

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupted = self

        def commit(table: Table, *arguments: Any, **keywords: Any) -> None:
            interrupted.calls += 1
            if interrupted.calls > 1:
                interrupted.commit(table, *arguments, **keywords)
                return
            if interrupted.after:
                interrupted.commit(table, *arguments, **keywords)
            raise interrupted.error

        monkeypatch.setattr(Table, "_do_commit", commit)


def test_trap_1_a_tag_survives_a_lost_commit(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(GOLD, DAY, gold(DAY))
    snapshot = head(bench.lake)
    lost = Interrupted(CommitFailedException("overtaken"))
    lost.install(monkeypatch)
    create_tag(bench.lake, GOLD, "dpo_gold_v1", snapshot)
    assert lost.calls == 2
    assert list_tags(bench.lake, GOLD) == {"dpo_gold_v1": snapshot}


def test_trap_2_moving_the_head_loses_no_concurrent_commit(bench: Workbench) -> None:
    bench.write(GOLD, DAY, gold(DAY))
    create_tag(bench.lake, GOLD, "dpo_gold_v1", head(bench.lake))
    bench.write(GOLD, day(1), gold(day(1)))
    planned_from = head(bench.lake)
    bench.write(GOLD, day(2), gold(day(2)))
    with pytest.raises(VersionConflictError, match="another writer has committed since"):
        set_head(bench.lake, GOLD, "dpo_gold_v1", planned_from)
    assert bench.lake.count_rows_per_day(GOLD) == {day(0): 1, day(1): 1, day(2): 1}


def test_trap_4_an_existing_tag_is_not_moved(bench: Workbench) -> None:
    bench.write(GOLD, DAY, gold(DAY))
    first = head(bench.lake)
    create_tag(bench.lake, GOLD, "dpo_gold_v1", first)
    bench.write(GOLD, DAY, gold(DAY))
    with pytest.raises(VersionConflictError, match=f"points to snapshot {first}"):
        create_tag(bench.lake, GOLD, "dpo_gold_v1", head(bench.lake))
    create_tag(bench.lake, GOLD, "dpo_gold_v1", first)
    assert list_tags(bench.lake, GOLD) == {"dpo_gold_v1": first}


def test_trap_5_the_head_moves_to_tags_only(bench: Workbench) -> None:
    """A branch can be published without any check that it descends from main: no code of ours publishes one."""
    bench.write(GOLD, DAY, gold(DAY))
    create_tag(bench.lake, GOLD, "dpo_gold_v1", head(bench.lake))
    with pytest.raises(UnknownNameError, match="unknown tag 'dpo_gold_v9'; known: dpo_gold_v1"):
        set_head(bench.lake, GOLD, "dpo_gold_v9", head(bench.lake))


def test_trap_10_two_first_writers_of_one_day_do_not_double_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock, both past their load: the loser meets the other's day and replaces it."""
    bench.write(GOLD, day(9), gold(day(9)))
    commit, other = Table._do_commit, bench.open_lake()
    overtaken: list[bool] = []

    def overtaken_once(self: Table, *arguments: Any, **keywords: Any) -> None:
        if not overtaken:
            overtaken.append(True)
            with monkeypatch.context() as patched:
                patched.setattr(tables.Lake, "lock_table", lambda *_: threading.Lock())
                write_day(other, GOLD, DAY, gold(DAY, 2))
        commit(self, *arguments, **keywords)

    monkeypatch.setattr(Table, "_do_commit", overtaken_once)
    bench.write(GOLD, DAY, gold(DAY, 3))
    assert overtaken
    assert bench.lake.count_rows_per_day(GOLD) == {DAY: 3, day(9): 1}
    properties = bench.lake.load_table(GOLD).properties
    assert properties["write.delete.isolation-level"] == "serializable"


def test_trap_12_stages_are_short_enough_to_be_dropped_by_metadata(bench: Workbench) -> None:
    stages = ["raw_predictions", "ground_truth", JOINED_FEEDBACK.name, CURATION_STAGE]
    for stage in stages:
        row = {"day": DAY, "stage": stage, "row_id": "a", "reason": "policy"}
        bench.write(QUARANTINE, DAY, [row], stage)
        bench.write(QUARANTINE, DAY, [row], stage)
        operations = [
            each.summary.operation.value for each in bench.lake.load_table(QUARANTINE).snapshots() if each.summary
        ]
        assert "overwrite" not in operations, f"{stage}: files were rewritten, not dropped"


def test_trap_13_a_half_replaced_day_is_never_the_head(bench: Workbench) -> None:
    """Each replace leaves a snapshot in which the day is missing: history shows it, no reader of the head meets it."""
    for _ in range(3):
        bench.write(GOLD, DAY, gold(DAY))
    table = bench.lake.load_table(GOLD)
    halves = [each for each in table.snapshots() if each.summary and each.summary["total-records"] == "0"]
    assert len(halves) == 2
    assert head(bench.lake) not in {half.snapshot_id for half in halves}


@pytest.mark.parametrize(
    "error", [CommitStateUnknownException("?"), OperationalError("COMMIT", None, Exception("connection lost"))]
)
def test_a_commit_that_happened_in_spite_of_an_error_is_not_made_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An audit row appended twice would be two decisions."""
    reported = Interrupted(error, after=True)
    reported.install(monkeypatch)
    rows = pa.Table.from_pylist(gold(DAY), schema=GOLD.schema)
    bench.lake.append(GOLD, rows, "decision 1", {})
    bench.lake.append(GOLD, rows, "decision 1", {})
    assert reported.calls == 1
    assert bench.lake.read(GOLD).num_rows == 1
    bench.lake.append(GOLD, rows, "decision 2", {})
    assert bench.lake.read(GOLD).num_rows == 2


def test_user_texts_do_not_get_into_manifests(bench: Workbench) -> None:
    """Bounds of text columns are the first 16 characters of what somebody wrote."""
    bench.write(GOLD, DAY, [make_gold(prompt="Aaron Aardvark asks", chosen="Zoe Zyzzyva answers")])
    (file,) = bench.lake.load_table(GOLD).inspect.files().to_pylist()
    bounded = {name for name, metrics in file["readable_metrics"].items() if metrics["lower_bound"] is not None}
    assert bounded == {"completed_date"}


def test_metadata_files_of_past_commits_do_not_pile_up(bench: Workbench) -> None:
    for _ in range(8):
        bench.write(GOLD, DAY, gold(DAY))
    folder = bench.root / "warehouse"
    assert len(list(folder.rglob("*.metadata.json"))) <= 11
