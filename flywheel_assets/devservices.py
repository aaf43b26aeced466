"""Starts and stops the services of one developer's machine together: Dagster, capture, MLflow's UI.

What they print goes into `<home>/logs`, one file each: the terminal says when everything answers, and what to do first.


One set of them works on a home. The services inherit the lock that says so: they hold it as long as one of them lives,
even when `flywheel dev` itself was killed.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flywheel_assets.discovery import find_applications
from flywheel_assets.errors import SettingsError
from flywheel_assets.extras import find_missing, write_install_command
from flywheel_assets.settings import build_subprocess_environment, read_settings
from flywheel_assets.startup.checks import check_workspace
from flywheel_assets.startup.readiness import Awaited, print_ready, wait_until_ready
from flywheel_assets.stores import prepare_dagster_home

_STOP_DEADLINE_S = 20.0
_LOCK_FILE = "dev.lock"


@dataclass(frozen=True)
class Service:
    """Describes one process group and its address for people."""

    name: str
    command: Sequence[str]
    address: str
    probe: str = ""
    """Address that answers once the service works; empty: nothing answers."""


def run_services(webserver_port: int, mlflow_port: int, console: Console, *, show_logs: bool = False) -> None:
    """Start everything on loopback, wait until it answers, and print the addresses and what to do first.

    It stops everything on SIGINT, SIGTERM, SIGHUP or when one service dies.

    Raises:
        SettingsError: there is no workspace.yaml here, it lacks an application, other services work on this home, or a
            service ended by itself.
    """
    workspace = Path("workspace.yaml")
    if not workspace.exists():
        raise SettingsError(f"{workspace.absolute()} does not exist; run from the project's folder")
    check_workspace(workspace)
    where = read_settings()
    dagster_home = where.resolve_dagster_home()
    prepare_dagster_home(dagster_home)
    environment = build_subprocess_environment(
        DAGSTER_HOME=str(dagster_home),
        FLYWHEEL_HOME=str(where.resolve_home()),
        MLFLOW_DISABLE_TELEMETRY="true",
        # Each new thread would take an arena of its own: some tens of MB a process.
        MALLOC_ARENA_MAX="2",
        FLYWHEEL_DAGSTER_URL=f"http://127.0.0.1:{webserver_port}",
        # An address where nothing answers would be a dead link on the wheel's page.
        **({"FLYWHEEL_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}"} if _has_mlflow() else {}),
    )
    services = _list_services(webserver_port, mlflow_port)
    capture = f"http://{where.capture_host}:{where.capture_port}"
    # A closed terminal must stop them too: the services have sessions of their own and would live on.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    processes: list[subprocess.Popen[bytes]] = []
    with hold_home(where.resolve_home()) as lock:
        try:
            for service in services:
                log = None if show_logs else where.resolve_home() / "logs" / f"{service.name}.log"
                processes.append(_start_service(service, environment, log, lock))
                _note_processes(lock, processes)
            console.print(f"starting {', '.join(service.name for service in services)} …", highlight=False)
            if not _has_mlflow():
                console.print(
                    f"without MLflow's pages: they come with training, {write_install_command('tracking')}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            wait_until_ready(
                [Awaited(service.name, service.probe) for service in services if service.probe],
                lambda: _check_alive(services, processes),
                lambda each, seconds: console.print(f"  {each.name} answers after {seconds:.0f} s", highlight=False),
            )
            addresses = [("wheel", capture), *((service.name, service.address) for service in services)]
            if not show_logs:
                addresses.append(("logs", str(where.resolve_home() / "logs")))
            print_ready(console, addresses, capture, next(iter(find_applications())))
            _wait_for_first_exit(services, processes)
        except KeyboardInterrupt:
            console.print("stopping …")
        finally:
            stop_processes(processes)


@contextmanager
def hold_home(home: Path) -> Iterator[int]:
    """Hold a home for one set of services; yields the lock's descriptor, for them to inherit.

    Raises:
        SettingsError: another set works on it; the sentence has the command that ends it.
    """
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            groups = " ".join(f"-{each}" for each in os.pread(descriptor, 1000, 0).decode().split())
            # Dagster's services do not end by SIGTERM alone; capture seals its segments on it.
            end = (
                f"; if it is not needed, end it: `kill -- {groups}; sleep 20; kill -KILL -- {groups}`" if groups else ""
            )
            raise SettingsError(
                f"another `flywheel dev`, or a service that it left behind, works on {home}{end}. Or set FLYWHEEL_HOME "
                "to another folder, and give the ports of all services"
            ) from None
        os.ftruncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _has_mlflow() -> bool:
    return not find_missing("tracking", ("mlflow",))


def _note_processes(lock: int, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    os.pwrite(lock, " ".join(str(process.pid) for process in processes).encode(), 0)


def _list_services(webserver_port: int, mlflow_port: int) -> list[Service]:
    where = read_settings()
    artifacts = where.resolve_home() / "mlartifacts"
    services = [
        Service(
            "dagster",
            [
                *(sys.executable, "-m", "flywheel_assets.webserver", "dev"),
                *("-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(webserver_port)),
            ],
            f"http://127.0.0.1:{webserver_port}",
            f"http://127.0.0.1:{webserver_port}/server_info",
        ),
        Service(
            "capture",
            [sys.executable, "-m", "flywheel_assets.cli", "capture"],
            f"http://{where.capture_host}:{where.capture_port}/v1/<application>/…",
            f"http://{where.capture_host}:{where.capture_port}/readyz",
        ),
    ]
    if _has_mlflow():
        services.append(
            Service(
                "mlflow",
                [
                    *(sys.executable, "-m", "flywheel_assets.startup.mlflow_ui"),
                    *("--host", "127.0.0.1", "--port", str(mlflow_port)),
                    *("--backend-store-uri", where.resolve_mlflow_uri(), "--default-artifact-root", artifacts.as_uri()),
                    *("--workers", "1"),
                ],
                # MLflow 3.17 opens on its GenAI pages, which do not list runs.
                f"http://127.0.0.1:{mlflow_port}/#/experiments?workflowType=machine_learning",
                f"http://127.0.0.1:{mlflow_port}/health",
            )
        )
    if where.queue != "local":
        services.append(
            Service("drain", [sys.executable, "-m", "flywheel_assets.cli", "drain"], f"{where.queue} → landing zone")
        )
    return services


def _start_service(
    service: Service, environment: Mapping[str, str], log: Path | None = None, lock: int | None = None
) -> "subprocess.Popen[bytes]":
    """Start one service, which inherits `lock`; what it prints goes into `log`, or to this terminal."""
    # Each service has a process group of its own, so that its children end with it: `dagster dev` alone outlived SIGINT
    # by a minute.
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("wb") as out:
        return subprocess.Popen(
            list(service.command),
            env=dict(environment),
            start_new_session=True,
            pass_fds=[] if lock is None else [lock],
            stdout=out,
            stderr=out,
        )


def _check_alive(services: Sequence[Service], processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for service, process in zip(services, processes, strict=True):
        code = process.poll()
        if code is not None:
            raise SettingsError(
                f"{service.name} ended with {code}; the end of <home>/logs/{service.name}.log says why, or its output "
                "above with `flywheel dev --show-logs`"
            )


def _wait_for_first_exit(services: Sequence[Service], processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    while True:
        _check_alive(services, processes)
        time.sleep(0.5)


def stop_processes(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End the process groups: first by SIGTERM, after a deadline by SIGKILL."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_DEADLINE_S
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
