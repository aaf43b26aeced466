"""Commands over landed days: materialize them, materialize them again, find stale ones."""

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.cli.terminal import (
    Application,
    Day,
    app,
    build_driver,
    console,
    errors,
    load_application,
    print_reasons,
)
from flywheel_assets.stores import Stores

if TYPE_CHECKING:
    from flywheel_assets.defs.running import Driver, Finished


@app.command()
def turn(
    application: Application = "assistant",
    now: Annotated[bool, typer.Option("--now", help="Include today, whose rows are provisional.")] = False,
) -> None:
    """Materialize every landed day that is not closed yet, up to gold, in one run.

    At the end it prints how far the training trigger is.
    """
    from flywheel_assets.defs.automation.triggers import find_last_closed_day

    config = load_application(application)
    moment = datetime.now(UTC)
    last = moment.date() if now else find_last_closed_day(moment)
    if now:
        from flywheel_assets.capture.log.shipping import wait_until_shipped
        from flywheel_assets.lake.landing.disk import wait_until_sealed

        with console.status("waiting for capture to seal its open segments"):
            stores = Stores()
            sealed = wait_until_sealed(
                stores.landing_folder(), application, stores.where.capture_segment_age_s + 15
            ) and wait_until_shipped(stores.where, application, 30.0)
        if not sealed:
            errors.print("an open segment was not sealed in time and is left out; is capture running?", style="yellow")
    if last < config.start_date:
        hint = "" if now else "; today's rows come with --now"
        raise typer.BadParameter(f"{application} starts on {config.start_date}, the last day to read is {last}{hint}")
    first = _find_first_pending(config, last)
    _run_range(build_driver(config), first, last)
    console.print(_describe_progress(config))


@app.command()
def backfill(first: Day, last: Day, application: Application = "assistant") -> None:
    """Materialize a range of days again in one run.

    The missing days before it are included, and the days after it that read it.
    """
    config = load_application(application)
    lookback = timedelta(days=config.window.match_lookback_days)
    today = datetime.now(UTC).date()
    if first > last:
        raise typer.BadParameter(f"{first.date()} is later than {last.date()}: give the first day first")
    if first.date() < config.start_date:
        raise typer.BadParameter(f"{first.date()} has no partition: {application} starts on {config.start_date}")
    if last.date() > today:
        raise typer.BadParameter(f"{last.date()} is in the future: today is {today} (UTC)")
    begin = min(first.date(), _find_first_pending(config, first.date()))
    end = min(last.date() + lookback, max(last.date(), _find_last_materialized(config) or last.date()), today)
    _run_range(build_driver(config), begin, end)


@app.command()
def stale(application: Application = "assistant") -> None:
    """List the days whose inputs have changed since they were made.

    The exit code is 1 when there are any.
    """
    from flywheel_assets.lake.daily.ledger import find_stale_days

    config = load_application(application)
    lake = Stores().lake(application)
    found = False
    for asset, lookback in config.staleness_lookback_days.items():
        for day, inputs in find_stale_days(lake, asset, lookback, config.start_date).items():
            found = True
            console.print(f"{asset} {day}: {', '.join(inputs)} changed")
    if found:
        raise typer.Exit(1)
    console.print("every day is fresh")


def _find_first_pending(config: FlywheelApplication, last: date) -> date:
    """Find the first day up to `last` that is not closed and curated yet.

    The join of later days would miss it.
    """
    from flywheel_assets.defs.automation.triggers import find_first_unfinished_day

    lake = Stores().lake(config.name)
    return find_first_unfinished_day(lake, config.tables.gold, config.start_date, last) or last


def _find_last_materialized(config: FlywheelApplication) -> date | None:
    from flywheel_assets.lake.daily.ledger import read_entries

    return max(read_entries(Stores().lake(config.name), config.tables.gold.name), default=None)


def _run_range(driver: "Driver", first: date, last: date) -> None:
    from flywheel_assets.lake.daily.ledger import list_days, read_entries, sum_by_reason

    with console.status(f"materializing {first} … {last}"):
        finished = driver.materialize(first, last)
    _fail_unless_succeeded(finished)
    config = driver.application
    entries = read_entries(Stores().lake(config.name), config.tables.gold.name, list_days(first, last))
    kept = sum(entry.rows_kept for entry in entries.values())
    dropped = sum_by_reason(entries.values())
    print_reasons(f"{config.name} {first} … {last}", kept, dropped)
    open_days = [day for day, entry in entries.items() if not entry.is_closed]
    if open_days:
        console.print(f"provisional until it closes: {', '.join(map(str, open_days[-3:]))}", style="yellow")


def _fail_unless_succeeded(finished: "Finished") -> None:
    if not finished.succeeded:
        errors.print(f"run {finished.run_id} failed: ", style="bold red", end="")
        errors.print(finished.error or "see its logs", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _describe_progress(config: FlywheelApplication) -> str:
    from flywheel_assets.defs.automation.readiness import describe_open_days
    from flywheel_assets.defs.automation.training_rules import build_rule

    stores, now = Stores(), datetime.now(UTC)
    lake, versions = stores.lake(config.name), stores.versions(config.name)
    assessment = build_rule(config).assess(stores, lake, versions, now)
    waiting = describe_open_days(config, lake, now)
    return f"training trigger: {assessment.sentence}{f'; {waiting}' if waiting else ''}"
