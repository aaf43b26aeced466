"""Deletes a failed step's temporary files, and turns ENOSPC from any library into `DiskFullError`.

A step builds its days as local files before it touches a table. One that fails removes them again: on a full disk every
attempt would otherwise leave less room than the one before. One that is killed cannot: see `lake.upkeep.garbage`.
"""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from flywheel_assets.errors import DiskFullError
from flywheel_assets.lake.storage.outages import causes, translate_outages


class HasPlaces(Protocol):
    """A lake, as far as its steps' failures are concerned."""

    @property
    def places(self) -> list[Path]:
        """Return the folders of this machine that a step writes to."""


_Lake = TypeVar("_Lake", bound=HasPlaces)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
# DuckDB quotes the C library, unless it spills: then it speaks of its limit, which is what was free. SQLite has words
# of its own, Postgres passes on what its server reports.
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "max_temp_directory_size", "database or disk is full")
_THEIR_SPEAKERS = {"duckdb", "_duckdb", "sqlalchemy", "sqlite3", "psycopg"}
"""Packages of errors that those words are looked for in: anywhere else they may be a user's."""
_ALMOST_FULL_BYTES = 64 * 2**20
"""What is named as full when an error does not say which: SQLite and DuckDB give up before the last byte."""

_built: ContextVar[list[Path] | None] = ContextVar("built", default=None)


def remember_built(path: Path) -> None:
    """Note a local file under construction, for the step at work to remove if it fails."""
    built = _built.get()
    if built is not None:
        built.append(path)


def clean_up_on_failure(
    step: Callable[Concatenate[_Lake, _Arguments], _Result],
) -> Callable[Concatenate[_Lake, _Arguments], _Result]:
    """Decorate a step of the lake: on failure its files are deleted, and outages and full disks are translated."""

    @wraps(step)
    def whole(lake: _Lake, /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        built: list[Path] = []
        outer = _built.set(built)
        try:
            with translate_disk_full(*lake.places), translate_outages():
                return step(lake, *arguments, **keywords)
        except BaseException:
            for path in built:
                path.unlink(missing_ok=True)
            raise
        finally:
            _built.reset(outer)

    return whole


@contextmanager
def translate_disk_full(*places: Path) -> Iterator[None]:
    """Turn any library's error about a full disk into a `DiskFullError` that names the place.

    Args:
        places: where the block may write; those with hardly any room left are named.

    Raises:
        DiskFullError: there was no space left.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(
            f"no space left at {_fullest(places)}. Nothing that was committed is lost and nothing half-written "
            "is visible: make room there, then run it again."
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Return whether a full disk or a used-up quota caused an error of any library that writes."""
    for each in causes(error):
        if isinstance(each, OSError) and each.errno in _FULL_ERRNOS:
            return True
        if type(each).__module__.split(".")[0] in _THEIR_SPEAKERS and any(word in str(each) for word in _FULL_WORDS):
            return True
    return False


def _fullest(places: tuple[Path, ...]) -> str:
    there = {place: next(each for each in (place, *place.parents) if each.exists()) for place in places}
    free = {place: shutil.disk_usage(there[place]).free for place in places}
    full = [place for place in places if free[place] < _ALMOST_FULL_BYTES] or [min(places, key=lambda each: free[each])]
    # Several folders of one disk are one thing to mend.
    disks = {there[place].stat().st_dev: place for place in reversed(full)}
    return " and ".join(f"{place} ({free[place] // 1024} KiB free)" for place in reversed(disks.values()))
