"""What a failure tells Dagster: whether to retry, and never what a user wrote."""

from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest
from filelock import FileLock

from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, TRANSIENT, classify_failures
from flywheel_assets.errors import CommitContentionError, MissingInputError

TEXT = "what a user wrote"


class OperationalError(Exception):
    """As SQLAlchemy names the error of a locked SQLite."""


def nested_defect(_: Path) -> NoReturn:
    try:
        int(TEXT)
    except ValueError as error:
        raise KeyError(TEXT) from error
    raise AssertionError


def disk_full(_: Path) -> NoReturn:
    raise OSError(28, "No space left on device")


def busy_lock(folder: Path) -> NoReturn:
    with FileLock(folder / "lock"):
        FileLock(folder / "lock", timeout=0).acquire()
    raise AssertionError


def busy_database(_: Path) -> NoReturn:
    raise OperationalError(f"database is locked [parameters: {TEXT}]")


def missing_input(_: Path) -> NoReturn:
    raise MissingInputError("raw_predictions of 2026-09-01 was never materialized")


def contention(_: Path) -> NoReturn:
    raise CommitContentionError("no commit within 120 s")


@pytest.mark.parametrize(
    ("break_it", "tag", "attempts", "said"),
    [
        (nested_defect, PERMANENT, 1, "KeyError in nested_defect, line"),
        (missing_input, PERMANENT, 1, "was never materialized"),
        (disk_full, TRANSIENT, 3, "No space left on device"),
        (busy_lock, TRANSIENT, 3, "Timeout in"),
        (busy_database, TRANSIENT, 3, "OperationalError in busy_database, line"),
        (contention, TRANSIENT, 3, "no commit within 120 s"),
    ],
)
def test_only_what_may_pass_is_retried_and_no_text_is_told(tmp_path: Path, break_it, tag, attempts, said) -> None:
    tried = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def breaks(context: dg.AssetExecutionContext) -> None:
        tried.append(1)
        with classify_failures(context):
            break_it(tmp_path)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([breaks], instance=instance, raise_on_error=False)
        assert not result.success
        assert len(tried) == attempts
        assert instance.get_run_by_id(result.run_id).tags[FAILURE_TAG] == tag
        logged = "".join(str(entry) for entry in instance.all_logs(result.run_id))
        assert said in logged
        assert TEXT not in logged
