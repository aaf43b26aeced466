"""Commands that run until interrupted, the demo, and the check before a start."""

import os
import signal
import sys
from contextlib import nullcontext
from importlib import import_module
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from flywheel_assets.cli.terminal import app, console, find_applications, load_application, open_stores
from flywheel_assets.cli.trace import open_traced_places
from flywheel_assets.errors import SettingsError, UnknownNameError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.capture.auth.access import Access
    from flywheel_assets.capture.bulk import HistoryPlace
    from flywheel_assets.capture.endpoints import EventLog
    from flywheel_assets.review.queue import Reviewed
    from flywheel_assets.stores import Stores


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
    stores = open_stores()
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
    applications: "list[FlywheelApplication]",
    reviewed: "list[Reviewed]",
    stores: "Stores",
) -> "list[BaseRoute]":
    """Build the review pages and the page of the wheel, which share their reviewers' sessions."""
    from flywheel_assets.capture.clock import read_clock
    from flywheel_assets.review.openid import OpenIdProvider, OpenIdSettings
    from flywheel_assets.review.pages import build_review_pages
    from flywheel_assets.review.proxy import TrustedProxy
    from flywheel_assets.review.sessions import Sessions
    from flywheel_assets.wheel.pages import Links, build_wheel_pages
    from flywheel_assets.wheel.reading import Prices, WheelReader

    proxy = TrustedProxy.from_settings(stores.where.review_proxy_header, stores.where.review_proxy_addresses)
    openid = OpenIdSettings.from_settings(
        stores.where.review_openid_issuer,
        stores.where.review_openid_client_id,
        stores.where.review_openid_client_secret,
        stores.where.review_openid_reviewers,
    )
    provider = None if openid is None else OpenIdProvider(openid, read_clock)
    sessions = Sessions(access, sorted(each.name for each in applications), read_clock, proxy, provider)
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


def _open_history(stores: "Stores") -> "HistoryPlace":
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


def open_reviewed_rows(application: "FlywheelApplication", stores: "Stores") -> "Reviewed":
    """Open the rows of one application that people review, where the settings say that they lie."""
    from flywheel_assets.review.queue import Reviewed

    return Reviewed(
        stores.lake(application.name),
        application.window.join_days,
        application.score_contract,
        open_traced_places(application, stores),
        stores.where.review_sampled_share,
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


_COLOURS = {"fine": "green", "look": "yellow", "broken": "bold red"}
"""By verdict."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for programs.")] = False,
) -> None:
    """Check everything that a start needs: applications, base models, places, clocks, ports, keys and limits.

    The exit code is 1 when something is broken.
    """
    import msgspec

    from flywheel_assets.startup.doctor import examine_everything

    findings = examine_everything()
    is_broken = any(finding.verdict == "broken" for finding in findings)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({"broken": is_broken, "findings": findings})).decode())
        raise typer.Exit(1 if is_broken else 0)
    # Folded, not cut: advice is pasted.
    table = Table("", *(Column(title, overflow="fold") for title in ("what", "found", "what to do")))
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, escape(finding.sentence), escape(finding.remedy))
    console.print(table)
    if is_broken:
        raise typer.Exit(1)


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
    from flywheel_assets.capture.clock import open_clock
    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.capture.log.shipping import open_shipper
    from flywheel_assets.capture.operations.telemetry import log_json_lines
    from flywheel_assets.capture.service import build_segment_limits

    stores = open_stores()
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
    clock = open_clock(root, accepts_any=stores.where.capture_any_clock)
    with shipper or nullcontext(), SegmentLog(root, build_segment_limits(stores.where), clock) as segment_log:
        counts = run(lambda: open_consumer(address), segment_log, root, stop, until_empty=until_empty)
    console.print(
        f"drained {counts.rows} events in {counts.messages} messages; unreadable messages: {counts.unreadable}",
        highlight=False,
    )
