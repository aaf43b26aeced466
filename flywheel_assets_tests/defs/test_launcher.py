"""Which runs count as lost: by host, boot and process, as Dagster's own monitoring asks."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from dagster._grpc.server import GrpcServerProcess

from flywheel_assets.defs.launcher import (
    PROCESS_TAG,
    RunProcess,
    SupervisedRunLauncher,
    explain_unsupervised,
    name_this_process,
)
from flywheel_assets.defs.running import open_instance
from flywheel_assets_tests.command_line import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HERE = msgspec.json.decode(name_this_process()[PROCESS_TAG], type=RunProcess)


@dg.job
def nightly() -> None:
    pass


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path, ROOT / "dagster.yaml") as instance:
        yield instance


def start(instance: dg.DagsterInstance, process: RunProcess | None, worker_id: int | None = None) -> str:
    """A started run with this tag, whose worker said that it has this process id."""
    tags = {} if process is None else {PROCESS_TAG: msgspec.json.encode(process).decode()}
    run = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTED, tags=tags)
    if worker_id is not None:
        said = EngineEventData.in_process(worker_id)
        instance.report_engine_event(f"Started process for run (pid: {worker_id}).", run, said)
    started = DagsterEvent(DagsterEventType.PIPELINE_START.value, nightly.name)
    instance.report_dagster_event(started, run.run_id)
    return run.run_id


def look(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """The run's status after Dagster's monitoring has looked at it."""
    record = instance.get_run_record_by_id(run_id)
    assert isinstance(record, RunRecord)
    monitor_started_run(instance, None, record, logging.getLogger("monitoring"))  # type: ignore[arg-type]
    after = instance.get_run_by_id(run_id)
    assert after is not None
    return after.status


def change(process: RunProcess, **changed: object) -> RunProcess:
    return msgspec.structs.replace(process, **changed)


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(HERE, id="this process"),
        pytest.param(None, id="a run that an older release launched"),
        pytest.param(change(HERE, host="elsewhere", boot_id="another"), id="another host's"),
    ],
)
def test_a_run_that_may_live_is_left_alone(instance: dg.DagsterInstance, process: RunProcess | None) -> None:
    assert isinstance(instance.run_launcher, SupervisedRunLauncher)
    assert look(instance, start(instance, process)) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize(
    ("process", "says"),
    [
        (change(HERE, boot_id="the boot before"), f"{socket.gethostname()} was restarted while it ran"),
        (change(HERE, began_s=HERE.began_s - 90), f"its process {os.getpid()} on {socket.gethostname()} is gone"),
    ],
    ids=["rebooted", "the number is another process's now"],
)
def test_a_lost_run_is_failed(instance: dg.DagsterInstance, process: RunProcess, says: str) -> None:
    run_id = start(instance, process)
    assert look(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert any(says in str(entry.message) for entry in instance.all_logs(run_id))


def test_a_launched_run_is_known_by_the_process_that_its_worker_reports(instance: dg.DagsterInstance) -> None:
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    launch = change(HERE, process_id=None)
    run_id = start(instance, launch, worker.pid)
    late = start(instance, change(launch, began_s=HERE.began_s - 100_000), worker.pid)
    silent = start(instance, launch)
    assert look(instance, run_id) is dg.DagsterRunStatus.STARTED
    assert look(instance, late) is dg.DagsterRunStatus.FAILURE
    worker.kill()
    worker.communicate()
    assert look(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert look(instance, silent) is dg.DagsterRunStatus.STARTED


@pytest.mark.long
def test_a_run_of_a_code_server_at_a_port_is_asked_for(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """In a container of its own: its processes are not seen from here, and it knows its runs."""
    (tmp_path / "location.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    target = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(tmp_path / "location.py"))
    server = GrpcServerProcess(
        instance_ref=instance.get_ref(), loadable_target_origin=target, force_port=True, wait_on_exit=True
    )
    elsewhere = change(HERE, boot_id="the container's")
    with server:
        run_id = start(instance, elsewhere)
        place = {"host": "localhost", "port": server.port}
        instance.add_run_tags(run_id, {GRPC_INFO_TAG: msgspec.json.encode(place).decode()})
        assert look(instance, run_id) is dg.DagsterRunStatus.FAILURE
        unreachable = start(instance, elsewhere)
        instance.add_run_tags(unreachable, {GRPC_INFO_TAG: msgspec.json.encode({**place, "port": 1}).decode()})
        assert look(instance, unreachable) is dg.DagsterRunStatus.STARTED
    assert any("does not know it" in str(entry.message) for entry in instance.all_logs(run_id))


def test_a_dagster_yaml_of_an_older_release_is_named(tmp_path: Path) -> None:
    assert explain_unsupervised(tmp_path / "none") is None
    written = tmp_path / "dagster.yaml"
    written.write_text((ROOT / "dagster.yaml").read_text())
    assert explain_unsupervised(tmp_path) is None
    written.write_text("run_monitoring:\n  enabled: true\n")
    assert "names no run_launcher" in str(explain_unsupervised(tmp_path))
