"""Daily steps run beside each other; what rewrites their days and accounts runs between them.

A daily step reads rows and the ledger, replaces days of its table and of quarantine, and records what it did: several
commits. An erasure, a trim and a rollback change rows and accounts of the same days. Were one of them to come in
between, the step would bring back rows that were erased, and whoever records last would overwrite an account that
tells what the table holds. So daily steps share a lock, and those three take it alone (docs/adr/0020).
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from flywheel_assets.lake.storage.failures import clean_up_on_failure

if TYPE_CHECKING:
    from flywheel_assets.lake.tables.lake import Lake

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def daily_step(
    step: Callable[Concatenate["Lake", _Arguments], _Result],
) -> Callable[Concatenate["Lake", _Arguments], _Result]:
    """Decorate a step that makes days of a table: no erasure, trim or rollback happens from its first line to its last.

    If it fails, what it was building goes, and a full disk is a `DiskFullError`. It must not call another daily step.

    Raises:
        CommitContentionError: one of those was at work for ten minutes; it is safe to run again.
    """

    @clean_up_on_failure
    @wraps(step)
    def beside_others(lake: "Lake", /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        with lake.share_daily_steps():
            return step(lake, *arguments, **keywords)

    return beside_others
