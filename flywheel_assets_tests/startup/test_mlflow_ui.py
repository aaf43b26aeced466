"""MLflow's server is one process."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel_assets.devservices import stop_processes
from flywheel_assets.startup.readiness import Awaited, is_answering, wait_until_ready


def count_processes(session: int) -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        found += int(fields[3]) == session and fields[0] != "Z"
    return found


@pytest.mark.slow
def test_the_server_is_one_process_that_answers_and_ends(tmp_path: Path) -> None:
    """`mlflow server` was eleven processes of 1.7 GB together, for jobs that the flywheel never starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "flywheel_assets.startup.mlflow_ui", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"),
            *("--default-artifact-root", (tmp_path / "artifacts").as_uri()),
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        start_new_session=True,
    )
    try:

        def check_alive() -> None:
            assert server.poll() is None, "it ended"

        wait_until_ready([Awaited("mlflow", f"http://127.0.0.1:{port}/health")], check_alive, lambda *_: None)
        assert count_processes(server.pid) == 1
        assert is_answering(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1")
    finally:
        stop_processes([server])
    assert server.returncode in (0, -signal.SIGTERM)
