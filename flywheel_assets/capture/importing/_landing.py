"""Turns one record into landed rows: of texts through its format, of scores through the application's field names."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events.scores import land_document
from flywheel_assets.capture.events.texts import DecodedEvent, Reception, land_choice, land_cloud_event, land_edit
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.conversion import Conversion, decode_sample, is_record
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.own import NAME, RETRACTING_SOURCE
from flywheel_assets.formats.reading.entries import Entry, decode_object
from flywheel_assets.formats.record import Record
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.records import IMPORT_PREFIX
from flywheel_assets.wire import Choice, CloudEvent, Edit, FeedbackCloudEvent, PredictionCloudEvent

LandedEvent = tuple[str, DecodedEvent]
"""The kind of an event, as it is counted, and the event."""


class Lander(Protocol):
    """Turns the records of one source into landed events."""

    def land(self, value: bytes | dict[str, Any], reception: Reception) -> Sequence[LandedEvent]:
        """Land one record.

        Raises:
            InvalidEventError: it cannot be accepted.
        """


class TextLander:
    """Lands the events into which a format turns a record."""

    def __init__(self, conversion: Conversion, file_name: str) -> None:
        self._conversion = conversion
        self._source = f"{IMPORT_PREFIX}{conversion.name if conversion.has_global_ids else file_name}"
        self._counts_ids_within_file = not conversion.has_global_ids and conversion.name not in (NAME, "map")

    def land(self, value: bytes | dict[str, Any], reception: Reception) -> Sequence[LandedEvent]:
        """Land one record."""
        landed: list[LandedEvent] = []
        for event in self._conversion.convert(value):
            if landed:
                reception.advance()
            landed.append((name_kind(event), self._land_event(event, reception)))
        return landed

    def _land_event(self, event: Event, reception: Reception) -> DecodedEvent:
        if isinstance(event, Edit):
            return land_edit(event, reception, self._source)
        if isinstance(event, Choice):
            return land_choice(event, reception, self._source)
        rename: Callable[[str], str] = str
        if event.source == RETRACTING_SOURCE:
            rename = _name_statement
        elif self._conversion.name == NAME:
            # Under one imported source, ids of different original sources must stay apart.
            rename = partial(records.make_stable_id, event.source)
        elif self._counts_ids_within_file:
            return land_cloud_event(self._localize(event), reception, self._source)
        return land_cloud_event(event, reception, self._source, rename)

    def _localize(self, event: CloudEvent) -> CloudEvent:
        """Return an event whose prediction is another one than that of the same number in another file."""
        data = event.data
        prediction_id = data.prediction_id or (event.id if isinstance(event, PredictionCloudEvent) else None)
        changes = {} if prediction_id is None else {"prediction_id": self._make_id(prediction_id)}
        sibling_id = getattr(data, "sibling_id", None)
        if sibling_id is not None:
            changes["sibling_id"] = self._make_id(sibling_id)
        return msgspec.structs.replace(event, data=msgspec.structs.replace(data, **changes))

    def _make_id(self, given: str) -> str:
        return records.make_stable_id("imported", self._source, given)


def _name_statement(client_id: str) -> str:
    """Return the name under which an edit or a choice of a file was stated."""
    return f"{client_id}/feedback"


_KINDS = {Edit: "edit", Choice: "choice", PredictionCloudEvent: "prediction"}


def name_kind(event: Event) -> str:
    """Return the word under which an event is counted."""
    return event.data.signal.value if isinstance(event, FeedbackCloudEvent) else _KINDS[type(event)]


class ScoreLander:
    """Lands a classifier's predictions and labels, in the team's own fields or as CloudEvents."""

    def __init__(self, file_name: str) -> None:
        self._source = f"{IMPORT_PREFIX}{file_name}"

    def land(self, value: bytes | dict[str, Any], reception: Reception) -> Sequence[LandedEvent]:
        """Land one record: a prediction, a label, or both."""
        values = decode_object(value) if isinstance(value, bytes) else value
        events = land_document(values, reception, self._source)
        return [(_name_score_kind(event), event) for event in events]


def is_document(values: Mapping[str, Any], contract: ScoreContract) -> bool:
    """Return whether an object has the field that a classifier's own records are known by."""
    return Record(values).get(*contract.mapping.key.split(".")) is not None or "specversion" in values


def list_unread_scores(sample: Sequence[Entry], contract: ScoreContract) -> list[str]:
    """List the fields of the sampled records that the application's field mapping does not name."""
    documents = [values for values in decode_sample(sample) if "specversion" not in values]
    return sorted({field for values in documents for field in contract.list_unmapped(values)})


def check_documents(sample: Sequence[Entry], name: str, application: str) -> None:
    """Check that the records are no texts.

    Raises:
        InvalidEventError: they are, and the application is about scores.
    """
    texts = [values for values in decode_sample(sample) if "specversion" not in values and is_record(values)]
    if texts:
        raise InvalidEventError(
            f"{name} holds texts, and {application} is a classification application: its predictions are scores. "
            "Choose a preference application with --application"
        )


def _name_score_kind(event: DecodedEvent) -> str:
    return "prediction" if event.rows[-1].kind is EventKind.PREDICTION else "label"
