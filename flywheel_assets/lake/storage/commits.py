"""Commits a table change under the table's lock, exactly once, with retries until a deadline.

Commits of one table are serialised. pyiceberg retries lost commits itself, but only four times with hardly any jitter:
of 8 × 12 commits to different partitions it lost 13, behind a lock none. The kind of lock depends on the catalog: a
file lock while it is SQLite on this machine, a Postgres advisory lock when several machines share a Postgres catalog.
The lock makes contention rare. A comparison makes it harmless: a commit succeeds only on the metadata that it was made
from.

A commit may have happened although it was reported as failed. Each therefore carries a *commit key* in its snapshot's
summary. An attempt that finds its key among main's ancestors ends there.

An advisory lock ends with its connection, which Postgres may lose while the writer works on. A writer therefore calls
`verify_locks` before it makes something visible. See docs/adr/0022.

Steps that change several tables and the ledger need more than one commit. The same locks keep such steps apart: some
steps share a lock, others take it alone. See `lake.daily.daily_steps`.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from flywheel_assets.errors import CommitContentionError, FlywheelError, LockLostError
from flywheel_assets.lake.storage.failures import translate_outages

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

COMMIT_KEY = "flywheel.commit-key"
_WAITS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""Bounds of libpq's waits: for a Postgres that it cannot reach (s), and for one that confirms nothing any more (ms)."""
_KEPT_ALIVE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
"""With these Postgres notices in one minute, not in two hours, that the machine of a lock's owner has vanished."""
_own_locks: ContextVar[tuple["_AdvisoryLock", ...]] = ContextVar("own_locks", default=())
# A writer asks for a lock every 10 ms, not every 50: with eight writers the longest wait was 4.9 s instead of 11.8.
_POLL_S = 0.01
_Result = TypeVar("_Result")


@contextmanager
def hold_lock(
    catalog_uri: str, folder: Path, name: str, timeout_s: float, *, is_shared: bool = False
) -> Iterator[None]:
    """Lock `name` for all writers of the catalog while the block runs; the lock ends with its process.

    Args:
        catalog_uri: SQLAlchemy URI of the catalog; with Postgres the lock is there, else a file in `folder`.
        folder: where file locks lie.
        name: what is locked, for instance `assistant.curated_dpo_pairs`.
        timeout_s: how long to wait for another writer.
        is_shared: several writers may share the lock at the same time; none of them has it alone meanwhile.

    Raises:
        CommitContentionError: another writer had it for all of `timeout_s`.
        CatalogUnavailableError: Postgres does not answer.
    """
    if catalog_uri.startswith("postgresql"):
        with _hold_advisory_lock(catalog_uri, name, timeout_s, is_shared):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    with _share_file_lock(path, name, timeout_s) if is_shared else _hold_file_lock(path, name, timeout_s):
        yield


@contextmanager
def _hold_file_lock(path: Path, name: str, timeout_s: float) -> Iterator[None]:
    lock = FileLock(path, poll_interval=_POLL_S)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise _build_contention_error(name, timeout_s) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _share_file_lock(path: Path, name: str, timeout_s: float) -> Iterator[None]:
    """Share the file lock, by an flock of the file that `FileLock` locks; filelock offers no shared kind."""
    deadline = time.monotonic() + timeout_s
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise _build_contention_error(name, timeout_s) from error
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def verify_locks() -> None:
    """Check that all locks around this call still exist, before something becomes visible under them.

    Raises:
        LockLostError: the connection of one of the locks around this call is gone; others may be at work already.
    """
    for lock in _own_locks.get():
        lock.verify()


