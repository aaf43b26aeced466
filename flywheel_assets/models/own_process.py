"""Defines the protocol of training and evaluation processes.

A process reads a request file and writes a result folder with a report, or an error.

The result folder appears whole; its report says which request it answers, so that the same request again returns it.

The last line of standard error is {"error": class name, "is_transient": bool, "message": str}; the same JSON is left
as `error.json` in the request's work folder, for a parent that does not keep the streams. On a full disk that file may
be missing; the exit code says all the same whether the same request may succeed later.
"""

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from flywheel_assets.errors import DiskFullError, FlywheelError, SettingsError, TransientError, VersionConflictError
from flywheel_assets.lake.storage.failures import is_disk_full, translate_disk_full
from flywheel_assets.lake.storage.files import decode_file, replace_file
from flywheel_assets.models.process_failures import (
    describe_library_error,
    describe_shortage,
    is_failed_write,
    is_held_by_others,
    is_out_of_memory,
)
from flywheel_assets.models.trainers.recipes import decode_recipe

ERROR_FILE = "error.json"
PERMANENT_EXIT, TRANSIENT_EXIT = 1, 75
_USAGE_EXIT = 2
_PASSING_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ENOMEM, errno.ESTALE}


class _Request(Protocol):
    @property
    def output_dir(self) -> str: ...
    @property
    def work_dir(self) -> str: ...


_R = TypeVar("_R", bound=_Request)


class _Report(Protocol):
    @property
    def request_sha256(self) -> str: ...
    @property
    def manifest_sha256(self) -> str: ...


_Reported = TypeVar("_Reported", bound=_Report)
_Decoded = TypeVar("_Decoded")


class Failure(msgspec.Struct, frozen=True):
    """Reports why a process ended without its result."""

    error: str
    is_transient: bool
    message: str


def build_main(request_type: type[_R], run: Callable[[_R], object]) -> Callable[[Sequence[str]], int]:
    """Return the `main` of a process's module; see `run_process`."""
    return partial(run_process, request_type=request_type, run=run)


def run_process(arguments: Sequence[str], request_type: type[_R], run: Callable[[_R], object]) -> int:
    """Decode the request file that is the only argument, run it, and return the exit code.

    0 = done (or done already), 1 = permanent error, 75 = transient (EX_TEMPFAIL), 2 = not called with one argument.
    """
    if len(arguments) != 1:
        print("usage: REQUEST.json", file=sys.stderr)
        return _USAGE_EXIT
    request: _R | None = None
    try:
        request = _decode_file(Path(arguments[0]), request_type)
        work_dir = Path(request.work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        (work_dir / ERROR_FILE).unlink(missing_ok=True)
        run(request)
    except Exception as error:
        # The failed steps' variables may hold the memory that the report needs.
        traceback.clear_frames(error.__traceback__)
        return report_failure(describe_failure(error, request), None if request is None else Path(request.work_dir))
    return 0


def report_failure(failure: Failure, work_dir: Path | None) -> int:
    """Leave a failure in the work folder and on standard error; return the exit code."""
    encoded = msgspec.json.encode(failure)
    # On a full disk neither may work: the exit code has to say enough.
    with suppress(OSError):
        if work_dir is not None and work_dir.is_dir():
            replace_file(work_dir / ERROR_FILE, encoded)
    with suppress(OSError):
        print(encoded.decode(), file=sys.stderr, flush=True)
    return TRANSIENT_EXIT if failure.is_transient else PERMANENT_EXIT


def describe_failure(error: Exception, request: _Request | None) -> Failure:
    """Describe an error for logs: its kind, whether it may pass, and a message without a user's text."""
    name = type(error).__name__
    if isinstance(error, FlywheelError):
        return Failure(name, is_transient(error), str(error))
    # A library's message may quote a user's text, so its traceback is printed without it.
    with suppress(OSError):
        traceback.print_tb(error.__traceback__)
    if is_out_of_memory(error):
        return Failure(name, is_held_by_others(error), describe_shortage(error, request))
    if is_disk_full(error) or is_failed_write(error):
        return Failure(DiskFullError.__name__, is_transient=True, message=_describe_full_disk(request))
    if isinstance(error, OSError) and error.strerror:
        return Failure(name, is_transient(error), f"{error.strerror} ({error.filename or 'no file named'})")
    return Failure(name, is_transient(error), describe_library_error(error))


def find_finished_report(
    report_file: Path, report_type: type[_Reported], request_sha256: str, *, remedy: str
) -> _Reported | None:
    """Return the report of a result folder that answers this request already; None where there is no folder.

    Args:
        report_file: in the result folder.
        report_type: what the file holds.
        request_sha256: digest of everything that decides the result.
        remedy: the action of a person who wants another result.

    Raises:
        VersionConflictError: the folder holds no such report, or the answer to another request.
    """
    if not report_file.parent.exists():
        return None
    if not report_file.exists():
        raise VersionConflictError(
            f"{report_file.parent} exists, but holds no {report_file.name}: no process of ours made it. Remove it."
        )
    report = read_report(report_file, report_type)
    if report.request_sha256 != request_sha256:
        raise VersionConflictError(
            f"{report_file.parent} answers another request, {report.request_sha256[:12]} (export's manifest "
            f"{report.manifest_sha256[:12]}), than the one that is asked now, {request_sha256[:12]}. {remedy}"
        )
    return report


def read_report(report_file: Path, report_type: type[_Decoded]) -> _Decoded:
    """Return what a process reported, also of an older release, whose reports have no schema version.

    Raises:
        DamagedFileError: the file holds something else.
        NewerReleaseError: a newer release wrote it.
    """
    return decode_file(report_file, report_type, advise_on_report(report_file), decode_recipe)


def advise_on_report(report_file: Path) -> str:
    """Return what a person does about a damaged report in its result folder."""
    folder = report_file.parent
    return (
        f"it is the report of a finished process. Restore it from a backup; else `mv {folder} {folder}.damaged && "
        f"flywheel retry {folder.parent.name}`, which makes the folder again."
    )


def write_report(report_file: Path, report: msgspec.Struct) -> None:
    """Write a report for people and programs to read; the result folder that it lies in makes it durable."""
    report_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later: a full disk, or memory that another process holds."""
    if isinstance(error, FlywheelError):
        return isinstance(error, TransientError)
    if isinstance(error, OSError):
        return error.errno in _PASSING_ERRNOS
    return is_out_of_memory(error)


def _describe_full_disk(request: _Request | None) -> str:
    places = [] if request is None else [Path(request.work_dir), Path(request.output_dir).parent]
    try:
        with translate_disk_full(*places or [Path()]):
            raise OSError(errno.ENOSPC, "No space left on device")
    except DiskFullError as full:
        return str(full)


def _decode_file(path: Path, request_type: type[_R]) -> _R:
    try:
        return msgspec.json.decode(path.read_bytes(), type=request_type, dec_hook=decode_recipe)
    except FileNotFoundError as error:
        raise SettingsError(f"the request file {path} does not exist") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} is not a {request_type.__name__}: {error}") from error
