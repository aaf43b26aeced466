"""Commands that try another choice without materializing anything: levers, policy, frequent small edits."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flywheel_assets.cli.terminal import (
    Application,
    Day,
    app,
    console,
    load_classification,
    load_preference,
    open_stores,
)

if TYPE_CHECKING:
    from flywheel_assets.evaluation.floor_costs import FloorCosts


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
    fit: Annotated[bool, typer.Option(help="Fit each floor, and test it on the last matured week.")] = True,
) -> None:
    """Try thresholds and sampling rates on the last matured days: alerts, training rows, and their cost.

    What a floor costs and saves is measured by fitting at most 300,000 rows, about a minute; --no-fit leaves it out.
    """
    from flywheel_assets.evaluation.floor_costs import try_floors
    from flywheel_assets.lake.whatif.levers import FLOORS, SURPRISE_FACTORS, THRESHOLDS, report_levers

    config = load_classification(application)
    lake, tried = open_stores().lake(application), floors or FLOORS
    report = report_levers(
        lake, config.contract, config.mining, days, thresholds or THRESHOLDS, factors or SURPRISE_FACTORS, tried
    )
    if report is None:
        console.print(
            f"nothing has matured yet: for {application}, a missing label is a negative after "
            f"{config.mining.maturity_days} days, see `flywheel turn --application {application}`"
        )
        return
    costs = None
    if fit:
        with console.status("fitting each floor"):
            costs = try_floors(lake, config.contract, config.mining, config.recipe, days, tried)
    console.print(
        f"{application} {report.first_day} … {report.last_day}: {report.rows:,} matured predictions, "
        f"{report.positives:,} positives; sampling floor {report.floor:g}",
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
        ["sampling", "training rows", "of all", "positive", "effective rows", "fit s"],
        [
            [
                each.lever,
                f"{each.rows:,}",
                f"{each.row_share:.1%}",
                _format_share(each.positive_share),
                f"{each.effective_rows:,.0f}",
                "–" if costs is None else f"{costs.estimate_fit_seconds(each.rows):.1f}",
            ]
            for each in (*report.samplings, *report.others)
        ],
    )
    if costs is not None:
        _print_costs(costs)
    elif fit:
        console.print(
            "what a floor costs was not measured: it needs 14 matured days with positives, the last week's among "
            "them, and boosted trees as the trainer"
        )


def _print_costs(costs: "FloorCosts") -> None:
    console.print(costs.describe(), highlight=False)
    if costs.floors:
        _print_table(
            ["floor", "training rows", "fit s", "AP", "AP lost", "95 % interval"],
            [
                [
                    f"{each.floor:g}",
                    f"{each.rows:,}",
                    f"{each.fit_seconds:.2f}",
                    _format_number(each.average_precision),
                    _format_number(each.cost.mean),
                    f"{_format_number(each.cost.low)} to {_format_number(each.cost.high)}",
                ]
                for each in costs.floors
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


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


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
        found = diff_policy(open_stores().lake(application), days, config.gate)
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
    lake = open_stores().lake(application)
    table = Table("subjects", "rows", "days", "replaces")
    for each in find_most_frequent_deltas(lake, limit=limit):
        table.add_row(
            str(each.subjects), str(each.rows), str(each.days), escape(describe_replacements(lake, each.example)[:120])
        )
    console.print(table if table.row_count else "no small edit waits")
