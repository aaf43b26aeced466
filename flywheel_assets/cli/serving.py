"""Commands that run until interrupted, and the demo."""

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from flywheel_assets.cli.terminal import app, console, known_applications, load_application
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.settings import settings


@app.command()
def capture() -> None:
    """Run the capture service and the review pages until interrupted; its log is JSON lines on standard error."""
    from functools import partial

    from flywheel_assets.capture.operations.logs import log_json_lines
    from flywheel_assets.capture.service import serve
    from flywheel_assets.lake.tables.lake import Lake
    from flywheel_assets.review.pages import review_pages
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
        pages=partial(review_pages, reviewed=reviewed, index_dir=where.resolved_review_dir()),
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
