"""Opens the Pipes session in the process that `defs.piped` starts, and runs a module's `main`.

It imports no Dagster except `dagster_pipes`.
"""

import ctypes
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from dagster_pipes import open_dagster_pipes

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl(2)."""


def main(module: str, request_file: str, parent_id: str) -> int:
    """Run `module.main([request_file])` within the Pipes session and return its exit code."""
    _end_with(int(parent_id))
    with open_dagster_pipes():
        try:
            run = import_module(module).main
        except Exception as error:
            # The process's own report begins in `main`; a library that is broken or missing fails before it.
            from flywheel_assets.models.own_process import describe_failure, report_failure

            return report_failure(describe_failure(error, None), Path(request_file).parent)
        return int(run([request_file]))


def _end_with(parent_id: int) -> None:
    """Let Linux kill this process when its run's is killed: the next attempt would begin next to it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent_id:  # killed before the line above
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
