"""A backup is whole, takes only what is new, keeps what it should, and lets nobody out who was erased."""

import itertools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flywheel_assets.cli.upkeep import build_erasure_place
from flywheel_assets.discovery import load_application
from flywheel_assets.errors import BackupError, CommitContentionError, HomeMismatchError
from flywheel_assets.lake.erasure.erase import Receipt, erase_person, plan_erasure
from flywheel_assets.lake.storage.commits import hold_lock
from flywheel_assets.lake.upkeep.backup import taking
from flywheel_assets.lake.upkeep.backup.restoring import choose_backup
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import DAY, day
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.everywhere import quoting
from flywheel_assets_tests.lake.killable import ASSISTANT, Wheel
from flywheel_assets_tests.lake.upkeep.backup.homes import (
    LARGE,
    NOW,
    back_up,
    open_place,
    read_everything,
    restore,
    write_row,
)

PERSON = "user 1"


@pytest.mark.long
def test_only_what_is_new_is_copied(home: Path, tmp_path: Path) -> None:
    first = back_up(home, tmp_path / "to")
    assert first.copied_bytes >= len(LARGE) * 2
    assert not list((tmp_path / "to").rglob("unfinished/*"))
    again = back_up(home, tmp_path / "to")
    assert (again.manifest.number, again.copied_files) == (2, 0)
    write_row(home / "mlflow.db", "second")
    (home / "review" / "assistant.jsonl").write_bytes(b"{}\n{}\n")
    Wheel(home).benches[ASSISTANT].curate([DAY])
    third = back_up(home, tmp_path / "to")
    changed = {(file.part, file.path) for file in third.manifest.files} - {
        (file.part, file.path) for file in again.manifest.files
    }
    assert third.copied_bytes < len(LARGE)
    assert {part for part, _ in changed} == {"warehouse"}
    restore(tmp_path / "to", tmp_path / "b")
    assert read_everything(tmp_path / "b") == read_everything(home)


def test_a_file_of_the_same_size_and_a_restored_time_counts_as_unchanged_a_young_one_does_not(
    home: Path, tmp_path: Path
) -> None:
    """Reading all bytes each night would take hours; and a file that rots on disk must not replace its sound copy."""
    path = home / "models" / "tiny" / "model.safetensors"
    os.utime(path, ns=(1, 1))
    back_up(home, tmp_path / "to")
    path.write_bytes(b"x" * len(LARGE))
    os.utime(path, ns=(1, 1))
    assert back_up(home, tmp_path / "to").copied_files == 0
    path.write_bytes(b"y" * len(LARGE))
    assert back_up(home, tmp_path / "to").copied_files == 1


def test_a_lost_content_is_copied_again(home: Path, tmp_path: Path) -> None:
    back_up(home, tmp_path / "to")
    lost = max((tmp_path / "to" / "objects").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    lost.write_bytes(b"short")
    assert back_up(home, tmp_path / "to").copied_files == 1
    restore(tmp_path / "to", tmp_path / "b")


def test_older_backups_beyond_keep_are_deleted_with_what_only_they_had(home: Path, tmp_path: Path) -> None:
    only = home / "review" / "only_today.jsonl"
    only.write_bytes(b"only today\n")
    back_up(home, tmp_path / "to")
    only.unlink()
    for _ in range(2):
        kept = back_up(home, tmp_path / "to", keep=2)
    place = open_place(tmp_path / "to")
    assert (place.list_numbers(), kept.dropped, kept.deleted_contents) == ([2, 3], (1,), 1)
    assert set(place.list_contents()) == {file.sha256 for file in kept.manifest.files}
    with pytest.raises(BackupError, match="no complete backup 1; it has 2, 3"):
        choose_backup(place, 1)


def test_a_damaged_older_backup_is_named_and_nothing_is_deleted(home: Path, tmp_path: Path) -> None:
    """Its list is unknown, so that any content may be its own."""
    only = home / "review" / "only_today.jsonl"
    only.write_bytes(b"only today\n")
    back_up(home, tmp_path / "to")
    only.unlink()
    back_up(home, tmp_path / "to")
    damaged = tmp_path / "to" / "manifests" / "000001.json.gz"
    damaged.write_bytes(b"damaged")
    made = back_up(home, tmp_path / "to", keep=1)
    assert (made.dropped, made.deleted_contents) == ((), 0)
    assert made.problem is not None
    assert "000001.json.gz is damaged" in made.problem
    damaged.unlink()
    assert back_up(home, tmp_path / "to", keep=1).deleted_contents == 1


def test_keys_stay_out_unless_asked_for(home: Path, tmp_path: Path) -> None:
    made = back_up(home, tmp_path / "to", with_keys=False)
    assert not {file.part for file in made.manifest.files} & {"erasure_key", "capture_keys"}
    assert not [file for file in made.manifest.files if file.path in {"erasure.key", "capture_keys.json"}]
    assert len(made.manifest.left_out) == 2


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda home: (home / "catalog.db").unlink(), "does not know"),
        (lambda home: (home / "warehouse").rename(home / "gone"), "Mount or restore the warehouse"),
        (lambda home: next((home / "warehouse").rglob("data/*.parquet")).unlink(), "is missing, and a table needs it"),
        (lambda home: [each.unlink() for each in (home / "warehouse").rglob("*.metadata.json")], "is missing"),
        (lambda home: (home / "mlflow.db").write_bytes(b"SQLite format 3\x00 and nothing"), r"mlflow\.db cannot be"),
    ],
    ids=["catalog", "warehouse", "data file", "metadata", "database"],
)
def test_a_half_lost_home_is_no_backup(home: Path, tmp_path: Path, spoil: Callable[[Path], object], match: str) -> None:
    """Taken for a backup it would be the newest, and push out the whole ones."""
    back_up(home, tmp_path / "to")
    spoil(home)
    with pytest.raises((HomeMismatchError, BackupError), match=match):
        back_up(home, tmp_path / "to")
    assert open_place(tmp_path / "to").list_numbers() == [1]


