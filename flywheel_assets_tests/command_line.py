"""`flywheel` as a person sees it, without the two CPU seconds that a process of its own takes to start."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from flywheel_assets import cli
from flywheel_assets.settings import read_settings

ROOT = Path(__file__).parent.parent
_WIDTH = 200


@dataclass(frozen=True)
class Finished:
    """What a command left behind, under the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def flywheel(home: Path, *arguments: str, folder: Path = ROOT, width: int = _WIDTH) -> Finished:
    """Run a command on `home` from `folder`."""
    stdout, stderr = io.StringIO(), io.StringIO()
    returncode = 0
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(stdout), redirect_stderr(stderr):
        patched.chdir(folder)
        patched.delenv("DAGSTER_HOME", raising=False)
        patched.setenv("FLYWHEEL_HOME", str(home))
        patched.setenv("COLUMNS", str(width))
        patched.setattr(sys, "argv", ["flywheel", *arguments])
        for console in (cli.terminal.console, cli.terminal.errors):
            # They were made when the module was imported, as wide as the terminal was then.
            patched.setattr(console, "width", width)
        read_settings.cache_clear()
        try:
            cli.main()
        except SystemExit as ended:
            returncode = ended.code if isinstance(ended.code, int) else 1
        finally:
            read_settings.cache_clear()
    return Finished(returncode, stdout.getvalue(), stderr.getvalue())
