"""Commands that run until interrupted, and the demo."""

import os
import signal
import sys
from contextlib import nullcontext
from importlib import import_module
from threading import Event
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from flywheel_assets.capture.doctor import Finding, Verdict, examine
from flywheel_assets.cli.terminal import app, console, known_applications, load_application
from flywheel_assets.errors import SettingsError, UnknownNameError
from flywheel_assets.settings import settings


@app.command()
def capture() -> None:
    """Run the capture service and the review pages until interrupted; its log is JSON lines on standard error."""
    from functools import partial

    from flywheel_assets.capture.operations.logs import log_json_lines
    from flywheel_assets.capture.service import serve
    from flywheel_assets.lake.tables.lake import Lake
    from flywheel_assets.review.pages import build_review_pages
    from flywheel_assets.review.queue import Reviewed

    log_json_lines()
    # Loaded for what they declare about their events; it costs a second, and no event is accepted unseen.
    loaded = [load_application(name) for name in known_applications()]
    contracts = {application.name: application.score_contract for application in loaded}
    where = settings()
    scratch = where.resolved_home() / "scratch"
    reviewed = [
        Reviewed(
            Lake(application.name, where.resolved_catalog_uri(), where.resolved_warehouse(), scratch),
            application.window.join_days,
            application.score_contract,
        )
        for application in loaded
    ]
    serve(
        where,
        contracts,
        on_ready=lambda url: console.print(
            f"capture listens on {url} for {', '.join(contracts)}; people review at {url}/review", style="bold"
        ),
        pages=partial(build_review_pages, reviewed=reviewed, index_dir=where.resolved_review_dir()),
    )


@app.command()
def dev(
    webserver_port: Annotated[int, typer.Option(help="Dagster's UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's UI.")] = 5000,
) -> None:
    """Run Dagster's webserver and daemon, the capture service and MLflow's UI on loopback until interrupted."""
    from flywheel_assets.devservices import run_services

    run_services(webserver_port, mlflow_port, console)


_STORIES = ("assistant", "fraud")


@app.command()
def demo(
    application: Annotated[
        str, typer.Option("--application", "-a", help="Which story: assistant or fraud.")
    ] = "assistant",
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0,
) -> None:
    """Play a story against the real flywheel: engineers correct a coding assistant, or a new card fraud appears."""
    if application not in _STORIES:
        raise UnknownNameError("demo", application, _STORIES)
    import_module(f"flywheel_assets.demo.{application}.run").run(seed=seed, console=console)
    # Everything is written and closed. With torch and Dagster's definitions in one process, DuckDB 2.0's bindings fill
    # the screen with "leaked" at the interpreter's shutdown, right below the demo's result; so there is none.
    sys.stdout.flush()
    os._exit(0)


_COLOURS = {Verdict.FINE: "green", Verdict.LOOK: "yellow", Verdict.BROKEN: "bold red"}


@app.command()
def doctor() -> None:
    """Check keys, address, disk, limits and queue of the capture service; exit code 1 when something is broken."""
    findings = _findings()
    table = Table("", "what", "found", "what to do")
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, escape(finding.sentence), escape(finding.remedy))
    console.print(table)
    if any(finding.verdict is Verdict.BROKEN for finding in findings):
        raise typer.Exit(1)


def _findings() -> list[Finding]:
    try:
        return examine(settings())
    except ValidationError as error:
        # Not the values: a setting may hold a password.
        return [
            Finding("settings", Verdict.BROKEN, f"FLYWHEEL_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}")
            for each in error.errors(include_input=False, include_url=False)
        ]


@app.command()
def drain(
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when the broker has nothing for some seconds.")
    ] = False,
) -> None:
    """Move events from the broker of FLYWHEEL_QUEUE into the landing zone until interrupted.

    A message is deleted or committed only after its events are on disk: killing this at any point loses nothing.
    Several may run side by side.
    """
    from flywheel_assets.capture.brokers.broker import broker_address
    from flywheel_assets.capture.brokers.drain import drain as run
    from flywheel_assets.capture.brokers.opening import open_consumer
    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.capture.log.shipping import configured_shipper
    from flywheel_assets.capture.operations.logs import log_json_lines
    from flywheel_assets.capture.service import segment_limits

    address = broker_address(settings())
    if address is None:
        raise SettingsError(
            "FLYWHEEL_QUEUE is 'local': capture writes the landing zone itself and there is nothing to drain; "
            "set it to the sqs:// or kafka:// queue that capture sends to"
        )
    log_json_lines()
    stop = Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    root = settings().resolved_landing_dir()
    console.print(f"draining {address} into {root}", style="bold", highlight=False, soft_wrap=True)
    with configured_shipper(settings()) or nullcontext(), SegmentLog(root, segment_limits(settings())) as segment_log:
        counts = run(lambda: open_consumer(address), segment_log, root, stop, until_empty=until_empty)
    console.print(
        f"drained {counts.rows} events in {counts.messages} messages; unreadable messages: {counts.unreadable}",
        highlight=False,
    )
