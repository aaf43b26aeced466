"""Backups, restores, moves and adoptions are killed at random moments, given again, and come to the same.

A second test takes backups while another process writes days, cuts a version and collects garbage.
"""

import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import CommitContentionError
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.tables.specs import GROUND_TRUTH
from flywheel_assets.lake.upkeep.backup.manifest import WAREHOUSE
from flywheel_assets_tests.lake import killable
from flywheel_assets_tests.lake.killable import ASSISTANT, Wheel, landed, plan, start
from flywheel_assets_tests.lake.upkeep.backup import homes
from flywheel_assets_tests.lake.upkeep.backup.homes import back_up, open_place, read_everything, restore, write_row

KILLS = 6
pytestmark = pytest.mark.slow


def run(target: Callable[..., None], *arguments: Any, after_s: float | None = None) -> tuple[bool, float]:
    """Run in a process of its own, killed so long after it began; return whether it ended, and in which time."""
    here, there = Pipe()
    process = start(target, *arguments, there)
    there.close()
    try:
        assert here.recv() == "begun"
        began = time.monotonic()
        if after_s is not None and not here.poll(after_s):
            process.kill()
        is_done = _receive(here)
        return is_done, time.monotonic() - began
    finally:
        process.join(60)
        here.close()


def _receive(here: Connection) -> bool:
    try:
        return bool(here.recv() == "done")
    except EOFError:
        return False


def kill_until_done(target: Callable[..., None], *arguments: Any, whole_s: float) -> int:
    """Kill a few times at moments within its usual time, then let it end; return how often it was killed."""
    moments = random.Random(17)
    killed = sum(not run(target, *arguments, after_s=moments.uniform(0, whole_s))[0] for _ in range(KILLS))
    assert run(target, *arguments)[0]
    return killed


def test_a_killed_backup_is_none_and_the_next_goes_on(home: Path, tmp_path: Path) -> None:
    before = read_everything(home)
    _, whole_s = run(homes.back_up_again, home, tmp_path / "measured")
    back_up(home, tmp_path / "to")
    for number in range(20):
        (home / "models" / f"{number}.bin").write_bytes(bytes([number]) * 2_000_000)
    write_row(home / "mlflow.db", "second")
    complete = open_place(tmp_path / "to").read_manifest(1)
    killed = kill_until_done(homes.back_up_again, home, tmp_path / "to", whole_s=whole_s)
    assert killed
    place = open_place(tmp_path / "to")
    newest = place.list_numbers()[-1]
    restore(tmp_path / "to", tmp_path / "b")
    assert read_everything(tmp_path / "b") == read_everything(home)
    restore(tmp_path / "to", tmp_path / "c", 1)
    assert read_everything(tmp_path / "c") == before
    back_up(home, tmp_path / "to")
    named = {file.sha256 for file in (*complete.files, *place.read_manifest(newest).files)}
    assert set(place.list_contents()) >= named
    assert not list((tmp_path / "to").rglob("unfinished/*"))


def test_a_killed_restore_goes_on(home: Path, tmp_path: Path) -> None:
    for number in range(20):
        (home / "models" / f"{number}.bin").write_bytes(bytes([number]) * 2_000_000)
    back_up(home, tmp_path / "to")
    _, whole_s = run(homes.restore_again, tmp_path / "to", tmp_path / "measured")
    moments, killed, done = random.Random(3), 0, False
    while not done and killed < KILLS:
        done, _ = run(homes.restore_again, tmp_path / "to", tmp_path / "b", after_s=moments.uniform(0, whole_s))
        killed += not done
    assert killed
    assert done or run(homes.restore_again, tmp_path / "to", tmp_path / "b")[0]
    assert read_everything(tmp_path / "b") == read_everything(home)
    wheel = Wheel(tmp_path / "b")
    assert wheel.benches[ASSISTANT].lake.verify_home(sweeps=True)
    wheel.collect(ASSISTANT)
    assert not [path for path in wheel.strays() if "warehouse" in path.parts]
    assert read_everything(tmp_path / "b").tables == read_everything(home).tables


@pytest.mark.parametrize("lost", ["moved", "catalog"])
def test_a_killed_move_or_adoption_is_given_again(home: Path, tmp_path: Path, lost: str) -> None:
    target = homes.move_again if lost == "moved" else homes.adopt_again

    def lose(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(home, place)
        if lost == "catalog":
            (place / "catalog.db").unlink()
        return place

    # An adoption leaves out tables that were created and never changed.
    before = read_filled(home)
    _, whole_s = run(target, lose("measured"))
    place = lose("b")
    assert kill_until_done(target, place, whole_s=whole_s)
    assert read_filled(place) == before
    wheel = Wheel(place)
    assert wheel.benches[ASSISTANT].lake.verify_home(sweeps=True) == ("moved" if lost == "moved" else "adopted")
    wheel.collect(ASSISTANT)
    assert read_filled(place) == before
    assert not [path for path in wheel.strays() if "warehouse" in path.parts]


def read_filled(root: Path) -> dict[str, Any]:
    return {name: rows for name, rows in read_everything(root).tables.items() if rows}


def test_backups_taken_while_a_process_writes_are_consistent(tmp_path: Path) -> None:
    """Every table is readable, and its ledger tells its rows, in whatever moment a backup was taken."""
    steps = plan(8, 3, 0)
    [wheel] = landed(steps, tmp_path / "a")
    wheel.run(steps[0])
    here, there = Pipe()
    writer = start(killable.work, tmp_path / "a", steps, 1, there)
    there.close()
    numbers: list[int] = []
    try:
        assert here.recv() == -1
        while writer.is_alive():
            # The writer collects garbage without a grace period: a backup may lose its files in every attempt.
            with suppress(CommitContentionError):
                numbers.append(back_up(tmp_path / "a", tmp_path / "to", keep=100).manifest.number)
            while here.poll():
                try:
                    here.recv()
                except EOFError:
                    break
    finally:
        writer.kill()
        writer.join(60)
        here.close()
    assert writer.exitcode in (0, -9)
    numbers.append(back_up(tmp_path / "a", tmp_path / "to", keep=100).manifest.number)
    assert len(numbers) > 3
    tables = []
    for number in random.Random(5).sample(numbers[:-1], min(4, len(numbers) - 1)) + numbers[-1:]:
        root = tmp_path / f"restored-{number}"
        done = restore(tmp_path / "to", root, number, is_verified=True)
        assert done.differences == ()
        bench = Wheel(root).benches[ASSISTANT]
        for spec in (bench.tables.predictions, GROUND_TRUTH, bench.tables.joined, bench.tables.gold):
            if bench.lake.has_table(spec):
                assert audit_accounts(bench.lake, spec).discrepancies == ()
        tables.append({file.path for file in done.manifest.files if file.part == WAREHOUSE})
        assert Wheel(root).contents()
    assert len({frozenset(each) for each in tables}) > 1
    assert Wheel(tmp_path / f"restored-{numbers[-1]}").contents() == wheel.contents()