class _AdvisoryLock:
    """A lock that lives as long as its connection."""

    def __init__(self, name: str, connection: "Connection", is_shared: bool) -> None:
        self._name, self._connection = name, connection
        self._kind = "_shared" if is_shared else ""
        # 63 bits of the name: Postgres knows advisory locks by a signed 64-bit number.
        digest = hashlib.blake2b(f"flywheel:{name}".encode(), digest_size=8).digest()
        self._number = {"number": int.from_bytes(digest) >> 1}

    def acquire(self, timeout_s: float) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import OperationalError

        self._connection.execute(text(f"SET lock_timeout = {int(timeout_s * 1000):d}; {_KEPT_ALIVE}"))
        try:
            self._connection.execute(text(f"SELECT pg_advisory_lock{self._kind}(:number)"), self._number)
        except OperationalError as error:
            if "lock timeout" in str(error):
                raise _build_contention_error(self._name, timeout_s) from error
            raise

    def verify(self) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            raise LockLostError(self._name) from error

    def release(self) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._connection.execute(text(f"SELECT pg_advisory_unlock{self._kind}(:number)"), self._number)
        except SQLAlchemyError as error:
            # The lock has ended with the connection. Raising this error would hide an error of the work under the lock.
            log.warning("the lock %s was lost before it was released (%s)", self._name, type(error).__name__)


@contextmanager
def _hold_advisory_lock(catalog_uri: str, name: str, timeout_s: float, is_shared: bool) -> Iterator[None]:
    with ExitStack() as stack:
        with translate_outages():
            # The connection keeps the lock, not a transaction: the catalog's own transactions begin and end meanwhile.
            lock = _AdvisoryLock(name, stack.enter_context(_open_lock_engine(catalog_uri).connect()), is_shared)
            lock.acquire(timeout_s)
        stack.callback(lock.release)
        _own_locks.set((*_own_locks.get(), lock))
        # The token of `set` cannot be used here: locks need not end in the order in which they began.
        stack.callback(lambda: _own_locks.set(tuple(each for each in _own_locks.get() if each is not lock)))
        yield


def bound_waits(catalog_uri: str) -> str:
    """Add bounds on the wait for a silent Postgres to a catalog's URI; bounds that it already has stay."""
    from sqlalchemy.engine import make_url

    url = make_url(catalog_uri)
    if url.get_backend_name() != "postgresql" or url.get_driver_name() not in {"psycopg", "psycopg2"}:
        return catalog_uri
    return url.update_query_dict({**_WAITS, **url.query}).render_as_string(hide_password=False)


@cache
def _open_lock_engine(catalog_uri: str) -> "Engine":
    """Open an engine for locks alone, without a pool: a lock ends with its connection at the latest."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(bound_waits(catalog_uri), poolclass=NullPool, isolation_level="AUTOCOMMIT")


def _build_contention_error(name: str, timeout_s: float) -> CommitContentionError:
    return CommitContentionError(f"{name} was locked by another writer for {timeout_s:g} s; it is safe to run again")


def retry_commit(
    attempt: Callable[[], _Result], retryable: tuple[type[Exception], ...], name: str, deadline_s: float
) -> _Result:
    """Call `attempt` until it succeeds, with exponential backoff and full jitter after `retryable` failures.

    A lost lock of this `name` is retryable, too: each attempt takes it again. A lock around all attempts stays lost.

    Raises:
        CommitContentionError: it still failed when `deadline_s` had passed.
        FlywheelError: `attempt` still failed then, and the last failure was an error of ours already.
    """

    def is_retryable(error: BaseException) -> bool:
        return isinstance(error, retryable) or (isinstance(error, LockLostError) and error.name == name)

    attempts = Retrying(
        retry=retry_if_exception(is_retryable),
        # Full jitter waits between 0 and the exponential. Without it, writers that collided once collide again.
        wait=wait_random_exponential(multiplier=0.05, max=3.0),
        stop=stop_after_delay(deadline_s),
    )
    try:
        return attempts(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        if not isinstance(last, FlywheelError):
            raise CommitContentionError(
                f"{name}: no commit within {deadline_s:g} s, last {type(last).__name__}; it is safe to run again"
            ) from error
    # Raised inside the handler, the error would be among its own causes.
    raise last


def was_committed(table: "Table", key: str) -> bool:
    """Return whether the commit with this key is among the ancestors of the head of main."""
    from pyiceberg.table.snapshots import ancestors_of

    return any(
        snapshot.summary is not None and snapshot.summary.additional_properties.get(COMMIT_KEY) == key
        for snapshot in ancestors_of(table.metadata.current_snapshot(), table.metadata)
    )
