"""Commands of the people behind the breaker: which days it keeps out of gold, and letting one in."""

from datetime import UTC, datetime

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Day, Reason, Who, Yes, app, console, load_preference, who_is
from flywheel_assets.stores import Stores

breaker = typer.Typer(no_args_is_help=True, help="Days that the batch breaker keeps out of gold: list, reset.")
app.add_typer(breaker, name="breaker")


@breaker.command("list")
def list_days(application: Application = "assistant") -> None:
    """List every day that tripped, with the figures, and who let which one in."""
    from flywheel_assets.lake.daily import breaker as days

    load_preference(application)
    lake = Stores().lake(application)
    decided = {(each.day, each.joined_hash): each for each in days.list_resets(lake)}
    table = Table("day", "rows", "out of bounds", "for instance", "state")
    for each in days.read_judged_days(lake):
        if not each.figures.trips:
            continue
        decision = decided.get((each.day, each.joined_hash))
        if decision is None:
            state = "kept out of gold"
        else:
            state = f"reset {decision.decided_at:%Y-%m-%d} by {decision.decided_by}: {decision.reason}"
            state += "" if each.is_reset else "; not curated since"
        examples = each.figures.trips[0].examples
        table.add_row(
            each.day.isoformat(), f"{each.figures.rows:,}", each.figures.describe(), "\n".join(examples[:2]), state
        )
    console.print(table if table.row_count else "no day tripped the breaker")


@breaker.command()
def reset(
    day: Day,
    reason: Reason,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Let the rows of a tripped day into gold: an audited decision about the rows as they are now."""
    from flywheel_assets.errors import UnknownNameError
    from flywheel_assets.lake.daily import breaker as days

    load_preference(application)
    lake = Stores().lake(application)
    tripped = {each.day: each for each in days.find_tripped_days(lake)}
    if (found := tripped.get(day.date())) is None:
        known = [each.isoformat() for each in tripped]
        raise UnknownNameError(
            "tripped day", f"{day:%Y-%m-%d}", known, "`flywheel breaker list` shows every day that tripped."
        )
    console.print(f"{found.day}: {found.figures.rows:,} joined rows, {found.figures.describe()}", highlight=False)
    if not yes:
        console.print(f"would let {found.day} in: {reason}. Repeat with --yes to do it.")
        return
    done = days.reset_day(lake, found.day, who=who_is(who), reason=reason, now=datetime.now(UTC))
    console.print(f"reset {done.id}: {done.reason}. Its rows enter gold when the day is curated again:")
    console.print(f"`flywheel backfill {found.day} {found.day} --application {application}`", highlight=False)
