"""Commands that run until interrupted, the demo, and the check before a start."""

import os
import signal
import sys
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from flywheel_assets.application import FlywheelApplication, PreferenceApplication
from flywheel_assets.capture.doctor import Finding, Verdict, examine_service
from flywheel_assets.cli.terminal import app, console
from flywheel_assets.cli.trace import open_traced_places
from flywheel_assets.discovery import find_applications, load_application
from flywheel_assets.errors import FlywheelError, SettingsError, UnknownNameError
from flywheel_assets.models.base_model import PLAIN_TURNS, SET_A_TEMPLATE, examine_base_model
from flywheel_assets.settings import read_settings
from flywheel_assets.stores import Stores

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from flywheel_assets.capture.auth.access import Access
    from flywheel_assets.capture.bulk import HistoryPlace
    from flywheel_assets.capture.endpoints import EventLog
    from flywheel_assets.review.queue import Reviewed


@app.command()
def capture() -> None:
    """Run the capture service, the page of the wheel and the review pages until interrupted.

    Its log is JSON lines on standard error.
    """
    from functools import partial

    from flywheel_assets.capture.operations.telemetry import log_json_lines
    from flywheel_assets.capture.service import serve

    log_json_lines()
    # Capture needs the event fields that each application declares. Loading them all takes a second.
    loaded = [load_application(name) for name in find_applications()]
    contracts = {application.name: application.score_contract for application in loaded}
    stores = Stores()
    reviewed = [open_reviewed_rows(application, stores) for application in loaded]
    serve(
        stores.where,
        contracts,
        on_ready=lambda url: console.print(
            f"capture listens on {url} for {', '.join(contracts)}; people look at {url} and review at {url}/review. "
            "A new application is taken after a restart",
            style="bold",
        ),
        pages=partial(_build_pages, applications=loaded, reviewed=reviewed, stores=stores),
        ship_to=stores.shipping(),
        history=_open_history(stores),
    )


def _build_pages(
    event_log: "EventLog",
    access: "Access",
    applications: list[FlywheelApplication],
    reviewed: "list[Reviewed]",
    stores: Stores,
) -> "list[BaseRoute]":
    """Build the review pages and the page of the wheel, which share their reviewers' sessions."""
    from flywheel_assets.capture.clock import read_clock
    from flywheel_assets.review.pages import build_review_pages
    from flywheel_assets.review.sessions import Sessions
    from flywheel_assets.wheel.pages import Links, build_wheel_pages
    from flywheel_assets.wheel.reading import Prices, WheelReader

    sessions = Sessions(access, sorted(each.name for each in applications), read_clock)
    return [
        *build_review_pages(event_log, access, reviewed, stores.where.resolve_review_dir(), sessions=sessions),
        *build_wheel_pages(
            access,
            sessions,
            [WheelReader(each, stores) for each in applications],
            {each.name: each.traced for each in reviewed if each.traced is not None},
            Links.from_settings(stores.where),
            Prices.from_settings(stores.where),
        ),
    ]


def _open_history(stores: Stores) -> "HistoryPlace":
    """Open the place in which history lands that a key with the scope `import` sends."""
    from flywheel_assets.capture.bulk import HistoryPlace
    from flywheel_assets.capture.log.history import HistoryLog

    def open_log(application: str, who: str, reason: str, file: str) -> HistoryLog:
        return HistoryLog(stores.lake(application), stores.landing(), stores.scratch("history"), who, reason, file)

    def report(application: str) -> None:
        # Dagster takes seconds and much memory to load: a service that receives no history never does.
        from flywheel_assets.defs.assets.landed import report_changed_days
        from flywheel_assets.defs.running import open_instance

        with open_instance(stores.where.resolve_dagster_home()) as instance:
            report_changed_days(instance, load_application(application), stores)

    return HistoryPlace(open_log, report)


def open_reviewed_rows(application: FlywheelApplication, stores: Stores) -> "Reviewed":
    """Open the rows of one application that people review, where the settings say that they lie."""
    from flywheel_assets.review.queue import Reviewed

    return Reviewed(
        stores.lake(application.name),
        application.window.join_days,
        application.score_contract,
        open_traced_places(application, stores),
    )


