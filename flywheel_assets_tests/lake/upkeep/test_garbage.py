"""Expiry and the deletion of unreachable files: what is needed stays, what is not goes after its grace."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, JOINED_FEEDBACK
from flywheel_assets.lake.tables.tags import create_tag, list_tags
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table, weigh_table
from flywheel_assets_tests.builders import DAY, day, make_gold
from flywheel_assets_tests.lake.gold import gold
from flywheel_assets_tests.lake.workbench import Workbench, head

GOLD = CURATED_DPO_PAIRS
NOW = datetime(2100, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def data_files(bench: Workbench) -> set[Path]:
    return set((bench.root / "warehouse").rglob("data/*.parquet"))


@pytest.fixture
def rewritten(bench: Workbench) -> Workbench:
    """Day 0 written three times, the second one tagged; day 1 once."""
    bench.write(GOLD, DAY, [make_gold(chosen="first")])
    bench.write(GOLD, DAY, [make_gold(chosen="second")])
    create_tag(bench.lake, GOLD, "dpo_gold_v1", head(bench.lake))
    bench.write(GOLD, DAY, [make_gold(chosen="third")])
    bench.write(GOLD, day(1), gold(day(1)))
    return bench


def chosen(bench: Workbench, snapshot_id: int | None = None) -> list[str]:
    return bench.lake.read(GOLD, [DAY], ["chosen"], snapshot_id)["chosen"].to_pylist()


def test_trap_6_expiry_keeps_tags_and_head_and_the_sweep_deletes_the_rest(rewritten: Workbench) -> None:
    tagged = list_tags(rewritten.lake, GOLD)["dpo_gold_v1"]
    assert len(data_files(rewritten)) == 4
    assert expire_snapshots(rewritten.lake, GOLD, NOW) > 0
    assert len(data_files(rewritten)) == 4, "pyiceberg deletes no file"
    swept = sweep_table(rewritten.lake, GOLD, timedelta(0), NOW)
    assert len(data_files(rewritten)) == 3
    assert (swept.deleted.files > 1, swept.waiting.files) == (True, 0)
    assert chosen(rewritten) == ["third"]
    assert chosen(rewritten, tagged) == ["second"]
    assert weigh_table(rewritten.lake, GOLD) == swept.kept
    rewritten.write(GOLD, DAY, [make_gold(chosen="fourth")])
    assert chosen(rewritten) == ["fourth"]


def test_garbage_waits_for_its_grace_from_when_it_was_found(rewritten: Workbench) -> None:
    expire_snapshots(rewritten.lake, GOLD, NOW)
    first = sweep_table(rewritten.lake, GOLD, HOUR, NOW)
    assert (first.deleted.files, first.waiting.files > 0) == (0, True)
    assert sweep_table(rewritten.lake, GOLD, HOUR, NOW + HOUR / 2).deleted.files == 0
    assert len(data_files(rewritten)) == 4
    assert sweep_table(rewritten.lake, GOLD, HOUR, NOW + HOUR).deleted == first.waiting
    assert len(data_files(rewritten)) == 3


def test_files_of_a_writer_that_died_are_garbage(rewritten: Workbench) -> None:
    orphan = next(iter(data_files(rewritten))).with_name("left-behind.parquet")
    orphan.write_bytes(b"never committed")
    sweep_table(rewritten.lake, GOLD, timedelta(0), NOW)
    assert not orphan.exists()
    assert chosen(rewritten) == ["third"]


def test_a_table_that_was_never_created_stays_so(bench: Workbench) -> None:
    assert expire_snapshots(bench.lake, EXCLUSIONS, NOW) == 0
    assert sweep_table(bench.lake, EXCLUSIONS, HOUR, NOW).kept.files == 0
    assert weigh_table(bench.lake, JOINED_FEEDBACK).files == 0
    assert not bench.lake.has_table(EXCLUSIONS)


def test_trap_3_expiry_waits_for_a_tag_that_is_being_made(rewritten: Workbench) -> None:
    """Expiry that had read the table first took tag and snapshot with it."""
    lake = rewritten.lake
    wanted = head(lake)
    rewritten.write(GOLD, DAY, [make_gold(chosen="fifth")])
    started = threading.Event()

    def expire() -> None:
        started.set()
        expire_snapshots(rewritten.open_lake(), GOLD, NOW)

    with lake.lock_table(GOLD):
        expiry = threading.Thread(target=expire)
        expiry.start()
        started.wait(10)
        lake.load_table(GOLD).manage_snapshots().create_tag(wanted, "dpo_gold_v2").commit()
    expiry.join(60)
    assert list_tags(lake, GOLD)["dpo_gold_v2"] == wanted
    assert chosen(lake_at(rewritten), wanted) == ["third"]
    assert len(lake.load_table(GOLD).snapshots()) == 3


def lake_at(bench: Workbench) -> Workbench:
    sweep_table(bench.lake, GOLD, timedelta(0), NOW)
    return bench
