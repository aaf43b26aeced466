"""Files with users' texts are their owner's alone, and a home that cannot be written to is a sentence."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.settings import Settings, explain_unwritable, keep_files_private, read_settings
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.mounted_disk import mount_disk


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def read_umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_what_a_command_writes_is_its_user_s_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = flywheel(home, "keys", "create", "assistant", "--holder", "backend")
    assert made.returncode == 0, made.stderr
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (home, *home.rglob("*"))} == {0}
    assert read_umask() == 0o022, "only the command's own time"


def test_a_process_that_loads_definitions_writes_private_files(tmp_path: Path) -> None:
    """Dagster's runs, started by a daemon of their own, and their trainers, which inherit it."""
    preference_flywheel(APPLICATION, Stores(home=str(tmp_path)))
    assert read_umask() == 0o077


def test_a_group_reads_where_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_GROUP_READS", "true")
    read_settings.cache_clear()
    try:
        assert keep_files_private() == 0o022
        assert read_umask() == 0o027
    finally:
        monkeypatch.undo()
        read_settings.cache_clear()


def test_a_narrower_umask_stays() -> None:
    os.umask(0o177)
    keep_files_private()
    assert read_umask() == 0o177


@pytest.mark.parametrize(
    "command", ["gold list", "keys list", "turn", "dev", "capture", "maintain", "import file.jsonl"]
)
def test_a_home_that_is_no_folder_is_a_sentence(tmp_path: Path, command: str) -> None:
    """Each command ended in another traceback."""
    (tmp_path / "file").write_text("")
    ended = flywheel(tmp_path / "file" / "home", *command.split())
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        f"error: SettingsError: {tmp_path}/file is no folder: remove it, or set FLYWHEEL_HOME"
    )


def test_a_home_on_a_disk_that_is_read_only_is_a_sentence(tmp_path: Path) -> None:
    with mount_disk(tmp_path / "disk", 1) as disk:
        home = disk.folder / "home"
        (home / "landing").mkdir(parents=True)
        assert explain_unwritable(Settings(home=home)) is None
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
        ended = flywheel(home, "gold", "list")
        assert ended.returncode == 1
        assert f"{home} lies on a disk that is mounted read-only" in ended.stderr
        assert flywheel(home, "doctor", width=400).stdout.count("mounted read-only") == 1
        assert flywheel(home, "gold", "--help").returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_of_another_user_is_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    assert "`sudo chown -R" in str(explain_unwritable(Settings(home=home)))
    assert f"make {home / 'below'} there" in str(explain_unwritable(Settings(home=home / "below")))