@app.command()
def dev(
    webserver_port: Annotated[int, typer.Option(help="The port of Dagster's UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="The port of MLflow's UI.")] = 5000,
    show_logs: Annotated[
        bool, typer.Option("--show-logs", help="Show here what the services print, instead of in <home>/logs.")
    ] = False,
) -> None:
    """Run Dagster, the capture service and MLflow's UI on loopback until interrupted.

    It says when all of them answer, where they are, and what to do first.
    """
    from flywheel_assets.devservices import run_services

    run_services(webserver_port, mlflow_port, console, show_logs=show_logs)


_STORIES = ("assistant", "fraud", "house_style")


@app.command()
def demo(
    application: Annotated[
        str, typer.Option("--application", "-a", help="The story: assistant, fraud or house_style.")
    ] = "assistant",
    seed: Annotated[int, typer.Option(help="The random seed of the simulated world.")] = 0,
) -> None:
    """Play a story against the real flywheel.

    assistant: engineers correct a coding assistant; fraud: a new card fraud appears; house_style: a real small model
    (SmolLM2) learns from people who want one sentence.
    """
    if application not in _STORIES:
        raise UnknownNameError("demo", application, _STORIES)
    import_module(f"flywheel_assets.demo.{application}.run").run(seed=seed, console=console)
    # Everything is written and closed. With torch and Dagster's definitions in one process, DuckDB 2.0's bindings fill
    # the screen with "leaked" at the interpreter's shutdown, right below the demo's result; so the shutdown is skipped.
    sys.stdout.flush()
    os._exit(0)


_COLOURS = {Verdict.FINE: "green", Verdict.LOOK: "yellow", Verdict.BROKEN: "bold red"}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for programs.")] = False,
) -> None:
    """Check everything that a start needs: applications, base models, places, clocks, ports, keys and limits.

    The exit code is 1 when something is broken.
    """
    findings = _check_everything()
    is_broken = any(finding.verdict is Verdict.BROKEN for finding in findings)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({"broken": is_broken, "findings": findings})).decode())
        raise typer.Exit(1 if is_broken else 0)
    table = Table("", "what", "found", "what to do")
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, escape(finding.sentence), escape(finding.remedy))
    console.print(table)
    if is_broken:
        raise typer.Exit(1)


def _check_everything() -> list[Finding]:
    try:
        return [*_check_applications(), *_check_workspace(), *_check_places(), *examine_service(read_settings())]
    except SettingsError as error:
        return [Finding("settings", Verdict.BROKEN, str(error))]


def _check_workspace() -> list[Finding]:
    """Say whether Dagster would load every application that capture takes events for."""
    from flywheel_assets.devservices import check_workspace

    workspace = Path("workspace.yaml")
    if not workspace.exists():
        problem = f"{workspace.absolute()} does not exist, so `flywheel dev` does not start here"
        return [Finding("workspace", Verdict.LOOK, problem, "run from the project's folder")]
    try:
        check_workspace(workspace)
    except SettingsError as error:
        # Capture works without it, and so does Dagster where another workspace is served.
        return [Finding("workspace", Verdict.LOOK, f"`flywheel dev` does not start here: {error}")]
    return [Finding("workspace", Verdict.FINE, f"{workspace.absolute()} names every application")]


def _check_places() -> list[Finding]:
    from flywheel_assets.startup.checks import check_places

    stores, names = Stores(), []
    with suppress(SettingsError):  # `_check_applications` has reported it
        names = list(find_applications())
    return check_places(stores, names, [("dagster", 3000), ("mlflow", 5000)])


def _check_applications() -> list[Finding]:
    """Report on each application, for capture starts only where every one of them loads, and on its base model."""
    try:
        places = find_applications()
    except SettingsError as error:
        return [Finding("applications", Verdict.BROKEN, str(error))]
    findings = []
    for name, place in places.items():
        try:
            application = load_application(name)
        except SettingsError as error:
            findings.append(Finding(f"application {name}", Verdict.BROKEN, str(error)))
        else:
            findings.append(Finding(f"application {name}", Verdict.FINE, f"{place.module}, {place.origin}"))
            if isinstance(application, PreferenceApplication):
                findings.append(_check_base_model(application))
            findings.append(_check_feasibility(application))
    return findings


