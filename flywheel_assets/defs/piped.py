"""Runs training and evaluation in a process of their own, through Dagster Pipes.

So the code location never imports torch, a trainer out of memory does not kill its run, and the training room knows
nothing of Dagster: the same module runs by hand with the same request file.

How the process ended decides what its run reports: its error file where there is one, else the signal that ended it,
else its exit code. `PipesSubprocessClient.run` gives none of them: it raises `DagsterPipesExecutionError`, which is no
`DagsterError`, with the code in a sentence. So the process is started here, with the client's parts.

Its run has no limit of time that a long training could meet: it is ended when it has written nothing into its work
folder for six hours. Trainers leave checkpoints there, evaluators the scores of each model.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import dagster as dg
import msgspec

from flywheel_assets import errors
from flywheel_assets.errors import DiskFullError, FlywheelError, PermanentError, ProcessDiedError, TransientError
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.models.own_process import ERROR_FILE, TRANSIENT_EXIT, Failure
from flywheel_assets.models.process_failures import advise_on_memory
from flywheel_assets.settings import build_subprocess_environment

_DEATHS_FILE = "deaths.json"
_ENDED_FROM_OUTSIDE = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_ALMOST_FULL_BYTES = 2**20
_ORDINALS = {2: "nd", 3: "rd"}
_MOST_CRASHES = 2
"""A crash that comes again in the same way is the request's: a third attempt would end so too."""
LONGEST_SILENCE_S = 6 * 3600.0
_LOOK_S = 30.0
_TEMPORARY_FOLDERS = ("fit-*", "model-*", "export-*", "scoring-*")
"""Folders with rows that classifiers' processes make in their work folder; a killed one cannot remove them."""


class _Request(Protocol):
    @property
    def output_dir(self) -> str: ...
    @property
    def work_dir(self) -> str: ...


class _Deaths(msgspec.Struct, frozen=True):
    """Counts the ends without a report in a row that were alike."""

    how: str
    times: int


@dataclass(frozen=True)
class _Ended:
    code: int
    """0: well; negative: the signal that ended it."""
    peak_bytes: int
    """Most memory that the process held."""
    was_memory_short: bool
    """The kernel ended a process of this machine for memory meanwhile."""
    was_silent: bool = False
    """It was ended here, because it had left no sign of progress for too long."""


def run_in_own_process(
    context: dg.AssetExecutionContext,
    pipes: dg.PipesSubprocessClient,
    module: str,
    request: _Request,
    *,
    longest_silence_s: float = LONGEST_SILENCE_S,
) -> None:
    """Run `module` on `request` in a process of its own and wait for it.

    Args:
        context: of the step that waits.
        pipes: how the process reports to Dagster.
        module: has the `main` to run.
        request: what it is asked; written to a file in its work folder.
        longest_silence_s: the process is ended after this time without a change in its work folder, in seconds.

    Raises:
        FlywheelError: the process failed; its error file names the class and the message.
        ProcessDiedError: it was killed, or left no sign of progress, or crashed for the first time.
        PermanentError: it crashed twice in a row in the same way.
        DiskFullError: it ended without an error file, and the work folder's disk is full.
    """
    work_dir = Path(request.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / ERROR_FILE).unlink(missing_ok=True)
    request_file = work_dir / "request.json"
    replace_file(request_file, msgspec.json.encode(request))
    entry = "flywheel_assets.defs.piped_entry"
    command = [sys.executable, "-m", entry, module, str(request_file), str(os.getpid())]
    ended = _run(context, pipes, command, getattr(request, "base_model", None), work_dir, longest_silence_s)
    if ended.code == 0 or (work_dir / ERROR_FILE).exists():
        (work_dir / _DEATHS_FILE).unlink(missing_ok=True)
    if ended.code:
        raise _explain(ended, module.split(".")[1], request)


def _run(
    context: dg.AssetExecutionContext,
    pipes: dg.PipesSubprocessClient,
    command: Sequence[str],
    base_model: str | None,
    work_dir: Path,
    longest_silence_s: float,
) -> _Ended:
    killed_before = _count_kills_for_memory()
    with dg.open_pipes_session(
        context=context, context_injector=pipes.context_injector, message_reader=pipes.message_reader
    ) as session:
        environment = {
            **build_subprocess_environment(base_model=base_model),
            **pipes.env,
            **session.get_bootstrap_env_vars(),
        }
        child = subprocess.Popen(command, cwd=pipes.cwd, env=environment)
        try:
            with _ending_when_silent(child, work_dir, longest_silence_s) as was_silent:
                # Not `child.wait()`: only this call returns how much memory a killed process held.
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            _stop(child, pipes.termination_timeout_seconds)
            raise
    peak_bytes = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _Ended(child.returncode, peak_bytes, _count_kills_for_memory() > killed_before, was_silent.is_set())


