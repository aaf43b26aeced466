"""Compares the ledger's account of every day with the rows that the tables and quarantine hold."""

from collections.abc import Callable, Iterator, Set
from contextlib import nullcontext
from functools import partial

from flywheel_assets.errors import CommitContentionError, DamagedFileError
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.fsck.findings import Finding, Mend, MendKind, Report
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, LEDGER, QUARANTINE, ApplicationTables, TableSpec


def check_accounts(lake: Lake, tables: ApplicationTables, broken: Set[str], report: Report) -> None:
    """Compare ledger and tables, by metadata alone.

    A daily step commits its rows before its account. So what differs is looked at again once no step is at work.

    Args:
        lake: the application's tables.
        tables: those that its daily assets fill.
        broken: names of tables whose heads cannot be read; their days are not compared.
        report: takes the findings.
    """
    for spec in (tables.predictions, GROUND_TRUTH, tables.joined, tables.gold):
        unreadable = sorted({spec.name, QUARANTINE.name, LEDGER.name} & broken)
        if unreadable:
            report.not_looked_at.append(
                f"the accounts of {lake.application}.{spec.name}: {', '.join(unreadable)} cannot be read"
            )
            continue
        confirm_alone(lake, report, f"the accounts of {lake.application}.{spec.name}", partial(_audit, lake, spec))
        report.count("accounts of tables")


def confirm_alone(
    lake: Lake, report: Report, what: str, check: Callable[[], Iterator[Finding]], *, is_of_version: bool = False
) -> None:
    """Add what a check finds, and still finds while nothing else is at work.

    No daily step, erasure, trim or import of history is; and of a version no cut.
    """
    try:
        if any(True for _ in check()):
            # In the order in which an erasure takes them.
            with lake.pause_daily_steps(), lake.lock_versions() if is_of_version else nullcontext():
                report.add(check())
    except CommitContentionError:
        report.not_looked_at.append(f"{what}: a step was at work all the time")
    except DamagedFileError as error:
        report.not_looked_at.append(f"{what}: {error}")


def _audit(lake: Lake, spec: TableSpec) -> Iterator[Finding]:
    if not lake.has_table(spec) or not lake.has_table(LEDGER):
        return
    for each in audit_accounts(lake, spec).discrepancies:
        yield Finding(
            place=f"{lake.application}.{spec.name} {each.day}",
            file="",
            problem=each.what,
            cause="A step was killed between the commit of its rows and that of its account, or a table was changed "
            "by hand or restored without the others.",
            repair=f"`flywheel backfill {each.day} {each.day} --application {lake.application}`.",
            mend=Mend(MendKind.MAKE_DAY, day=each.day),
        )
