"""Commands that try another choice without materializing anything: levers, policy, frequent small edits."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Day, app, console, load_classification, load_preference
from flywheel_assets.stores import Stores


@app.command()
def levers(
    application: Application = "fraud",
    days: Annotated[int, typer.Option(min=1, help="The number of matured days of predictions to try.")] = 28,
    thresholds: Annotated[
        list[float] | None, typer.Option("--threshold", help="Alert from this score on; repeat the option for more.")
    ] = None,
    factors: Annotated[
        list[float] | None,
        typer.Option("--surprise-factor", help="Sampling probability = this × score; repeat the option for more."),
    ] = None,
    floors: Annotated[
        list[float] | None,
        typer.Option("--floor", help="The smallest sampling probability; repeat the option for more."),
    ] = None,
) -> None:
    """Try thresholds and sampling rates on the last matured days: alerts, training rows, and their cost."""
    from flywheel_assets.lake.whatif.levers import FLOORS, SURPRISE_FACTORS, THRESHOLDS, report_levers
    from flywheel_assets.training.classifier import compute_seconds_per_row

    config = load_classification(application)
    stores = Stores()
    report = report_levers(
        stores.lake(application),
        config.contract,
        config.mining,
        days,
        compute_seconds_per_row(stores.versions(application).find_last_trained()),
        thresholds or THRESHOLDS,
        factors or SURPRISE_FACTORS,
        floors or FLOORS,
    )
    if report is None:
        console.print(
            f"nothing has matured yet: for {application}, a missing label is a negative after "
            f"{config.mining.maturity_days} days, see `flywheel turn --application {application}`"
        )
        return
    console.print(
        f"{application} {report.first_day} … {report.last_day}: {report.rows:,} matured predictions, "
        f"{report.positives:,} positives",
        style="bold",
        highlight=False,
    )
    _print_table(
        ["alert from", "alerts", "a day", "precision", "recall"],
        [
            [
                f"{each.threshold:g}",
                f"{each.alerts:,}",
                f"{each.alerts_per_day:.1f}",
                _format_share(each.positive_share),
                _format_share(each.caught),
            ]
            for each in report.thresholds
        ],
    )
    _print_table(
        ["surprise factor", "floor", "training rows", "of all", "positive", "effective rows", "fit s"],
        [
            [
                f"{each.surprise_factor:g}",
                f"{each.floor:g}",
                f"{each.rows:,}",
                f"{each.row_share:.1%}",
                _format_share(each.positive_share),
                f"{each.effective_rows:,.0f}",
                "–" if each.fit_seconds is None else f"{each.fit_seconds:.1f}",
            ]
            for each in report.samplings
        ],
    )


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _format_share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


policy = typer.Typer(no_args_is_help=True, help="Try the policy on stored days, without materializing anything.")
app.add_typer(policy, name="policy")


@policy.command()
def diff(first: Day, last: Day, application: Application = "assistant") -> None:
    """Curate days again in memory under today's policy, and count the rows whose outcome would change.

    The counts are by reason; nothing is stored.
    """
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
    application: Application = "assistant",
    limit: int = typer.Option(20, min=1, help="The largest number of rows to print."),
) -> None:
    """List the small edits that most people make, and the text that they replace.

    An edit that three people made joins the next version.
    """
    from flywheel_assets.lake.versions.pair_versions import describe_replacements, find_most_frequent_deltas

    load_preference(application)
    lake = Stores().lake(application)
    table = Table("subjects", "rows", "days", "replaces")
    for each in find_most_frequent_deltas(lake, limit=limit):
        table.add_row(
            str(each.subjects), str(each.rows), str(each.days), escape(describe_replacements(lake, each.example)[:120])
        )
    console.print(table if table.row_count else "no small edit waits")
