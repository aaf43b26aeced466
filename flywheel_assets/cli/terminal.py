"""Shares the Typer application, the options, the output and the loading of applications among all commands.

A module of this folder imports no room when it is imported: `flywheel --help` reads them all, and a command starts
with what it needs (measured: 1.5 s of CPU before, 0.3 s now).
"""

import getpass
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flywheel_assets import __version__
from flywheel_assets.errors import SettingsError

if TYPE_CHECKING:
    from flywheel_assets.application import ClassificationApplication, FlywheelApplication, PreferenceApplication
    from flywheel_assets.defs.running import Driver
    from flywheel_assets.discovery import Place
    from flywheel_assets.settings import Settings
    from flywheel_assets.stores import Stores

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run and look after a data flywheel from the command line.",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flywheel_assets {__version__}")
        raise typer.Exit


console = Console()
errors = Console(stderr=True)

_WITHOUT_HOME = ("init", "doctor", "curate", "backtest")
"""They write elsewhere; `doctor` says itself what is wrong with the home."""


@app.callback()
def prepare_process(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the release.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep what a command writes private, and refuse one that could not write at all."""
    from flywheel_assets.settings import explain_unwritable, keep_files_private

    if context.invoked_subcommand == "init" or "--help" in sys.argv:
        return  # a project is its team's to read
    with suppress(SettingsError) if context.invoked_subcommand == "doctor" else nullcontext():
        before = keep_files_private()
        context.call_on_close(lambda: os.umask(before))
    if context.invoked_subcommand not in _WITHOUT_HOME and (problem := explain_unwritable(read_settings())):
        raise SettingsError(problem)


def _choose_application(context: typer.Context, option: typer.CallbackParam, given: str) -> str:
    """Take the only application where none was named.

    Where there are several, and the command's default is not among them, a choice is needed.
    """
    source = context.get_parameter_source(option.name or "")
    offered = find_applications()
    if source is None or source.name != "DEFAULT" or given in offered:
        return given
    if len(offered) == 1:
        return next(iter(offered))
    raise typer.BadParameter(f"there are several applications: {', '.join(offered)}; choose one with --application")


Application = Annotated[
    str,
    typer.Option(
        "--application",
        "-a",
        help="The application's name. Default: the only one that is installed, or the example that fits the command.",
        callback=_choose_application,
        show_default=False,
    ),
]
Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="A UTC day, YYYY-MM-DD.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason; it is stored for audits.")]
Who = Annotated[str | None, typer.Option("--who", help="The person who decides. Default: the login name.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Do it. Without this option the command only prints what would change.")
]


def load_application(name: str) -> "FlywheelApplication":
    """Load the configuration of an application by its name."""
    from flywheel_assets.discovery import load_application as load

    return load(name)


def find_applications() -> "dict[str, Place]":
    """Find the installed applications by name."""
    from flywheel_assets.discovery import find_applications as find

    return find()


def read_settings() -> "Settings":
    """Read the settings of this process."""
    from flywheel_assets.settings import read_settings as read

    return read()


def open_stores() -> "Stores":
    """Open landing zone, lake, versions and registry by the settings of this process."""
    from flywheel_assets.stores import Stores

    return Stores()


def load_preference(name: str) -> "PreferenceApplication":
    """Load the configuration of an application whose predictions are texts; raise for any other."""
    from flywheel_assets.application import PreferenceApplication

    application = load_application(name)
    if not isinstance(application, PreferenceApplication):
        raise SettingsError(
            f"{name} is no preference application: this command works on texts. Choose another one with --application"
        )
    return application


def load_classification(name: str) -> "ClassificationApplication":
    """Load the configuration of an application whose predictions are scores; raise for any other."""
    from flywheel_assets.application import ClassificationApplication

    application = load_application(name)
    if not isinstance(application, ClassificationApplication):
        raise SettingsError(
            f"{name} is no classification application: this command works on scores and labels. Choose another one "
            "with --application"
        )
    return application


def build_driver(config: "FlywheelApplication") -> "Driver":
    """Build the driver that materializes this application's assets in this process.

    It works on the configured Dagster instance.
    """
    from flywheel_assets.defs.running import Driver, open_instance
    from flywheel_assets.discovery import load_definitions

    return Driver(config, load_definitions(config.name), open_instance(read_settings().resolve_dagster_home()))


def print_reasons(title: str, kept: int, dropped: dict[str, int]) -> None:
    """Print a table of the kept rows, and of the dropped rows by reason, the most frequent first."""
    console.print(title, style="bold", highlight=False)
    table = Table()
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_row("[bold green]kept[/]", f"{kept:,}")
    for reason, rows in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(reason, f"{rows:,}")
    console.print(table)


def print_days(title: str, rows_per_day: Mapping[date, int]) -> None:
    """Print the number of rows by day."""
    total = sum(rows_per_day.values())
    console.print(f"{title} {total:,} rows of {len(rows_per_day):,} days", style="bold", highlight=False)
    if rows_per_day:
        table = Table("day", "rows")
        for day, rows in sorted(rows_per_day.items()):
            table.add_row(day.isoformat(), f"{rows:,}")
        console.print(table)


def name_decider(given: str | None) -> str:
    """Return the name of the person who decides, for the audit tables."""
    return given or getpass.getuser()
