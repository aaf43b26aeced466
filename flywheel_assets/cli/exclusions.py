"""Commands that keep rows out of gold and let them in again: exclusions and the batch breaker.

No command changes the rows themselves.
"""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import (
    Application,
    Day,
    Reason,
    Who,
    Yes,
    app,
    build_driver,
    console,
    load_application,
    name_decider,
    open_stores,
    print_days,
)

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.lake.versions.exclusions import Exclusion


@app.command()
def exclude(
    reason: Reason,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first UTC day to exclude, YYYY-MM-DD.")
    ] = None,
    to: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last UTC day to exclude, YYYY-MM-DD.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="The kind of day that --from and --to mean: received or occurred.")
    ] = "received",
    user: Annotated[str | None, typer.Option(help="Exclude only rows of this user.")] = None,
    model_version: Annotated[str | None, typer.Option(help="Exclude only outputs of this model version.")] = None,
    prediction: Annotated[str | None, typer.Option(help="Exclude only rows about this prediction.")] = None,
    thread: Annotated[str | None, typer.Option(help="Exclude only rows of this conversation.")] = None,
    event: Annotated[
        str | None,
        typer.Option(
            help="Exclude only this event: its client id together with --source or --import, which means all its "
            "revisions, or alone the id of one feedback event."
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Exclude only feedback that this source sent.")] = None,
    import_: Annotated[
        str | None, typer.Option("--import", help="Exclude only feedback from the imported file of this name.")
    ] = None,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Keep days, a user, a model's outputs, a prediction, an event or a source out of every later gold version.

    A row is excluded when it meets all conditions that are given.
    """
    from flywheel_assets.errors import InvalidRuleError, UnknownNameError
    from flywheel_assets.lake.versions import exclusions
    from flywheel_assets.records import IMPORT_PREFIX

    config = load_application(application)
    lake = open_stores().lake(application)
    if by not in list(exclusions.DayOf):
        raise UnknownNameError("kind of day", by, list(exclusions.DayOf))
    if source and import_:
        raise InvalidRuleError(f"--source {source} and --import {import_} are two sources: give one of them")
    sender = IMPORT_PREFIX + import_ if import_ else source
    statement = exclusions.find_statement(lake, config.tables.gold, sender, event) if event and sender else None
    rule = exclusions.ExclusionRule(
        first_day=_read_day(from_),
        last_day=_read_day(to),
        by=exclusions.DayOf(by),
        user_id=user,
        model_version=model_version,
        prediction_id=prediction,
        thread_id=thread,
        statement_id=statement,
        event_id=None if statement else event,
        source=None if statement else sender,
    )
    exclusions.require_columns(config.tables.gold, rule)
    planned = exclusions.Exclusion(
        id="planned", rule=rule, decided_at=datetime.now(UTC), decided_by=name_decider(who), reason=reason
    )
    _print_effect("leaves out", config, exclusions.list_exclusions_in_force(lake), planned)
    if not yes:
        console.print(f"would exclude {rule.describe()}: {reason}. To do it, repeat the command with --yes.")
        return
    done = exclusions.exclude_rows(lake, rule, who=name_decider(who), reason=reason, now=planned.decided_at)
    console.print(f"exclusion {done.id}: {rule.describe()}. The next version leaves these rows out.")
    console.print(f"to train without them at once: [bold]flywheel retrain -a {application} --reason … --yes[/]")


@app.command()
def include(
    exclusion: Annotated[str, typer.Argument(help="The exclusion's id; `flywheel exclusions` lists all ids.")],
    reason: Reason,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """End an exclusion: its rows count again from the next version on."""
    from flywheel_assets.errors import UnknownNameError
    from flywheel_assets.lake.versions import exclusions

    config = load_application(application)
    lake = open_stores().lake(application)
    current = {each.id: each for each in exclusions.list_exclusions_in_force(lake)}
    if exclusion not in current:
        raise UnknownNameError("exclusion in force", exclusion, current, "`flywheel exclusions` lists every exclusion.")
    others = [each for each in current.values() if each.id != exclusion]
    _print_effect("lets in again", config, others, current[exclusion])
    if not yes:
        console.print(
            f"would end {exclusion} ({current[exclusion].rule.describe()}). To do it, repeat the command with --yes."
        )
        return
    exclusions.end_exclusion(lake, exclusion, who=name_decider(who), reason=reason, now=datetime.now(UTC))
    console.print(f"{exclusion} is ended: {reason}")


@app.command("exclusions")
def list_exclusions(application: Application = "assistant") -> None:
    """List every exclusion, also ended ones: its rows, who decided when and why, and its state."""
    from flywheel_assets.lake.versions.exclusions import list_exclusions

    load_application(application)
    table = Table()
    for column in ("id", "what", "named", "decided", "why", "state"):
        table.add_column(column, overflow="fold")
    for each in list_exclusions(open_stores().lake(application)):
        state = "in force" if each.ended_at is None else f"ended {each.ended_at:%Y-%m-%d} by {each.ended_by}"
        decided = f"{each.decided_at:%Y-%m-%d %H:%M} by {each.decided_by}"
        named = "\n".join(each.rule.list_names().values())
        table.add_row(each.id, each.rule.describe(), named, decided, each.reason, state)
    console.print(table)


def _print_effect(verb: str, config: "FlywheelApplication", others: "list[Exclusion]", one: "Exclusion") -> None:
    """Print by day the rows that this one exclusion changes."""
    from flywheel_assets.lake.versions.exclusions import count_effect_per_day

    changed = count_effect_per_day(open_stores().lake(config.name), config.tables.gold, others, one)
    print_days(f"{one.rule.describe()} {verb}", changed)


def _read_day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


@app.command()
def retrain(
    reason: Reason,
    application: Application = "assistant",
    yes: Yes = False,
) -> None:
    """Request a training at once, without waiting for the thresholds.

    The trigger runs the next version at its next tick. A version that could not be trained or judged is refused; of one
    that could not be promoted it is only said.
    """
    from flywheel_assets.defs.automation.feasibility import foresee_decision
    from flywheel_assets.defs.automation.readiness import find_cut_problem
    from flywheel_assets.defs.automation.triggers import find_pending_version, name_next_version
    from flywheel_assets.defs.partitions import TURN_JOB, build_version_partitions
    from flywheel_assets.defs.running import request_retry
    from flywheel_assets.errors import EmptyVersionError, VersionConflictError

    config = load_application(application)
    stores, driver = open_stores(), build_driver(config)
    name = str(build_version_partitions(application).name)
    requested = driver.instance.get_dynamic_partitions(name)
    lake, versions = stores.lake(application), stores.versions(application)
    pending = find_pending_version(driver.instance, versions, requested, TURN_JOB.format(application))
    if pending is not None and not pending.is_empty:
        raise VersionConflictError(
            f"{pending.version} was requested and is not finished: wait for its end, or run `flywheel abandon "
            f"{pending.version} --reason … --yes`"
        )
    version = pending.version if pending else name_next_version(lake, versions, requested, config)
    if problem := find_cut_problem(config, lake, datetime.now(UTC)):
        raise EmptyVersionError(f"{version} would fail, so it is not requested: {problem}")
    outlook = foresee_decision(config, lake, versions)
    style = None if outlook.can_decide else "yellow"
    console.print(f"{version}: {outlook}", style=style, highlight=False, soft_wrap=True)
    if not yes:
        console.print(f"would request {version}: {reason}. To do it, repeat the command with --yes.")
        return
    if pending is None:
        # The trigger first runs a requested version that has no run yet.
        driver.instance.add_dynamic_partitions(name, [version])
    else:
        request_retry(driver.instance, application, version)
    console.print(f"{version} is trained at the trigger's next tick: {reason}")


breaker = typer.Typer(
    no_args_is_help=True, help="List the days that the batch breaker keeps out of gold, or let one in."
)
app.add_typer(breaker, name="breaker")


@breaker.command("list")
def list_days(application: Application = "assistant") -> None:
    """List every tripped day with its figures, and who let which day in."""
    from flywheel_assets.lake.daily import breaker as days

    load_application(application)
    lake = open_stores().lake(application)
    decided = {(each.day, each.joined_hash): each for each in days.list_resets(lake)}
    table = Table("day", "rows", "out of bounds", "for instance", "state")
    for each in days.read_judged_days(lake):
        if not each.figures.trips:
            continue
        decision = decided.get((each.day, each.joined_hash))
        if decision is None:
            state = f"{each.held_rows:,} rows of the senders behind it kept out of gold" if each.held_rows else ""
            state = state or "kept out of gold"
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
    """Let the rows of a tripped day into gold, as an audited decision about its present rows."""
    from flywheel_assets.errors import UnknownNameError
    from flywheel_assets.lake.daily import breaker as days

    load_application(application)
    lake = open_stores().lake(application)
    tripped = {each.day: each for each in days.find_kept_out_days(lake)}
    if (found := tripped.get(day.date())) is None:
        known = [each.isoformat() for each in tripped]
        raise UnknownNameError(
            "tripped day", f"{day:%Y-%m-%d}", known, "`flywheel breaker list` lists every day that tripped."
        )
    console.print(f"{found.day}: {found.figures.rows:,} rows, {found.figures.describe()}", highlight=False)
    if not yes:
        console.print(f"would let {found.day} in: {reason}. To do it, repeat the command with --yes.")
        return
    done = days.reset_day(lake, found.day, who=name_decider(who), reason=reason, now=datetime.now(UTC))
    console.print(f"reset {done.id}: {done.reason}. Its rows enter gold when the day is curated again:")
    console.print(f"`flywheel backfill {found.day} {found.day} --application {application}`", highlight=False)
