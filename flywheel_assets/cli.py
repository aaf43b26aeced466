"""`flywheel`: everything a person does without the UI."""

import os
import sys
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flywheel_assets import applications
from flywheel_assets.application import PreferenceApplication
from flywheel_assets.errors import FlywheelError, UnknownNameError, VersionConflictError
from flywheel_assets.settings import settings

if TYPE_CHECKING:
    from flywheel_assets.defs.running import Driver, Finished
    from flywheel_assets.lake.versions import VersionFolder, Versions

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console()
errors = Console(stderr=True)

Application = Annotated[str, typer.Option("--application", "-a", help="Which application; see applications/.")]
Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="UTC day, YYYY-MM-DD.")]


def main() -> None:
    """Run the command; our own errors are one line, not a traceback."""
    try:
        app()
    except FlywheelError as error:
        errors.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(75 if error.is_transient else 1)


def known_applications() -> list[str]:
    """The application modules there are, without importing them."""
    return sorted(module.name for module in iter_modules(applications.__path__))


def _load(name: str) -> PreferenceApplication:
    if name not in known_applications():
        raise UnknownNameError("application", name, known_applications(), "Add a file to applications/.")
    application = import_module(f"flywheel_assets.applications.{name}").APPLICATION
    assert isinstance(application, PreferenceApplication)
    return application


@app.command()
def capture() -> None:
    """Run the capture service on loopback until interrupted."""
    from flywheel_assets.capture.service import serve

    names = known_applications()
    serve(
        settings(),
        names,
        on_ready=lambda url: console.print(f"capture listens on {url} for {', '.join(names)}", style="bold"),
    )


@app.command()
def dev(
    webserver_port: Annotated[int, typer.Option(help="Dagster's UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's UI.")] = 5000,
) -> None:
    """Run Dagster's webserver and daemon, the capture service and MLflow's UI on loopback until interrupted."""
    from flywheel_assets.devservices import run_services

    run_services(webserver_port, mlflow_port, console)


@app.command()
def curate(
    pairs: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines, see the README.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Gets one {prompt, chosen, rejected} line per kept pair.")],
    application: Annotated[str | None, typer.Option("--application", "-a", help="Use this application's gate.")] = None,
) -> None:
    """Pass a file of edits through the gate, without Dagster, and count what was dropped by reason."""
    from flywheel_assets.curation.pairs import GateRules
    from flywheel_assets.lake.curate_file import curate_file

    rules = _load(application).gate if application else GateRules()
    result = curate_file(pairs, out, rules)
    _print_reasons(f"{pairs.name} → {out.name}", result.kept, result.dropped)
    for line, complaint in result.malformed[:10]:
        errors.print(f"line {line}: {complaint}", markup=False, style="yellow")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".jsonl, or .tsv with a header.")],
    application: Application,
) -> None:
    """Send existing telemetry through capture into today's landing; importing a file twice changes nothing."""
    from flywheel_assets.capture.importing import import_file

    _load(application)
    result = import_file(file, application, settings().resolved_landing_dir())
    console.print(f"{result.accepted:,} of {result.lines:,} lines accepted, {result.refused:,} refused")
    for complaint in result.errors[:10]:
        errors.print(f"line {complaint.line}: {complaint.error}", markup=False, style="yellow")
    console.print(f"next: [bold]flywheel turn --now --application {application}[/]")


@app.command()
def turn(
    application: Application = "assistant",
    now: Annotated[bool, typer.Option("--now", help="Include today; its rows are provisional.")] = False,
) -> None:
    """Materialize everything that landed and is not closed yet, up to gold, in one run; says how far the trigger is."""
    from flywheel_assets.defs.automation import last_closed_day

    config = _load(application)
    moment = datetime.now(UTC)
    last = moment.date() if now else last_closed_day(moment)
    if now:
        from flywheel_assets.lake.landing import wait_until_sealed

        with console.status("waiting for capture to seal its open segments"):
            sealed = wait_until_sealed(
                settings().resolved_landing_dir(), application, settings().capture_segment_age_s + 15
            )
        if not sealed:
            errors.print("an open segment was not sealed in time and is left out; is capture running?", style="yellow")
    if last < config.start_date:
        hint = "" if now else "; today's rows come with --now"
        raise typer.BadParameter(f"{application} starts on {config.start_date}, the last day to read is {last}{hint}")
    first = _first_pending(config, last)
    _run_range(_driver(config), first, last)
    console.print(_progress(config))


@app.command()
def backfill(first: Day, last: Day, application: Application = "assistant") -> None:
    """Materialize a range again in one run, with the missing days before it and the days after it that read it."""
    config = _load(application)
    lookback = timedelta(days=config.window.match_lookback_days)
    today = datetime.now(UTC).date()
    if first > last:
        raise typer.BadParameter(f"{first.date()} is later than {last.date()}: give the first day first")
    if first.date() < config.start_date:
        raise typer.BadParameter(f"{first.date()} has no partition: {application} starts on {config.start_date}")
    if last.date() > today:
        raise typer.BadParameter(f"{last.date()} is in the future: today is {today} (UTC)")
    begin = min(first.date(), _first_pending(config, first.date()))
    end = min(last.date() + lookback, max(last.date(), _last_materialized(config) or last.date()), today)
    _run_range(_driver(config), begin, end)


