"""A machine that goes down in the middle of a run, as a reboot or a power cut does it."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.defs.launcher import PROCESS_TAG
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.e2e.real_daemon import (
    JOB,
    VERSION,
    RunningDaemon,
    list_ended,
    open_filled_home,
    read_sentence,
    running_daemon,
)
from flywheel_assets_tests.saboteur import write_saboteur


def list_tree(root: int) -> list[int]:
    """The process and all that descend from it, in any session."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for each in found:
        found += children.get(each, [])
    return found


def find_running(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    found = instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=[dg.DagsterRunStatus.STARTED]))
    return found[0] if found else None


def kill_in_mid_run(instance: dg.DagsterInstance, daemon: RunningDaemon) -> str:
    """Wait until the trainer runs, then kill everything at once; returns the run's id."""

    def trains() -> bool:
        return any(b"train.py" in read_command(each) for each in list_tree(daemon.process_id))

    daemon.wait_for(lambda: find_running(instance) and trains())
    run = find_running(instance)
    assert run is not None
    for each in list_tree(daemon.process_id):
        os.kill(each, signal.SIGKILL)
    return str(run.run_id)


def read_command(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_run_whose_machine_went_down_is_failed_and_tried_again(tmp_path: Path) -> None:
    """It stayed STARTED until the limit of run time, six hours later, and nothing else could use the gpu pool."""
    saboteur = write_saboteur(tmp_path / "trainer")
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    quick = (ROOT / "dagster.yaml").read_text().replace("poll_interval_seconds: 30", "poll_interval_seconds: 1")
    (home / "dagster" / "dagster.yaml").write_text(quick)
    saboteur.do("wait")
    with open_filled_home(home, saboteur) as instance:
        with running_daemon(tmp_path, saboteur) as daemon:
            killed = kill_in_mid_run(instance, daemon)
        assert instance.get_run_by_id(killed).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
        saboteur.do("nothing")
        with running_daemon(tmp_path, saboteur) as daemon:
            daemon.wait_for(lambda: len(list_ended(instance)) >= 2)
        first, second = list_ended(instance)
        assert first.run_id == killed
        assert first.status is dg.DagsterRunStatus.FAILURE
        assert PROCESS_TAG in first.tags
        said = [str(entry.message) for entry in instance.all_logs(killed) if "is gone" in str(entry.message)]
        assert said, [str(entry.message) for entry in instance.all_logs(killed)][-3:]
        assert second.tags["dagster/partition"] == VERSION
        assert second.status is dg.DagsterRunStatus.SUCCESS, read_sentence(instance, second)
