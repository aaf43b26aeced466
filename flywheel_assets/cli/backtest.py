"""The command that replays history: backtest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, app, console, load_classification, open_stores
from flywheel_assets.errors import InvalidRuleError

if TYPE_CHECKING:
    from flywheel_assets.backtest.replay import PlayedWeek
    from flywheel_assets.backtest.report import BacktestReport


_TABLE_COLUMNS = 160
"""Columns of a terminal in which the table with its intervals can be read."""


@app.command()
def backtest(
    application: Application = "fraud",
    first: Annotated[
        str, typer.Option("--from", metavar="DAY", help="Go-live, YYYY-MM-DD; the days before it are history.")
    ] = "",
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="Last day that is scored, YYYY-MM-DD.")] = "",
    floors: Annotated[
        list[float] | None,
        typer.Option("--floor", min=0.001, max=1, help="Also train on samples with this floor; repeat it for more."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for backtest.json, backtest.md and backtest.png.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Make this new folder the throw-away home, and leave it there.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawn negatives and of the intervals.")] = 0,
) -> None:
    """Replay landed history week by week, and compare the flywheel with simpler ways to retrain.

    It runs the application's own assets in a throw-away home; nothing in its own home changes.
    """
    from flywheel_assets.backtest.plan import BacktestPlan, read_day
    from flywheel_assets.backtest.report import write_backtest
    from flywheel_assets.backtest.wheel import run_backtest
    from flywheel_assets.extras import require_extra

    require_extra("classifier", "a backtest")
    config = load_classification(application)
    if config.contract.classes:
        raise InvalidRuleError(
            f"{config.name} declares {len(config.contract.classes)} classes, and a backtest replays two. A version "
            f"measures its model on later weeks. Try flywheel retrain -a {config.name} --reason … --yes"
        )
    plan = BacktestPlan(
        first=read_day(first, "--from"), last=read_day(last, "--to"), floors=tuple(floors or ()), seed=seed
    )
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise InvalidRuleError(f"--keep {keep} is not empty; valid: a new or empty folder. Try --keep {keep}-2")
    report = run_backtest(config, open_stores().landing(), plan, keep, _print_week)
    _print_report(report)
    if output is not None:
        write_backtest(report, output)
        console.print(f"written: {output}/backtest.json, backtest.md, backtest.png", highlight=False)
    if keep is not None:
        console.print(f"the throw-away home is {keep}: `FLYWHEEL_HOME={keep} flywheel gold list -a {application}`")


def _print_week(played: "PlayedWeek") -> None:
    from flywheel_assets.backtest.replay import describe_turn

    by = played.serving or "the scores of history"
    console.print(
        f"week of {played.week.first}, served by {by}: {describe_turn(played.turn)}", highlight=False, markup=False
    )


def _print_report(report: "BacktestReport") -> None:
    from flywheel_assets.backtest.report import HEADER, describe_days, list_cells

    console.print(describe_days(report), highlight=False, soft_wrap=True)
    rows = list_cells(report)
    if console.width < _TABLE_COLUMNS:
        # Eleven columns in 80 would cut every number: `0.0…`.
        for strategy, *cells in rows:
            console.print(strategy, style="bold", highlight=False)
            measures = [f"{name} {cell}" for name, cell in zip(HEADER[1:], cells, strict=True) if cell != "–"]
            console.print("  " + "; ".join(measures), highlight=False, markup=False)
    else:
        table = Table()
        for place, name in enumerate(HEADER):
            table.add_column(name, justify="right" if place else "left")
        for each in rows:
            table.add_row(*each)
        console.print(table)
    if all(week.decision is None for week in report.weeks):
        console.print(
            "the flywheel cut no version, so it served what history served; the sentence of each week says what the "
            "trigger waited for: begin later, or lower the application's trigger",
            highlight=False,
            style="yellow",
        )
    console.print(
        f"precision@k: {report.cards_per_day} entities a day; differences with 95 % intervals over entities; "
        f"{report.wall_seconds:.0f} s",
        highlight=False,
    )
