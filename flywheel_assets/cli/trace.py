"""The command that says what became of an event."""

from typing import TYPE_CHECKING, Annotated

import typer

from flywheel_assets.cli.terminal import Application, app, console, errors, load_application, open_stores

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.lake.whatif.trace import Traced
    from flywheel_assets.stores import Stores


@app.command()
def trace(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A prediction id, a feedback event id, a pair id, or with --source the id that a client sent.",
        ),
    ],
    source: Annotated[
        str | None, typer.Option(help="The source that the client sent; import:<name> for a file.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Also print the texts: they are user text.")] = False,
    application: Application = "assistant",
) -> None:
    """Say what became of an event: landed, joined, judged, in which versions, trained, evaluated, promoted.

    The exit code is 1 when nothing is known about it.
    """
    from flywheel_assets.lake.whatif.trace import trace_event

    config = load_application(application)
    found = trace_event(open_traced_places(config, open_stores()), wanted, source, with_texts=text)
    if not found.is_known:
        errors.print(found.complaint, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    for step in found.steps:
        console.print(f"{step.when:<16}  {step.stage:<9}  {step.says}", markup=False, highlight=False, soft_wrap=True)
    for event, texts in found.texts.items():
        for name, words in texts.items():
            console.print(f"{event} {name}", style="bold", markup=False, highlight=False, soft_wrap=True)
            console.print(words, markup=False, highlight=False, soft_wrap=True)


def open_traced_places(config: "FlywheelApplication", stores: "Stores") -> "Traced":
    """Open the places in which the events of one application leave traces, where the settings say that they lie."""
    from flywheel_assets.application import PreferenceApplication
    from flywheel_assets.curation.texts.statements import Agreement
    from flywheel_assets.lake.whatif.trace import Traced

    return Traced(
        stores.lake(config.name),
        config.tables,
        stores.versions(config.name),
        stores.landing(),
        stores.landing_folder(),
        config.window.longest_wait_days,
        config.resolution.agreement if isinstance(config, PreferenceApplication) else Agreement.MAJORITY,
    )
