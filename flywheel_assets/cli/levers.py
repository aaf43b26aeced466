"""What another choice of thresholds and sampling rates would select, without materializing anything."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, app, console, load_classification
from flywheel_assets.stores import Stores


@app.command()
def levers(
    application: Application = "fraud",
    days: Annotated[int, typer.Option(min=1, help="Matured days of predictions to try the levers on.")] = 28,
    thresholds: Annotated[
        list[float] | None, typer.Option("--threshold", help="Alert from this score; repeat.")
    ] = None,
    factors: Annotated[list[float] | None, typer.Option("--surprise-factor", help="π = this × score; repeat.")] = None,
    floors: Annotated[list[float] | None, typer.Option("--floor", help="Smallest π; repeat.")] = None,
) -> None:
    """Try thresholds and sampling rates on the last matured days: alerts, rows to train on, and what they cost."""
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
            f"nothing has matured yet: {application} takes silence for a negative after "
            f"{config.mining.maturity_days} days, see `flywheel turn --application {application}`"
        )
        return
    console.print(
        f"{application} {report.first_day} … {report.last_day}: {report.rows:,} matured predictions, "
        f"{report.positives:,} positives",
        style="bold",
        highlight=False,
    )
    _print(
        ["alert from", "alerts", "a day", "precision", "recall"],
        [
            [
                f"{each.threshold:g}",
                f"{each.alerts:,}",
                f"{each.alerts_per_day:.1f}",
                _share(each.positive_share),
                _share(each.caught),
            ]
            for each in report.thresholds
        ],
    )
    _print(
        ["surprise factor", "floor", "training rows", "of all", "positive", "effective rows", "fit s"],
        [
            [
                f"{each.surprise_factor:g}",
                f"{each.floor:g}",
                f"{each.rows:,}",
                f"{each.row_share:.1%}",
                _share(each.positive_share),
                f"{each.effective_rows:,.0f}",
                "–" if each.fit_seconds is None else f"{each.fit_seconds:.1f}",
            ]
            for each in report.samplings
        ],
    )


def _print(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
