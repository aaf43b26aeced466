"""Lists the endpoints that take events, with media types and limits, and defines `EventLog`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flywheel_assets.capture.events.scores import (
    decode_event,
    decode_label,
    decode_prediction,
    decode_text_edit,
    read_event_id,
    read_key,
)
from flywheel_assets.capture.events.texts import DecodedEvent, LandedRow, Reception
from flywheel_assets.wire import CloudEvent, Edit, ScoredCloudEvent

RETRACTION_PATH = "/v1/{application}/feedback/{feedback_id:anything}"
"""Takes back what was sent under an id; an id may hold slashes and line feeds."""
TRACES_PATH = "/v1/{application}/otlp/v1/traces"
"""Takes spans; exporters of OpenTelemetry append `/v1/traces` to the address that they are given."""
RECORDS_PATH = "/v1/{application}/records"
"""Takes exports and webhooks of other systems in any format that is known."""
LONGEST_REASON = 500
"""Characters of the reason for which history changes closed days."""
ONE_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
LINES_TYPE = "application/x-ndjson"
PLAIN_TYPE = "application/json"
PROTOBUF_TYPE = "application/x-protobuf"


class EventLog(Protocol):
    """Makes events durable."""

    def start(self) -> None:
        """Prepare to append; may block."""

    def stop(self) -> None:
        """Write everything that was acknowledged; may block."""

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        """Return when the rows are durable; raise `EventLogError` when nothing may be acknowledged."""

    def find_problem(self) -> str | None:
        """Return, as a sentence, why nothing can be made durable right now; None when all is well. Must not block."""


@dataclass(frozen=True)
class CaptureLimits:
    """Limits the size of one request, and of all requests in progress together."""

    event_bytes: int = 4 * 2**20
    request_bytes: int = 32 * 2**20
    batch_events: int = 10_000
    in_progress_bytes: int = 128 * 2**20


@dataclass(frozen=True)
class Endpoint:
    """Describes one endpoint: its name, its media types, and how an element becomes rows."""

    name: str
    """`POST /v1/{application}/<name>`."""
    summary: str
    elements: tuple[Any, ...]
    """The types that one element may have, for the OpenAPI document."""
    content_types: tuple[str, ...]
    decode: Callable[[bytes, Reception], DecodedEvent]
    """Raises `InvalidEventError` for an element that cannot be accepted."""
    read_id: Callable[[bytes, Reception], str | None] = read_event_id
    """Reads the id of a refused element."""
    is_binary_valid: bool = False
    """Whether one element may come as a CloudEvent in binary mode."""


ENDPOINTS = (
    Endpoint(
        "events",
        "CloudEvents: predictions and feedback, one or many.",
        (CloudEvent, ScoredCloudEvent),
        (ONE_TYPE, BATCH_TYPE, LINES_TYPE, PLAIN_TYPE),
        decode_event,
        is_binary_valid=True,
    ),
    Endpoint(
        "edits", "Edits: what a user made of a model's text.", (Edit,), (PLAIN_TYPE, LINES_TYPE), decode_text_edit
    ),
    Endpoint(
        "predictions",
        "A classifier's decisions, in the fields that its application's mapping names.",
        (dict[str, Any],),
        (PLAIN_TYPE, LINES_TYPE),
        decode_prediction,
        read_key,
    ),
    Endpoint(
        "labels",
        "What was true of a classifier's decisions, in the fields that its application's mapping names.",
        (dict[str, Any],),
        (PLAIN_TYPE, LINES_TYPE),
        decode_label,
        read_key,
    ),
)