def _check_feasibility(application: FlywheelApplication) -> Finding:
    """Say whether the promotion gate could decide about a version that is cut now; of no lake nothing is read."""
    from flywheel_assets.defs.automation.feasibility import foresee_decision

    subject, stores, name = f"promotion of {application.name}", Stores(), application.name
    try:
        lake = stores.lake(name)
        if not (lake.is_begun and lake.has_table(application.tables.gold)):
            return Finding(subject, Verdict.FINE, "there are no tables yet, so nothing can be foreseen")
        outlook = foresee_decision(application, lake, stores.versions(name))
    except FlywheelError as error:
        return Finding(subject, Verdict.BROKEN, str(error))
    verdict = Verdict.FINE if outlook.can_decide else Verdict.LOOK
    return Finding(subject, verdict, outlook.sentence, outlook.remedy)


def _check_base_model(application: PreferenceApplication) -> Finding:
    """Say which tokenizer and chat template the application's versions are judged and trained with."""
    subject, name, stores = f"base model of {application.name}", application.base_model, Stores()
    found = stores.base_model(name)
    try:
        files = examine_base_model(found)
    except SettingsError as error:
        return Finding(subject, Verdict.BROKEN, str(error))
    if not files.is_local and stores.where.hub_offline:
        models = stores.where.resolve_models_dir()
        problem = f"{name!r} is not in {models}, and FLYWHEEL_HUB_OFFLINE keeps trainings away from the hub"
        return Finding(subject, Verdict.BROKEN, problem, f"put the model into {models / name}")
    if not files.is_local:
        models = stores.where.resolve_models_dir()
        return Finding(
            subject,
            Verdict.LOOK,
            f"{name!r} is not in {models}, so the first version looks for it on the hub; which chat template it has is "
            "seen then",
            f"put the model into {models / name}, or check that {name!r} is its id on the hub",
        )
    if files.chat_template is None:
        return Finding(
            subject,
            Verdict.LOOK,
            f"the tokenizer in {found} has no chat template: prompts that are text are sent as they are, and "
            f"{PLAIN_TURNS}",
            SET_A_TEMPLATE,
        )
    text = "become one user turn" if application.recipe.wrap_text_prompts else "are sent as they are"
    sentence = (
        f"the tokenizer in {found}, with the chat template of {files.chat_template}; prompts that are text {text}"
    )
    return Finding(subject, Verdict.FINE, sentence)


@app.command()
def drain(
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when the broker had no message for some seconds.")
    ] = False,
) -> None:
    """Move events from the broker of FLYWHEEL_QUEUE into the landing zone until interrupted.

    A message is deleted or committed only after its events are on disk: killing this command loses nothing.
    Several drains may run at the same time.
    """
    from flywheel_assets.capture.brokers import open_consumer
    from flywheel_assets.capture.brokers.broker import read_broker_address
    from flywheel_assets.capture.brokers.drain import drain_broker as run
    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.capture.log.shipping import open_shipper
    from flywheel_assets.capture.operations.telemetry import log_json_lines
    from flywheel_assets.capture.service import build_segment_limits

    stores = Stores()
    address = read_broker_address(stores.where)
    if address is None:
        raise SettingsError(
            "FLYWHEEL_QUEUE is 'local': capture writes the landing zone itself and there is nothing to drain; "
            "set it to the sqs:// or kafka:// queue that capture sends to"
        )
    log_json_lines()
    stop = Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    root = stores.landing_folder()
    console.print(f"draining {address} into {root}", style="bold", highlight=False, soft_wrap=True)
    shipper = open_shipper(stores.where, stores.shipping())
    with shipper or nullcontext(), SegmentLog(root, build_segment_limits(stores.where)) as segment_log:
        counts = run(lambda: open_consumer(address), segment_log, root, stop, until_empty=until_empty)
    console.print(
        f"drained {counts.rows} events in {counts.messages} messages; unreadable messages: {counts.unreadable}",
        highlight=False,
    )
