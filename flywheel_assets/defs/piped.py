"""Runs training and evaluation in a process of their own, through Dagster Pipes.

So the code location never imports torch, a trainer out of memory does not kill its run, and the training room knows
nothing of Dagster: the same module runs by hand with the same request file.
"""

import sys
from pathlib import Path
from typing import Protocol

import dagster as dg
import msgspec

from flywheel_assets import errors
from flywheel_assets.errors import FlywheelError, ProcessDiedError
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.models.own_process import ERROR_FILE, Failure
from flywheel_assets.settings import build_subprocess_environment


class _Request(Protocol):
    @property
    def work_dir(self) -> str: ...


def run_in_own_process(
    context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient, module: str, request: _Request
) -> None:
    """Run `module` on `request` in a process of its own and wait for it.

    Raises:
        FlywheelError: the process failed; its error file names the class and the message.
        ProcessDiedError: it ended without an error file, for instance killed for memory.
    """
    work_dir = Path(request.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / ERROR_FILE).unlink(missing_ok=True)
    request_file = work_dir / "request.json"
    replace_file(request_file, msgspec.json.encode(request))
    command = [sys.executable, "-m", "flywheel_assets.defs.piped_entry", module, str(request_file)]
    try:
        environment = build_subprocess_environment(base_model=getattr(request, "base_model", None))
        pipes.run(context=context, command=command, env=environment)
    except dg.DagsterError as error:
        raise _read_error(work_dir, module) from error


def _read_error(work_dir: Path, module: str) -> FlywheelError:
    path = work_dir / ERROR_FILE
    if not path.exists():
        return ProcessDiedError(
            f"{module} ended without a report, perhaps killed for memory; it resumes when run again"
        )
    failure = msgspec.json.decode(path.read_bytes(), type=Failure)
    known = getattr(errors, failure.error, None)
    if isinstance(known, type) and issubclass(known, FlywheelError) and known is not errors.UnknownNameError:
        return known(failure.message)
    kind = errors.TransientError if failure.is_transient else errors.PermanentError
    return kind(f"{failure.error}: {failure.message}")
