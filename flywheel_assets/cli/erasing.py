"""The command that forgets a person."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Reason, Who, Yes, app, console, load_application, who_is
from flywheel_assets.errors import SettingsError
from flywheel_assets.settings import settings

if TYPE_CHECKING:
    from flywheel_assets.lake.erasure import ErasurePlan, Receipt


@app.command()
def erase(
    user: Annotated[str, typer.Option(help="The person's user id.")],
    reason: Reason,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long unreachable files stay for readers.")] = 24,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Forget a person: rows in landing, tables, every version and export, then on disk; leaves a receipt."""
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake import erasure
    from flywheel_assets.lake.landing import wait_until_sealed

    config, stores = load_application(application), Stores()
    landing = stores.landing()
    if not isinstance(landing, Path):
        raise SettingsError(
            "landing lies on S3 (FLYWHEEL_LANDING_S3), whose segments this command cannot rewrite yet: the "
            "person's events would stay there. Nothing was changed."
        )
    place = erasure.Place(
        lake=stores.lake(application),
        tables=config.tables,
        versions=stores.versions(application),
        landing_root=landing,
        start=config.start_date,
        lookback_days=config.staleness_lookback_days,
    )
    if yes:
        with console.status("waiting for capture to seal its open segments"):
            wait_until_sealed(landing, application, settings().capture_segment_age_s + 15)
    plan = erasure.plan_erasure(place, user)
    if not yes:
        _print_plan(plan)
        console.print("Repeat with --yes to erase them; nothing brings them back.")
        return
    now = datetime.now(UTC)
    receipt = erasure.erase(place, plan, who=who_is(who), reason=reason, now=now, grace=timedelta(hours=grace_hours))
    _print_receipt(receipt, stores.registry(application).champion())
    console.print(f"receipt: {erasure.receipt_path(place.versions, receipt.id)}", highlight=False, soft_wrap=True)


def _print_plan(plan: "ErasurePlan") -> None:
    table = Table("where", "rows that would go")
    table.add_row("landing", f"{plan.landed_lines:,}")
    for name, rows in [*plan.rows.items(), *plan.tagged_rows.items()]:
        table.add_row(name, f"{rows:,}")
    console.print(table)


def _print_receipt(receipt: "Receipt", champion: object) -> None:
    serving = getattr(champion, "gold_version", None)
    table = Table("where", "rows gone")
    table.add_row("landing", f"{sum(receipt.landed_lines.values()):,} in {receipt.landed_segments} segments")
    for name, rows in receipt.rows.items():
        table.add_row(name, f"{rows:,}")
    for version in receipt.versions:
        table.add_row(version.tag, f"{version.gold_rows_removed:,}, of the export {version.exported_rows_removed:,}")
    console.print(table)
    for version in receipt.versions:
        if version.trained:
            serves = ", and it serves" if version.tag == serving else ""
            console.print(f"the model of {version.tag} was trained on rows that are gone{serves}", style="yellow")
        for copy in version.copies:
            console.print(f"a copy of {version.tag} went to {copy}: erase it there", style="yellow", soft_wrap=True)
    if receipt.files_waiting:
        console.print(f"{receipt.files_waiting} files are deleted after {receipt.files_gone_at:%Y-%m-%d %H:%M} UTC")
