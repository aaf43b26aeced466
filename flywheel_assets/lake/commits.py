"""The one way a table changes: under its lock, on metadata loaded there, once, retried until a deadline.

Commits of one table are serialised. pyiceberg retries lost commits itself, but only four times with hardly any jitter:
of 8 × 12 commits to different partitions it lost 13, behind a lock none. Who holds the lock depends on the catalog: a
file lock while it is SQLite on this machine, a Postgres advisory lock when several machines share a Postgres catalog.
A lock makes contention rare; what makes it harmless is Iceberg's own compare-and-swap, which still decides.

A commit may have happened although it was reported as failed. Each therefore carries a *commit key* in its snapshot's
summary, and an attempt that finds its key among main's ancestors is over.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from flywheel_assets.errors import CommitContentionError

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from sqlalchemy import Engine

COMMIT_KEY = "flywheel.commit-key"
_Result = TypeVar("_Result")


@contextmanager
def commit_lock(catalog_uri: str, folder: Path, name: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock `name`, which every writer of the catalog sees; it ends with its process.

    Args:
        catalog_uri: SQLAlchemy URI of the catalog; with Postgres the lock is there, else a file in `folder`.
        folder: where file locks lie.
        name: what is locked, for instance `assistant.curated_dpo_pairs`.
        timeout_s: how long to wait for another holder.

    Raises:
        CommitContentionError: somebody else held it for all of `timeout_s`.
    """
    if catalog_uri.startswith("postgresql"):
        with _advisory_lock(catalog_uri, name, timeout_s):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Asked for every 10 ms, not every 50: with eight writers the longest wait was 4.9 s instead of 11.8.
    lock = FileLock(folder / f"{name}.lock", poll_interval=0.01)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise _busy(name, timeout_s) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(catalog_uri: str, name: str, timeout_s: float) -> Iterator[None]:
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    # 63 bits of the name: Postgres knows advisory locks by a signed 64-bit number.
    number = int.from_bytes(hashlib.blake2b(f"flywheel:{name}".encode(), digest_size=8).digest()) >> 1
    # Held by the connection, not by a transaction: the catalog's own transactions come and go while it is held.
    with _lock_engine(catalog_uri).connect() as connection:
        connection.execute(text(f"SET lock_timeout = {int(timeout_s * 1000):d}"))
        try:
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
        except OperationalError as error:
            if "lock timeout" in str(error):
                raise _busy(name, timeout_s) from error
            raise
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})


@cache
def _lock_engine(catalog_uri: str) -> "Engine":
    """Connections for locks alone, never pooled: a lock ends with its connection at the latest."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(catalog_uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def _busy(name: str, timeout_s: float) -> CommitContentionError:
    return CommitContentionError(f"{name} was locked by another writer for {timeout_s:g} s; it is safe to run again")


def retried(
    attempt: Callable[[], _Result], retryable: tuple[type[Exception], ...], name: str, deadline_s: float
) -> _Result:
    """Call `attempt` until it succeeds, with exponential backoff and full jitter between failures of `retryable` kinds.

    Raises:
        CommitContentionError: it still failed when `deadline_s` had passed.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(retryable),
        # Full jitter: a wait between 0 and the exponential. Writers that collided once would collide again without.
        wait=wait_random_exponential(multiplier=0.05, max=3.0),
        stop=stop_after_delay(deadline_s),
    )
    try:
        return attempts(attempt)
    except RetryError as error:
        cause = error.last_attempt.exception()
        raise CommitContentionError(
            f"{name}: no commit within {deadline_s:g} s, last {type(cause).__name__}; it is safe to run again"
        ) from error


def was_committed(table: "Table", key: str) -> bool:
    """Whether the commit with this key is part of the table as it stands: among the ancestors of main's head."""
    from pyiceberg.table.snapshots import ancestors_of

    return any(
        snapshot.summary is not None and snapshot.summary.additional_properties.get(COMMIT_KEY) == key
        for snapshot in ancestors_of(table.metadata.current_snapshot(), table.metadata)
    )
