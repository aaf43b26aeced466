"""Tells Dagster's run monitoring which runs have lost their process.

Dagster's default launcher cannot answer that. A run whose machine was rebooted, or whose code server was killed with
it, stayed STARTED and held the gpu pool's slot until the limit of run time, six hours later. With this launcher in
dagster.yaml the monitoring fails such a run at its next look, so that its slot is free, people are alerted and the
training trigger runs the version again.

A process is known by three things together: the host's name, the boot id of its kernel, and when it began, in seconds
since that boot. The wall clock is not asked: it may jump. A process id alone is not enough: the kernel gives it again.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import dagster as dg
import msgspec
from dagster import DagsterEventType
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.instance.config import dagster_instance_config
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value

PROCESS_TAG = "flywheel/process"
_GRPC_TAG = ".dagster/grpc_info"
_STARTED_WORKER = "Started process for run"
_LONGEST_START_S = 600.0
"""A process that began later after its launch has only got the worker's number: Dagster gives up a start sooner."""
_TICK_S = 1.0


class RunProcess(msgspec.Struct, frozen=True):
    """Names the process of a run."""

    host: str
    boot_id: str | None
    """None: this system does not tell, so that only the process id says whether the process lives."""
    began_s: float
    """Seconds from the boot to its begin; of a launched run to the launch, which its worker follows."""
    process_id: int | None = None
    """None: the worker reports it in the run's event log."""


def name_this_process() -> dict[str, str]:
    """Return the tag of a run that this process executes itself, as `flywheel turn` does."""
    process_id = os.getpid()
    began_s = _read_begin_s(process_id)
    here = RunProcess(socket.gethostname(), _read_boot_id(), began_s or 0.0, process_id)
    return {PROCESS_TAG: msgspec.json.encode(here).decode()}


def explain_unsupervised(dagster_home: Path) -> str | None:
    """Say what an older release's dagster.yaml lacks; None: nothing, or it does not exist.

    A dagster.yaml in DAGSTER_HOME is the operator's: a new release does not change it.
    """
    if not (dagster_home / "dagster.yaml").exists():
        return None
    configured, _ = dagster_instance_config(str(dagster_home))
    if configured.get("run_launcher") or not configured.get("run_monitoring", {}).get("enabled", True):
        return None
    return (
        f"{dagster_home / 'dagster.yaml'} names no run_launcher: a run whose machine was rebooted keeps its place in "
        "the queue until the limit of run time"
    )


class SupervisedRunLauncher(DefaultRunLauncher):
    """Launches as the default launcher does, and says whether a run's process lives."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, object]
    ) -> "SupervisedRunLauncher":
        """See the base class."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Note where and when the run is launched, then launch it."""
        launch = RunProcess(socket.gethostname(), _read_boot_id(), _read_uptime_s())
        tags = {PROCESS_TAG: msgspec.json.encode(launch).decode()}
        self._instance.add_run_tags(context.dagster_run.run_id, tags)
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return that it does."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a started run lives; a run about which nothing is known counts as alive."""
        lost = self._find_loss(run)
        return CheckRunHealthResult(WorkerStatus.RUNNING if lost is None else WorkerStatus.FAILED, lost)

    def _find_loss(self, run: dg.DagsterRun) -> str | None:
        served = msgspec.json.decode(run.tags.get(_GRPC_TAG, "{}"), type=dict[str, object])
        if served.get("port"):
            return self._ask_server(run)
        known = run.tags.get(PROCESS_TAG)
        if known is None:
            return None
        process = msgspec.json.decode(known, type=RunProcess)
        if process.host != socket.gethostname():
            return None
        if process.boot_id != _read_boot_id():
            return f"{process.host} was restarted while it ran"
        process_id = process.process_id or self._read_worker_id(run.run_id)
        if process_id is None:
            return None
        began_s = _read_begin_s(process_id)
        latest_s = process.began_s + (_TICK_S if process.process_id else _LONGEST_START_S)
        if began_s is None or not process.began_s - _TICK_S <= began_s <= latest_s:
            return f"its process {process_id} on {process.host} is gone"
        return None

    def _ask_server(self, run: dg.DagsterRun) -> str | None:
        """Ask a code server at a port, whose processes this machine may not see: in a container of its own."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return None
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return None
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return None
        return "its code server was restarted and does not know it"

    def _read_worker_id(self, run_id: str) -> int | None:
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            event = entry.get_dagster_event()
            if (event.message or "").startswith(_STARTED_WORKER):
                number = event.engine_event_data.metadata["pid"].value
                return int(str(number))
        return None


def _read_boot_id() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _read_uptime_s() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.clock_gettime(clock)


def _read_begin_s(process_id: int) -> float | None:
    """Read when a process began, in seconds since the boot; None: it is gone."""
    try:
        after_name = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        return 0.0 if _is_alive(process_id) else None
    return None if after_name[0] in "ZX" else int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
