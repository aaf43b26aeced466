"""What appears under its final name is whole, although another process writes it at the same moment."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flywheel_assets.lake.storage.files import replace_file, write_folder
from flywheel_assets.lake.upkeep.garbage import find_unfinished_work
from flywheel_assets.lake.versions.folders import Versions


@pytest.fixture(autouse=True)
def equal_process_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of every container is number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)


def write(
    final: Path,
    text: str,
    meanwhile: Callable[[], None] = lambda: None,
    raises: type[BaseException] | None = None,
    before_rename: Callable[[], None] = lambda: None,
) -> None:
    with write_folder(final, before_rename=before_rename) as building:
        (building / "report.json").write_text(text)
        meanwhile()
        if raises:
            raise raises


def test_containers_with_equal_process_ids_do_not_write_into_one_folder(tmp_path: Path) -> None:
    """Named by process id, the second emptied the first one's folder, which then appeared with half of each."""
    final = tmp_path / "training"
    with write_folder(final) as first:
        (first / "model.txt").write_text("first")
        with pytest.raises(KeyboardInterrupt):
            write(final, "second", raises=KeyboardInterrupt)
        (first / "report.json").write_text("first")
    assert {path.name: path.read_text() for path in final.iterdir()} == {"model.txt": "first", "report.json": "first"}
    assert list(tmp_path.iterdir()) == [final]


def test_of_two_writers_the_one_that_is_late_leaves_the_other_ones_folder_as_it_is(tmp_path: Path) -> None:
    final = tmp_path / "training"
    with pytest.raises(FileExistsError):
        write(final, "late", meanwhile=lambda: write(final, "early"))
    assert (final / "report.json").read_text() == "early"
    assert list(tmp_path.iterdir()) == [final]


def test_of_two_that_replace_the_last_one_stays_whole(tmp_path: Path) -> None:
    final = tmp_path / "evaluation"
    with write_folder(final, replaces=True) as first:
        (first / "first.json").write_text("1")
    with write_folder(final, replaces=True) as late:
        (late / "late.json").write_text("2")
        with write_folder(final, replaces=True) as early:
            (early / "early.json").write_text("3")
    assert [path.name for path in final.iterdir()] == ["late.json"]
    assert list(tmp_path.iterdir()) == [final]


def test_what_a_check_before_the_rename_forbids_does_not_appear(tmp_path: Path) -> None:
    def lost() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        write(tmp_path / "export", "{}", before_rename=lost)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_recognised_as_unfinished(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "assistant")
    training = versions.folder("dpo_gold_v1").training
    left = write_folder(training)
    building = left.__enter__()
    replace_file(training.with_name("pin.json"), b"{}")
    assert find_unfinished_work(tmp_path / "scratch", versions) == [building]
    left.__exit__(None, None, None)
    assert training.is_dir()