@contextmanager
def _ending_when_silent(child: "subprocess.Popen[bytes]", work_dir: Path, longest_silence_s: float) -> Iterator[Event]:
    """Kill the process once its work folder has not changed for this long; the event says that it was done."""
    has_ended, was_silent = Event(), Event()

    def watch() -> None:
        seen, silent_s = None, 0.0
        look_s = min(_LOOK_S, longest_silence_s / 4)
        while not has_ended.wait(look_s):
            now = _read_traces(work_dir)
            silent_s = silent_s + look_s if now == seen else 0.0
            seen = now
            if silent_s >= longest_silence_s:
                was_silent.set()
                child.kill()
                return

    watcher = Thread(target=watch, name="watch for progress", daemon=True)
    watcher.start()
    try:
        yield was_silent
    finally:
        has_ended.set()
        watcher.join()


def _read_traces(work_dir: Path) -> set[tuple[str, int, int]]:
    """Read name, time and size of every file in the work folder."""
    found = set()
    for folder, _, names in os.walk(work_dir):
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                stat = os.stat(path)
                found.add((path, stat.st_mtime_ns, stat.st_size))
    return found


def _stop(child: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """End the process of a canceled run: it must not train on with no run that waits for it."""
    child.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout_s)
    child.kill()
    child.wait()


def _explain(ended: _Ended, kind: str, request: _Request) -> FlywheelError:
    work_dir, who = Path(request.work_dir), f"the {kind} process"
    report = work_dir / ERROR_FILE
    if report.exists():
        return _restore_error(who, msgspec.json.decode(report.read_bytes(), type=Failure))
    _remove_leftovers(request)
    free = shutil.disk_usage(work_dir).free
    if ended.code > 0 and (free < _ALMOST_FULL_BYTES or ended.code == TRANSIENT_EXIT):
        return DiskFullError(
            f"{who} could not leave its report in {work_dir} ({free // 1024} KiB free). Nothing half-written is "
            "visible: make room there, then run it again."
        )
    how = signal.Signals(-ended.code).name if ended.code < 0 else f"exit code {ended.code}"
    return _explain_death(ended, who, how, _count_death(work_dir / _DEATHS_FILE, how), request)


def _explain_death(ended: _Ended, who: str, how: str, times: int, request: _Request) -> FlywheelError:
    again = "" if times == 1 else f" for the {times}{_ORDINALS.get(times, 'th')} time in a row"
    machine = _to_gib(_read_machine_bytes())
    peak = f"after it held at most {_to_gib(ended.peak_bytes)} of this machine's {machine} of memory"
    continues = "It goes on from its last checkpoint, where there is one."
    if ended.was_silent:
        return ProcessDiedError(
            f"{who} was ended{again}: nothing in {request.work_dir} had changed for hours. {continues}"
        )
    if ended.code == -signal.SIGKILL:
        killed = f"{who} was killed{again} (SIGKILL) {peak}"
        if ended.was_memory_short:
            return ProcessDiedError(f"{killed}: the kernel ended a process for memory. {advise_on_memory(request)}")
        if times > 1:
            return ProcessDiedError(f"{killed}: most likely memory is too small. {advise_on_memory(request)}")
        return ProcessDiedError(f"{killed}, by a person, or by the system for memory. {continues}")
    if -ended.code in _ENDED_FROM_OUTSIDE:
        return ProcessDiedError(f"{who} was ended from outside{again} ({how}). {continues}")
    crashed = f"{who} crashed{again} ({how}) {peak}; the step's stderr has its last lines."
    return PermanentError(crashed) if times >= _MOST_CRASHES else ProcessDiedError(f"{crashed} {continues}")


def _restore_error(who: str, failure: Failure) -> FlywheelError:
    known = getattr(errors, failure.error, None)
    # Not one that is built from something else than its message.
    if isinstance(known, type) and issubclass(known, FlywheelError) and known.__init__ is FlywheelError.__init__:
        return known(failure.message)
    kind = TransientError if failure.is_transient else PermanentError
    with_kind = "" if failure.message.startswith(failure.error) else f" with {failure.error}"
    return kind(f"{who} failed{with_kind}: {failure.message}")


def _remove_leftovers(request: _Request) -> None:
    """Remove what a killed process could not: its half-written result, and rows in its work folder."""
    output, work_dir = Path(request.output_dir), Path(request.work_dir)
    found = [*output.parent.glob(f".{output.name}.*"), *(each for p in _TEMPORARY_FOLDERS for each in work_dir.glob(p))]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)


def _count_death(path: Path, how: str) -> int:
    """Count one more end of this kind; the count is lost where it cannot be written."""
    before = msgspec.json.decode(path.read_bytes(), type=_Deaths) if path.exists() else _Deaths(how, 0)
    times = before.times + 1 if before.how == how else 1
    with suppress(OSError):
        replace_file(path, msgspec.json.encode(_Deaths(how, times)))
    return times


def _count_kills_for_memory() -> int:
    """Return how many processes the kernel has ended for memory since this machine started; 0 where unknown."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _read_machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _to_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
