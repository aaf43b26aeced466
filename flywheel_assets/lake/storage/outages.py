"""Translates outages of the catalog's Postgres and of the warehouse's S3 into two errors of ours.

Every library reports it in words of its own: SQLAlchemy by the class of an error, Arrow in the text of an `OSError`;
for boto3 see `lake.storage.s3`. All of them become two of our errors, which say that repeating is safe, because it
is: a commit is found by its key, an export appears under its name whole or not at all, and what was half done is swept.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from flywheel_assets.errors import CatalogUnavailableError, FlywheelError, SettingsError, StorageUnavailableError

_REPEAT = "What was committed stays, and nothing half-written is visible: it is safe to run again."
_DRIVERS = {"psycopg", "psycopg2"}
# By SQLSTATE: connection exceptions, the server shuts down or starts, too many clients, a standby that took over.
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
    """Turn what libraries say of a catalog or a warehouse that does not answer into errors of ours; also a decorator.

    Raises:
        CatalogUnavailableError: the catalog's Postgres went away, or cannot be reached.
        StorageUnavailableError: the S3 of the warehouse does not answer, or refuses for now.
        SettingsError: either refuses us for good: rights, credentials, a bucket or database that is not there.
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
    return next((ours for each in causes(error) if (ours := _database_outage(each) or _storage_outage(each))), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, one after the other; each once, as they may form a circle."""
    known: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in known:
        known.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _database_outage(error: BaseException) -> FlywheelError | None:
    reported = getattr(error, "orig", None)
    if type(reported).__module__.split(".")[0] not in _DRIVERS:
        return None
    state = getattr(reported, "sqlstate", None) or getattr(reported, "pgcode", None)
    # A connection that breaks tells no state.
    is_broken = state is None and type(reported).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}
    if not (is_broken or getattr(error, "connection_invalidated", False) or (state or "").startswith(_OUTAGE_STATES)):
        return None
    words = " ".join(str(reported).split()) or type(reported).__name__
    if _REFUSED.search(words):
        return SettingsError(f"the catalog's Postgres refuses us: {words}. Check FLYWHEEL_CATALOG_URI.")
    return CatalogUnavailableError(f"the catalog's Postgres does not answer: {words}. {_REPEAT}")


def _storage_outage(error: BaseException) -> FlywheelError | None:
    found = _AWS.search(str(error)) if isinstance(error, OSError) else None
    if found is None:
        return None
    words = f"{found['code']} during {found['request']}"
    if found["code"] in _AWS_PERMANENT or found["status"] in _HTTP_PERMANENT:
        return SettingsError(f"the S3 of the warehouse refuses us: {words}. Check FLYWHEEL_WAREHOUSE and the rights.")
    return StorageUnavailableError(f"the S3 of the warehouse does not answer: {words}. {_REPEAT}")
