"""Translates outages and full disks into errors of ours, and deletes the temporary files of failed steps.

Libraries report outages in different ways: SQLAlchemy by the class of an error, Arrow in the text of an `OSError`; for
boto3 see `lake.storage.s3`. All outages become `CatalogUnavailableError` or `StorageUnavailableError`, which say that
repeating is safe. It is: a commit is found by its key, an export appears under its name whole or not at all, and
unfinished files are swept. ENOSPC from any library becomes `DiskFullError`.

A step builds its days as local files before it touches a table. A failed step removes them again: on a full disk every
attempt would otherwise leave less room than the one before. A killed step cannot: see `lake.upkeep.garbage`.
"""

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from flywheel_assets.errors import (
    CatalogUnavailableError,
    DiskFullError,
    FlywheelError,
    SettingsError,
    StorageUnavailableError,
)

_REPEAT = "What was committed stays, and nothing half-written is visible: it is safe to run again."
_DRIVERS = {"psycopg", "psycopg2"}
# SQLSTATEs of: connection exceptions, a server that shuts down or starts, too many clients, a standby that took over.
_OUTAGE_STATES = ("08", "57P0", "53300", "25006")
_REFUSED = re.compile(r"authentication failed|no pg_hba\.conf entry|(role|database) \"[^\"]*\" does not exist")
# Arrow says "AWS Error SLOW_DOWN during PutObject operation: …" or "AWS Error UNKNOWN (HTTP status 403) during …".
_AWS = re.compile(r"AWS Error (?P<code>[A-Z_]+)(?: \(HTTP status (?P<status>\d+)\))? during (?P<request>\w+)")
_AWS_PERMANENT = {
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "NO_SUCH_BUCKET",
    "SIGNATURE_DOES_NOT_MATCH",
}
_HTTP_PERMANENT = {"301", "400", "401", "403", "404"}


@contextmanager
def translate_outages() -> Iterator[None]:
    """Translate libraries' errors about a silent catalog or warehouse into errors of ours; also a decorator.

    Raises:
        CatalogUnavailableError: the catalog's Postgres went away, or cannot be reached.
        StorageUnavailableError: the S3 of the warehouse does not answer, or refuses for now.
        SettingsError: one of the two refuses us for good: rights, credentials, a missing bucket or database.
    """
    try:
        yield
    except FlywheelError:
        raise
    except Exception as error:
        ours = find_outage(error)
        if ours is None:
            raise
        raise ours from error


def find_outage(error: BaseException) -> FlywheelError | None:
    """Return the error of ours for an outage that caused a library's error; None where there was none."""
    return next(
        (ours for each in list_causes(error) if (ours := _find_database_outage(each) or _find_storage_outage(each))),
        None,
    )


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, one after the other; each once, as they may form a circle."""
    known: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in known:
        known.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _find_database_outage(error: BaseException) -> FlywheelError | None:
    reported = getattr(error, "orig", None)
    if type(reported).__module__.split(".")[0] not in _DRIVERS:
        return None
    state = getattr(reported, "sqlstate", None) or getattr(reported, "pgcode", None)
    # A connection that breaks reports no state.
    is_broken = state is None and type(reported).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}
    if not (is_broken or getattr(error, "connection_invalidated", False) or (state or "").startswith(_OUTAGE_STATES)):
        return None
    words = " ".join(str(reported).split()) or type(reported).__name__
    if _REFUSED.search(words):
        return SettingsError(f"the catalog's Postgres refuses us: {words}. Check FLYWHEEL_CATALOG_URI.")
    return CatalogUnavailableError(f"the catalog's Postgres does not answer: {words}. {_REPEAT}")


def _find_storage_outage(error: BaseException) -> FlywheelError | None:
    found = _AWS.search(str(error)) if isinstance(error, OSError) else None
    if found is None:
        return None
    words = f"{found['code']} during {found['request']}"
    if found["code"] in _AWS_PERMANENT or found["status"] in _HTTP_PERMANENT:
        return SettingsError(f"the S3 of the warehouse refuses us: {words}. Check FLYWHEEL_WAREHOUSE and the rights.")
    return StorageUnavailableError(f"the S3 of the warehouse does not answer: {words}. {_REPEAT}")


class HasPlaces(Protocol):
    """The part of a lake that the failure of a step needs."""

    @property
    def places(self) -> list[Path]:
        """Return the folders of this machine that a step writes to."""


_Lake = TypeVar("_Lake", bound=HasPlaces)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
# DuckDB quotes the C library, unless it spills: then it names its limit, which equals the free space. SQLite has words
# of its own, Postgres passes on its server's message.
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "max_temp_directory_size", "database or disk is full")
_THEIR_SPEAKERS = {"duckdb", "_duckdb", "sqlalchemy", "sqlite3", "psycopg"}
"""Only errors of these packages are searched for those words: in other errors the words may be a user's."""
_ALMOST_FULL_BYTES = 64 * 2**20
"""A disk with less room counts as full when an error names none: SQLite and DuckDB give up before the last byte."""

_built: ContextVar[list[Path] | None] = ContextVar("built", default=None)


def remember_file(path: Path) -> None:
    """Note a local file under construction; the running step removes it if it fails."""
    built = _built.get()
    if built is not None:
        built.append(path)


def clean_up_on_failure(
    step: Callable[Concatenate[_Lake, _Arguments], _Result],
) -> Callable[Concatenate[_Lake, _Arguments], _Result]:
    """Decorate a step of the lake: delete its files on failure, and translate outages and full disks."""

    @wraps(step)
    def wrapper(lake: _Lake, /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
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

    return wrapper


@contextmanager
def translate_disk_full(*places: Path) -> Iterator[None]:
    """Turn any library's error about a full disk into a `DiskFullError` that names the place.

    Args:
        places: folders that the block may write to; the error names those with hardly any room left.

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
            f"no space left at {_name_full_places(places)}. Nothing that was committed is lost and nothing "
            "half-written is visible: make room there, then run it again."
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Return whether a full disk or a used-up quota caused a library's error."""
    for each in list_causes(error):
        if isinstance(each, OSError) and each.errno in _FULL_ERRNOS:
            return True
        if type(each).__module__.split(".")[0] in _THEIR_SPEAKERS and any(word in str(each) for word in _FULL_WORDS):
            return True
    return False


def _name_full_places(places: tuple[Path, ...]) -> str:
    there = {place: next(each for each in (place, *place.parents) if each.exists()) for place in places}
    free = {place: shutil.disk_usage(there[place]).free for place in places}
    full = [place for place in places if free[place] < _ALMOST_FULL_BYTES] or [min(places, key=lambda each: free[each])]
    # Several folders of one disk need one repair: the first of them is named.
    disks = {there[place].stat().st_dev: place for place in reversed(full)}
    return " and ".join(f"{place} ({free[place] // 1024} KiB free)" for place in reversed(disks.values()))
