"""Runs daily steps under a shared lock; an erasure, a trim or a rollback takes that lock alone (docs/adr/0020).

A daily step reads rows and the ledger, replaces days of its table and of quarantine, and records its account: several
commits. An erasure, a trim and a rollback change rows and accounts of the same days. If one of them ran in between,
the step would bring back erased rows, and the account that is recorded last would not match the table.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from flywheel_assets.lake.storage.failures import clean_up_on_failure
from flywheel_assets.lake.tables.probing import name_damaged_tables

if TYPE_CHECKING:
    from flywheel_assets.lake.tables.lake import Lake

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def run_as_daily_step(
    step: Callable[Concatenate["Lake", _Arguments], _Result],
) -> Callable[Concatenate["Lake", _Arguments], _Result]:
    """Decorate a step that makes days of a table, so that no erasure, trim or rollback runs meanwhile.

    If the step fails, its unfinished files are removed, a full disk becomes a `DiskFullError`, and an unreadable file a
    `DamagedFileError`. A step must not call another daily step.

    Raises:
        CommitContentionError: one of those three was at work for ten minutes; it is safe to run again.
    """

    @name_damaged_tables
    @clean_up_on_failure
    @wraps(step)
    def run_locked(lake: "Lake", /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        with lake.share_daily_steps():
            return step(lake, *arguments, **keywords)

    return run_locked
