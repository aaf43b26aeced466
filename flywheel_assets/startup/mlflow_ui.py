"""Runs MLflow's server as one process: no job runner, no parent that only waits.

`mlflow server` of 3.17 is eleven processes of 1.7 GB, nine of which run jobs that the flywheel never starts, and one
that waits for the server, 205 MB by itself. Here the process that would wait becomes the server.

    python -m flywheel_assets.startup.mlflow_ui --host 127.0.0.1 --port 5000 --backend-store-uri …
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


def run_server(arguments: Sequence[str]) -> None:
    """Run `mlflow server` with these arguments in this process."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    import mlflow.cli
    import mlflow.server

    def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_: Any) -> NoReturn:
        os.environ.update(extra_env)
        os.execvp(command[0], list(command))  # noqa: S606

    if hasattr(mlflow.server, "_exec_cmd"):
        # Of another version of MLflow nothing is replaced: then its parent waits, and costs its memory.
        mlflow.server._exec_cmd = become
    mlflow.cli.cli(["server", *arguments], prog_name="mlflow")


if __name__ == "__main__":
    run_server(sys.argv[1:])
