"""Commands that take something back: the gold table, the champion."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Reason, Who, Yes, app, console, load_application, who_is
from flywheel_assets.stores import Stores


@app.command()
def rollback(
    to: Annotated[str, typer.Option(help="A gold version, or before_rollback_<id> to take a rollback back.")],
    reason: Reason,
    data: Annotated[bool, typer.Option("--data", help="Only the gold table.")] = False,
    models: Annotated[bool, typer.Option("--models", help="Only the champion.")] = False,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Roll the gold table and the champion back to a version; with --data or --models only one of them."""
    from flywheel_assets.defs.automation.recovery import plan_rollback, roll_back

    config, stores = load_application(application), Stores()
    both = data == models
    plan = plan_rollback(config, stores, to, data=data or both, models=models or both)
    if plan.data is not None and plan.data.days:
        table = Table("day", "rows before", "rows after")
        for day, each in plan.data.days.items():
            table.add_row(str(day), f"{each.rows_before:,}", f"{each.rows_after:,}")
        console.print(table)
    if not yes:
        _say([f"would change: {sentence}" for sentence in plan.sentences()])
        console.print("Repeat with --yes to do it.")
        return
    _say(roll_back(config, stores, plan, who=who_is(who), reason=reason, now=datetime.now(UTC)))


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True)


@app.command()
def maintain(application: Application = "assistant", yes: Yes = False) -> None:
    """Do the weekly maintenance now: trim, retire, expire, collect; without --yes only weigh and say what applies."""
    import uuid

    from flywheel_assets.defs.automation.maintenance import run_maintenance, storage_rows
    from flywheel_assets.lake.daily.ledger import RunStamp
    from flywheel_assets.lake.upkeep.garbage import explain_versions_left
    from flywheel_assets.lake.upkeep.maintenance import MAINTENANCE_CODE_VERSION, weigh_stages

    config, stores = load_application(application), Stores()
    if not yes:
        table = Table("stage", "files", "bytes")
        lake, versions = stores.lake(application), stores.versions(application)
        weighed = weigh_stages(lake, config.tables, versions, stores.landing())
        for stage, stored in weighed.items():
            table.add_row(stage, f"{stored.files:,}", f"{stored.bytes:,}")
        console.print(table)
        _say([f"would apply: {config.maintenance}. Repeat with --yes to do it."])
        return
    stamp = RunStamp(f"maintain {uuid.uuid4().hex}", MAINTENANCE_CODE_VERSION, datetime.now(UTC))
    upkeep = run_maintenance(config, stores, stamp)
    table = Table("stage", "files before", "after", "bytes before", "after")
    for name, *numbers in storage_rows(upkeep):
        table.add_row(str(name), *(f"{number:,}" for number in numbers))
    console.print(table)
    _say(
        [
            f"{upkeep.snapshots_expired} snapshots expired, {upkeep.files_deleted.files} files deleted, "
            f"{upkeep.files_waiting.files} wait for their grace period",
            f"{sum(upkeep.predictions_trimmed.values())} predictions trimmed",
            f"{upkeep.segments_removed} landed segments removed",
            *explain_versions_left(stores.lake(application).warehouse, upkeep.versions_deleted),
        ]
    )
