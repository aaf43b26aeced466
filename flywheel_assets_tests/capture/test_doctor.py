import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner

from flywheel_assets import cli
from flywheel_assets.capture import doctor
from flywheel_assets.capture.auth.keys import KeyRequest, create_key, revoke_key
from flywheel_assets.capture.doctor import Finding, Verdict, examine_service
from flywheel_assets.settings import Settings, read_settings
from flywheel_assets_tests.capture.samples import NOON


def found(subject: str, home: Path, **changed: Any) -> list[Finding]:
    configured = Settings(home=home, **{"capture_port": 0} | changed)
    return [finding for finding in examine_service(configured, NOON) if finding.subject == subject]


def test_a_new_installation_is_fine_and_said_to_be_open(tmp_path: Path) -> None:
    findings = examine_service(Settings(home=tmp_path, capture_port=0))
    assert [finding.subject for finding in findings] == ["keys", "address", "landing", "privacy", "limits", "queue"]
    assert [finding.verdict for finding in findings] == ["look", "fine", "fine", "fine", "fine", "fine"]
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"


def test_keys(tmp_path: Path) -> None:
    path = Settings(home=tmp_path).resolve_capture_keys_file()
    (finding,) = found("keys", tmp_path, capture_host="0.0.0.0")
    assert finding.verdict is Verdict.BROKEN
    assert "`flywheel keys create`" in finding.remedy
    created = create_key(path, KeyRequest("assistant", "backend"), NOON - timedelta(days=400))
    count, old = found("keys", tmp_path)
    assert (count.verdict, old.verdict) == (Verdict.FINE, Verdict.LOOK)
    assert "400 days old" in old.sentence
    assert created.key_id in old.remedy
    assert created.secret not in repr((count, old))
    revoke_key(path, created.key_id, NOON)
    assert [finding.verdict for finding in found("keys", tmp_path)] == [Verdict.BROKEN]
    path.chmod(0o644)
    assert "chmod 600" in found("keys", tmp_path)[0].sentence


def test_pages_whose_users_nothing_vouches_for_are_named(tmp_path: Path) -> None:
    path = Settings(home=tmp_path).resolve_capture_keys_file()
    create_key(path, KeyRequest("assistant", "site", origins=["https://app.example"]), NOON)
    _, unsigned = found("keys", tmp_path)
    assert unsigned.verdict is Verdict.LOOK
    assert "pages of assistant is signed" in unsigned.sentence
    assert "--webhook" in unsigned.remedy
    create_key(path, KeyRequest("assistant", "users", is_webhook=True), NOON)
    assert [finding.verdict for finding in found("keys", tmp_path)] == [Verdict.FINE]


def test_address(tmp_path: Path) -> None:
    create_key(Settings(home=tmp_path).resolve_capture_keys_file(), KeyRequest("assistant", "backend"), NOON)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (refusing,) = found("address", tmp_path, capture_port=port)
        taken.listen()
        (listening,) = found("address", tmp_path, capture_port=port)
    assert (refusing.verdict, listening.verdict) == (Verdict.BROKEN, Verdict.FINE)
    assert "a proxy with TLS" in found("address", tmp_path, capture_host="0.0.0.0")[0].remedy
    assert found("address", tmp_path, capture_host="not an address")[0].verdict is Verdict.BROKEN


def test_disk(tmp_path: Path) -> None:
    assert found("landing", tmp_path, capture_min_free_bytes=2**60)[0].verdict is Verdict.BROKEN
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    (finding,) = found("landing", tmp_path, landing_dir=blocked)
    assert finding.verdict is Verdict.BROKEN
    assert finding.remedy == "set FLYWHEEL_LANDING_DIR"
    leftover = tmp_path / "landing/assistant/feedback/_open/a.jsonl"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("{}\n")
    assert len(found("landing", tmp_path)) == 1
    os.utime(leftover, (0, 0))
    assert "a.jsonl" in found("landing", tmp_path)[1].sentence


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account of this machine reaches; pytest's own are closed."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_texts_that_others_can_read_are_shown_with_the_command_that_mends_it(open_folder: Path) -> None:
    """Segments, tables and exports with users' texts were readable by every account of the machine (umask 022)."""
    home, outside = open_folder / "home", open_folder / "outside"
    for folder in (home, home / "landing", outside):
        folder.mkdir()
        folder.chmod(0o755)
    (finding,) = found("privacy", home, landing_dir=outside)
    assert finding.verdict is Verdict.LOOK
    assert f"{home} (mode 755), {outside} (mode 755)" in finding.sentence
    assert finding.remedy == f"`chmod -R go-rwx {home}; chmod -R go-rwx {outside}`"
    for folder in (home, outside):
        folder.chmod(0o750)
    assert found("privacy", home, landing_dir=outside)[0].verdict is Verdict.LOOK
    assert found("privacy", home, landing_dir=outside, group_reads=True)[0].verdict is Verdict.FINE
    open_folder.chmod(0o700)
    assert found("privacy", home, landing_dir=outside)[0].verdict is Verdict.FINE, "nobody else gets this far"


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"capture_event_bytes": 2**25 + 1}, Verdict.LOOK),
        ({"capture_in_progress_bytes": 2**20}, Verdict.BROKEN),
    ],
)
def test_limits_that_contradict_each_other(tmp_path: Path, changed: dict[str, int], verdict: Verdict) -> None:
    (finding,) = found("limits", tmp_path, **changed)
    assert finding.verdict is verdict
    assert "raise FLYWHEEL_CAPTURE_" in finding.remedy


def test_queue(tmp_path: Path) -> None:
    assert found("queue", tmp_path, queue="carrier://pigeon")[0].verdict is Verdict.BROKEN
    assert "`flywheel drain` must run" in found("queue", tmp_path, queue="kafka://127.0.0.1:9092/events")[0].sentence


@pytest.mark.parametrize(
    ("environment", "code", "says"),
    [
        ({"FLYWHEEL_CAPTURE_PORT": "0"}, 0, "everybody on this machine"),
        ({"FLYWHEEL_CAPTURE_PORT": "PASSWORD"}, 1, "FLYWHEEL_CAPTURE_PORT: Input should be a valid integer"),
        ({"FLYWHEEL_CAPTURE_HOST": "0.0.0.0", "FLYWHEEL_CAPTURE_PORT": "0"}, 1, "refuses to start"),
    ],
)
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], code: int, says: str
) -> None:
    monkeypatch.setattr(cli.serving.console, "width", 1000)
    read_settings.cache_clear()
    try:
        run = CliRunner().invoke(cli.app, ["doctor"], env={"FLYWHEEL_HOME": str(tmp_path), **environment})
    finally:
        read_settings.cache_clear()
    assert run.exit_code == code, run.output
    assert says in run.output
    assert "PASSWORD" not in run.output


def test_every_verdict_has_a_colour() -> None:
    assert set(cli.serving._COLOURS) == set(doctor.Verdict)
