"""Lands events as an import does, so that tests see what capture takes."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from flywheel_assets.capture.events.texts import Reception, land_event
from flywheel_assets.formats.format import Event

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def land(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Land events and return their rows.

    Raises:
        InvalidEventError: capture refuses one.
    """
    reception = Reception("support", NOW)
    landed = [land_event(event, reception, "import:test") for event in events]
    return [json.loads(row.line) for event in landed for row in event.rows]
