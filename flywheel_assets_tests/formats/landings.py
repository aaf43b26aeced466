"""Lands events as an import does, so that tests see what capture takes."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from flywheel_assets.capture.events.texts import Reception, land_choice, land_cloud_event, land_edit
from flywheel_assets.formats.format import Event
from flywheel_assets.wire import Choice, Edit

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def land(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Land events and return their rows.

    Raises:
        InvalidEventError: capture refuses one.
    """
    reception = Reception("support", NOW)
    landed = []
    for event in events:
        if isinstance(event, Choice):
            landed.append(land_choice(event, reception, "import:test"))
        elif isinstance(event, Edit):
            landed.append(land_edit(event, reception, "import:test"))
        else:
            landed.append(land_cloud_event(event, reception, "import:test"))
    return [json.loads(row.line) for event in landed for row in event.rows]
