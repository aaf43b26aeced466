"""Commands over the policy: what another version of it would change, and which small edits recur."""

from datetime import timedelta

import typer
from rich.markup import escape
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Day, app, console, load_preference
from flywheel_assets.stores import Stores

policy = typer.Typer(no_args_is_help=True, help="Ask what the policy does, without materializing anything.")
app.add_typer(policy, name="policy")


@policy.command()
def diff(first: Day, last: Day, application: Application = "assistant") -> None:
    """Curate days again in memory under today's policy; count the rows whose outcome would change, by reason."""
    from flywheel_assets.lake.whatif.policy_diff import diff_policy

    if first > last:
        raise typer.BadParameter(f"{first.date()} is later than {last.date()}: give the first day first")
    config = load_preference(application)
    days = [first.date() + timedelta(days=offset) for offset in range((last - first).days + 1)]
    with console.status(f"curating {len(days)} days in memory"):
        found = diff_policy(Stores().lake(application), days, config.gate)
    console.print(
        f"stored under {', '.join(found.stored_versions) or 'nothing'}; the policy is now {found.new_version}"
    )
    console.print(f"{found.moved:,} of {found.rows:,} rows of {found.days} days would change")
    if not found.moves:
        return
    table = Table("before", "after", "rows", "for instance")
    for move in found.moves:
        table.add_row(move.before, move.after, f"{move.rows:,}", move.examples[0])
    console.print(table)
    console.print(f"`flywheel backfill {days[0]} {days[-1]} --application {application}` makes it so", highlight=False)


@policy.command()
def deltas(
    application: Application = "assistant", limit: int = typer.Option(20, min=1, help="Most rows shown.")
) -> None:
    """The small edits that most people make, with what they replace; those of three people join the next version."""
    from flywheel_assets.lake.versions.pair_versions import describe_replacements, find_most_frequent_deltas

    load_preference(application)
    lake = Stores().lake(application)
    table = Table("subjects", "rows", "days", "replaces")
    for each in find_most_frequent_deltas(lake, limit=limit):
        table.add_row(
            str(each.subjects), str(each.rows), str(each.days), escape(describe_replacements(lake, each.example)[:120])
        )
    console.print(table if table.row_count else "no small edit waits")