def test_a_place_belongs_to_one_home_and_lies_outside_of_it(home: Path, tmp_path: Path) -> None:
    back_up(home, tmp_path / "to")
    restore(tmp_path / "to", tmp_path / "b")
    with pytest.raises(BackupError, match="each home needs a place of its own"):
        back_up(tmp_path / "b", tmp_path / "to")
    for wrong, match in ((home / "backups", "lies in"), (home, "lies in"), (home.parent, "holds other things")):
        with pytest.raises(BackupError, match=match):
            back_up(home, wrong)
    with pytest.raises(BackupError, match="there is no home"):
        back_up(tmp_path / "typo", tmp_path / "to")
    assert not (tmp_path / "typo").exists()


def test_links_are_followed_and_not_in_circles(home: Path, tmp_path: Path) -> None:
    """A base model is often a link into a hub's cache; the restored home has no such cache."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "blob").write_bytes(b"weights")
    (cache / "model.bin").symlink_to(cache / "blob")
    (cache / "circle").symlink_to(cache)
    (home / "models" / "linked").symlink_to(cache)
    back_up(home, tmp_path / "to")
    restore(tmp_path / "to", tmp_path / "b")
    found = tmp_path / "b" / "models" / "linked"
    assert sorted(path.name for path in found.iterdir()) == ["blob", "model.bin"]
    assert (found / "model.bin").read_bytes() == b"weights"


def test_one_backup_at_a_time(home: Path, tmp_path: Path) -> None:
    lake = Wheel(home).benches[ASSISTANT].lake
    with hold_lock(lake.catalog_uri, lake.scratch / "locks", "backup", 1.0), pytest.raises(CommitContentionError):
        back_up(home, tmp_path / "to")


@pytest.mark.long
def test_files_that_change_while_they_are_copied_are_copied_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = taking._copy_contents
    times: Iterator[bool] = iter((True, True, False))
    path = home / "models" / "tiny" / "model.safetensors"

    def change_first(*arguments: object) -> object:
        if next(times):
            path.write_bytes(path.read_bytes() + b"more")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(taking, "_copy_contents", change_first)
    back_up(home, tmp_path / "to")
    restore(tmp_path / "to", tmp_path / "b")
    assert (tmp_path / "b" / "models" / "tiny" / "model.safetensors").read_bytes() == LARGE + b"moremore"
    times = itertools.repeat(True)
    with pytest.raises(CommitContentionError, match="in the last of 4 attempts"):
        back_up(home, tmp_path / "to")


def erase(home: Path, name: str = PERSON) -> Receipt:
    place = build_erasure_place(load_application(ASSISTANT), Stores(isolate_settings(home)))
    plan = plan_erasure(place, name)
    return erase_person(place, plan, who="ada", reason="asked", now=NOW, grace=timedelta(hours=24))


@pytest.mark.long
def test_an_erased_person_comes_out_of_no_backup(home: Path, tmp_path: Path) -> None:
    """Also not from files that wait for their grace period: only what a snapshot needs is copied."""
    (home / "erasure.key").unlink()
    for _ in range(2):
        back_up(home, tmp_path / "to")
    assert quoting(home / "landing", PERSON)
    receipt = erase(home)
    assert any("the next `flywheel backup" in each for each in receipt.out_of_reach)
    assert quoting(home / "warehouse", PERSON)
    old = open_place(tmp_path / "to").read_manifest(2)
    made = back_up(home, tmp_path / "to")
    place = open_place(tmp_path / "to")
    assert (made.dropped_for_erasures, place.list_numbers()) == ((1, 2), [3])
    assert set(place.list_contents()) == {file.sha256 for file in made.manifest.files}
    restore(tmp_path / "to", tmp_path / "b")
    assert not quoting(tmp_path / "b", PERSON)
    assert read_everything(tmp_path / "b") == read_everything(home)
    # A backup that was killed before it deleted the older ones leaves them for a while.
    place.write_manifest(old)
    with pytest.raises(BackupError, match="made before 1 erasures"):
        choose_backup(place, 2)
    back_up(home, tmp_path / "to")
    assert open_place(tmp_path / "to").list_numbers() == [3, 4]


@pytest.mark.long
def test_the_commands_say_what_they_did(home: Path, tmp_path: Path) -> None:
    made = flywheel(home, "backup", str(tmp_path / "to"))
    assert made.returncode == 0, made.stderr
    assert "backup 1 in" in made.stdout
    assert "erasure.key: a secret" in made.stdout
    done = flywheel(home, "restore", str(tmp_path / "to"), "--to", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verified (assistant" in done.stdout
    assert "and ready" in done.stdout
    assert "not in the backup: " in done.stdout
    used = flywheel(home, "restore", str(tmp_path / "to"))
    assert (used.returncode, "empty place only" in used.stderr) == (1, True)
    assert flywheel(tmp_path / "b", "maintain", "--application", ASSISTANT, "--yes").returncode == 0
    assert day(0) in Wheel(tmp_path / "b").benches[ASSISTANT].lake.count_rows_per_day(
        Wheel(tmp_path / "b").benches[ASSISTANT].tables.gold
    )
