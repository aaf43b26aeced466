"""Commands over landed days: materialize them, materialize them again, find stale ones."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import (
    Application,
    Day,
    app,
    build_driver,
    console,
    errors,
    load_application,
    open_stores,
    print_reasons,
)

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.capture.log.history import Published
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
            stores = open_stores()
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
    reach = timedelta(days=config.join_lookback_days + max(config.gold_lookback_days.values(), default=0))
    today = datetime.now(UTC).date()
    if first > last:
        raise typer.BadParameter(f"{first.date()} is later than {last.date()}: give the first day first")
    if first.date() < config.start_date:
        raise typer.BadParameter(f"{first.date()} has no partition: {application} starts on {config.start_date}")
    if last.date() > today:
        raise typer.BadParameter(f"{last.date()} is in the future: today is {today} (UTC)")
    begin = min(first.date(), _find_first_pending(config, first.date()))
    end = min(last.date() + reach, max(last.date(), _find_last_materialized(config) or last.date()), today)
    _run_range(build_driver(config), begin, end)


@app.command()
def stale(application: Application = "assistant") -> None:
    """List the days whose inputs have changed since they were made.

    The exit code is 1 when there are any.
    """
    from flywheel_assets.lake.daily.history import find_days_to_redo

    config, stores = load_application(application), open_stores()
    stale = find_days_to_redo(
        stores.lake(application),
        stores.landing(),
        config.tables,
        config.staleness_lookback_days,
        config.start_date,
    )
    found = [(day, asset, inputs) for asset, days in stale.items() for day, inputs in days.items()]
    for day, asset, inputs in found:
        console.print(f"{asset} {day}: {', '.join(inputs)} changed", highlight=False)
    if found:
        first, last = min(found)[0], max(found)[0]
        console.print(
            "a changed setting that says which days are read, such as maturity_days, counts as a change, too",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"to redo them: [bold]flywheel backfill {first} {last} -a {application}[/]", highlight=False)
        raise typer.Exit(1)
    console.print("every day is fresh")


@app.command()
def history(application: Application = "assistant") -> None:
    """List every import of history: who let which file in, when and why, and which days received it."""
    from flywheel_assets.lake.daily.history import list_history_imports

    load_application(application)
    table = Table("id", "when", "who", "reason", "file", "rows", "days", "reopened")
    for each in list_history_imports(open_stores().lake(application)):
        table.add_row(
            each.id,
            f"{each.decided_at:%Y-%m-%d %H:%M}",
            each.decided_by,
            each.reason,
            each.file,
            f"{each.events:,}",
            _describe_days(each.list_days()),
            _describe_days(each.list_reopened()),
        )
    console.print(table if table.row_count else "no history was imported")


def _describe_days(days: Sequence[date]) -> str:
    return f"{days[0]} … {days[-1]} ({len(days):,})" if days else "none"


def print_published(published: "Published", config: "FlywheelApplication") -> None:
    """Say which days have received history, and what makes gold right.

    Args:
        published: what `HistoryLog.publish` returned.
        config: the application as it was loaded before.
    """
    if published.known:
        console.print(f"{published.known:,} rows had landed before and were left out")
    days = sorted({day for found in published.days.values() for day in found})
    if not days:
        console.print("nothing new: no day has changed")
        return
    reopened = sorted({day for found in published.reopened.values() for day in found})
    console.print(
        f"history {published.decision}: {published.events:,} rows on {_describe_days(days)}; reopened: "
        f"{_describe_days(reopened)}",
        highlight=False,
    )
    if published.first_day is not None and published.first_day < config.start_date:
        console.print(
            f"{config.name} now begins on {published.first_day}. A running Dagster shows the partitions before "
            f"{config.start_date} when its code location is reloaded: in the UI Deployment, Code locations, Reload, or "
            "start `flywheel dev` again",
            soft_wrap=True,
        )
    console.print(f"next: [bold]flywheel backfill {days[0]} {days[-1]} --application {config.name}[/]", highlight=False)


def _find_first_pending(config: "FlywheelApplication", last: date) -> date:
    """Find the first day up to `last` that is not closed and curated yet, or that history has changed since.

    The join of later days would miss it.
    """
    from flywheel_assets.defs.automation.triggers import find_first_day_to_do

    stores = open_stores()
    return find_first_day_to_do(stores.lake(config.name), stores.landing(), config, config.start_date, last) or last


def _find_last_materialized(config: "FlywheelApplication") -> date | None:
    from flywheel_assets.lake.daily.ledger import read_entries

    return max(read_entries(open_stores().lake(config.name), config.tables.gold.name), default=None)


def _run_range(driver: "Driver", first: date, last: date) -> None:
    from flywheel_assets.lake.daily.ledger import list_days, read_entries, sum_by_reason
    from flywheel_assets.records import Reason

    with console.status(f"materializing {first} … {last}"):
        finished = driver.materialize(first, last)
    _fail_unless_succeeded(finished)
    config = driver.application
    entries = read_entries(open_stores().lake(config.name), config.tables.gold.name, list_days(first, last))
    kept = sum(entry.rows_kept for entry in entries.values())
    dropped = sum_by_reason(entries.values())
    print_reasons(f"{config.name} {first} … {last}", kept, dropped)
    if dropped.get(Reason.INVALID_FEATURES):
        _explain_features(config, list_days(first, last))
    open_days = [day for day, entry in entries.items() if not entry.is_closed]
    if open_days:
        console.print(f"provisional until it closes: {', '.join(map(str, open_days[-3:]))}", style="yellow")


def _explain_features(config: "FlywheelApplication", days: Sequence[date]) -> None:
    """Say which feature most of the refused rows lack, and what is declared where it came later than they did."""
    from flywheel_assets.lake.tables.specs import QUARANTINE
    from flywheel_assets.records import Reason

    wrong = f"reason = '{Reason.INVALID_FEATURES}'"
    refused = open_stores().lake(config.name).read(QUARANTINE, days, ["reason", "detail"], where=wrong)
    for detail, count in Counter(refused["detail"].to_pylist()).most_common(3):
        console.print(f"{count:,} × {detail}", highlight=False, markup=False, soft_wrap=True, style="yellow")
    console.print(
        "where older rows lack a feature, declare its first day: ScoreContract(features_since={…})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _fail_unless_succeeded(finished: "Finished") -> None:
    if not finished.succeeded:
        errors.print(f"run {finished.run_id} failed: ", style="bold red", end="")
        errors.print(finished.error or "see its logs", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _describe_progress(config: "FlywheelApplication") -> str:
    from flywheel_assets.defs.automation.feasibility import foresee_decision
    from flywheel_assets.defs.automation.readiness import describe_open_days
    from flywheel_assets.defs.automation.training_rules import build_rule

    stores, now = open_stores(), datetime.now(UTC)
    lake, versions = stores.lake(config.name), stores.versions(config.name)
    assessment = build_rule(config).assess(stores, lake, versions, now)
    waiting = describe_open_days(config, lake, now)
    outlook = str(foresee_decision(config, lake, versions))
    progress = f"training trigger: {assessment.sentence}{f'; {waiting}' if waiting else ''}"
    return progress if outlook in assessment.sentence else f"{progress}\nif a version were cut now: {outlook}"
