"""The process between a message broker and the landing zone."""

import signal
from contextlib import nullcontext
from threading import Event
from typing import Annotated

import typer

from flywheel_assets.cli.terminal import app, console
from flywheel_assets.errors import SettingsError
from flywheel_assets.settings import settings


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