@app.command()
def stale(application: Application = "assistant") -> None:
    """List the days that were made from inputs that have changed since; exit code 1 when there are any."""
    from flywheel_assets.defs.checks import staleness_lookback_days
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake.ledger import stale_days

    config = _load(application)
    lake = Stores().lake(application)
    found = False
    for asset, lookback in staleness_lookback_days(config.window).items():
        for day, inputs in stale_days(lake, asset, lookback, config.start_date).items():
            found = True
            console.print(f"{asset} {day}: {', '.join(inputs)} changed")
    if found:
        raise typer.Exit(1)
    console.print("every day is fresh")


@app.command()
def retry(version: str, application: Application = "assistant") -> None:
    """Let the trigger run a failed or canceled gold version again, as the same version."""
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.defs.running import request_retry

    config = _load(application)
    _require_unfinished(version, Stores().versions(application))
    run_id = request_retry(_driver(config).instance, application, version)
    console.print(f"{version} runs again at the trigger's next tick (the last run was {run_id})")


@app.command()
def abandon(
    version: str,
    reason: Annotated[str, typer.Option(help="Why; it becomes the version's decision.")],
    application: Application = "assistant",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only says what would happen.")] = False,
) -> None:
    """Finish a gold version without a promotion, so that the trigger can cut the next one."""
    from flywheel_assets.defs.partitions import version_partitions
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake.promotions import Promotion, record_promotion

    config = _load(application)
    stores = Stores()
    folder = _require_unfinished(version, stores.versions(application))
    requested = _driver(config).instance.get_dynamic_partitions(str(version_partitions(application).name))
    if not folder.path.exists() and version not in requested:
        # A slip of the finger would otherwise use up a number.
        raise UnknownNameError("gold version", version, requested)
    champion = stores.registry(application).champion()
    if champion is not None and champion.gold_version == version:
        raise VersionConflictError(f"{version} serves already; `flywheel retry {version}` records its promotion")
    if not yes:
        console.print(f"would finish {version} without a promotion: {reason}. Repeat with --yes to do it.")
        return
    decision = Promotion(
        version=version, promoted=False, sentence=f"Abandoned: {reason}", champion_before=None, checks=[]
    )
    record_promotion(folder.promotion, decision)
    console.print(f"{version} is finished, not promoted: {reason}")


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0,
) -> None:
    """Play the founding story: engineers correct a coding assistant, and two turns of the wheel make it right."""
    from flywheel_assets.demonstration import run

    run(seed=seed, console=console)
    # Everything is written and closed. With torch and Dagster's definitions in one process, DuckDB 2.0's bindings fill
    # the screen with "leaked" at the interpreter's shutdown, right below the demo's result; so there is none.
    sys.stdout.flush()
    os._exit(0)


def _require_unfinished(version: str, versions: "Versions") -> "VersionFolder":
    folder = versions.folder(version)
    if folder.is_finished:
        unfinished = [each.version for each in versions if not each.is_finished]
        raise UnknownNameError("unfinished version", version, unfinished, "It was decided; see its promotion.")
    return folder


def _driver(config: PreferenceApplication) -> "Driver":
    from flywheel_assets.defs.running import Driver, open_instance

    definitions = import_module(f"flywheel_assets.applications.{config.name}").defs
    return Driver(config, definitions, open_instance(settings().resolved_dagster_home()))


def _first_pending(config: PreferenceApplication, last: date) -> date:
    """The first day up to `last` that is not closed and curated yet: what the join of later days would miss."""
    from flywheel_assets.defs.automation import first_unfinished_day
    from flywheel_assets.defs.resources import Stores

    return first_unfinished_day(Stores().lake(config.name), config.start_date, last) or last


def _last_materialized(config: PreferenceApplication) -> date | None:
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake.ledger import entries_of
    from flywheel_assets.lake.tables import CURATED_DPO_PAIRS

    return max(entries_of(Stores().lake(config.name), CURATED_DPO_PAIRS.name), default=None)


def _run_range(driver: "Driver", first: date, last: date) -> None:
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake.ledger import day_range, entries_of, total_by_reason
    from flywheel_assets.lake.tables import CURATED_DPO_PAIRS

    with console.status(f"materializing {first} … {last}"):
        finished = driver.materialize(first, last)
    _fail_unless_succeeded(finished)
    entries = entries_of(Stores().lake(driver.application.name), CURATED_DPO_PAIRS.name, day_range(first, last))
    kept = sum(entry.rows_kept for entry in entries.values())
    dropped = total_by_reason(entries.values())
    _print_reasons(f"{driver.application.name} {first} … {last}", kept, dropped)
    open_days = [day for day, entry in entries.items() if not entry.is_closed]
    if open_days:
        console.print(f"provisional until it closes: {', '.join(map(str, open_days[-3:]))}", style="yellow")


def _fail_unless_succeeded(finished: "Finished") -> None:
    if not finished.succeeded:
        errors.print(f"run {finished.run_id} failed: ", style="bold red", end="")
        errors.print(finished.error or "see its logs", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _progress(config: PreferenceApplication) -> str:
    from flywheel_assets.defs.automation import progress_sentence
    from flywheel_assets.defs.resources import Stores
    from flywheel_assets.lake.net_new import count_net_new

    stores = Stores()
    count = count_net_new(
        stores.lake(config.name), stores.versions(config.name), config.resolution, config.trigger.min_new_pairs
    )
    return f"training trigger: {progress_sentence(count, config.trigger)}"


def _print_reasons(title: str, kept: int, dropped: dict[str, int]) -> None:
    console.print(title, style="bold", highlight=False)
    table = Table()
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_row("[bold green]kept[/]", f"{kept:,}")
    for reason, rows in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(reason, f"{rows:,}")
    console.print(table)


if __name__ == "__main__":
    main()
