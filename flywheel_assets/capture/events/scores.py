"""Decodes events of classifiers: scored predictions and late labels, as CloudEvents or in the team's own JSON.

`/events` takes CloudEvents like any application's, with `features` and `score` where a text has `prompt` and `output`.
`/predictions` and `/labels` take the JSON that the team has already, whose fields the application's `FieldMapping`
names; other fields are not stored. Such a prediction's key is its event's id; a label has the hash of its whole
document, so that sending it again changes nothing and another label for the same prediction is another event.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events.texts import (
    DecodedEvent,
    FeedbackLine,
    Reception,
    build_feedback_event,
    build_prediction_event,
    check_envelope,
    check_sender,
    decode_cloud_event,
    decode_edit,
    land_cloud_event,
)
from flywheel_assets.curation.labels.score_contract import FieldMapping, ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.records import Signal
from flywheel_assets.wire import (
    FeedbackCloudEvent,
    Identifier,
    ScoreData,
    ScoredCloudEvent,
    decode_strictly,
    format_label,
    shorten_message,
)

PREDICTIONS_SOURCE = "predictions-api"
LABELS_SOURCE = "labels-api"
_TIME = Annotated[datetime, msgspec.Meta(tz=True)]


class ScoreLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one landed line with the columns of `records.SCORED_EVENT`; null columns are left out."""

    event_id: str
    received_at: str
    occurred_at: str
    source: str
    prediction_id: str
    do_not_train: bool
    features: str
    score: float
    model_version: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    amount: float | None = None
    segment: str | None = None
    action: str | None = None
    allow_propensity: float | None = None


_event_decoder: msgspec.json.Decoder[ScoredCloudEvent | FeedbackCloudEvent] = msgspec.json.Decoder(
    ScoredCloudEvent | FeedbackCloudEvent
)
_document_decoder = msgspec.json.Decoder(dict[str, Any])
_features_encoder = msgspec.json.Encoder(order="deterministic")


def decode_event(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one CloudEvent, as the application's kind reads it.

    Raises:
        InvalidEventError: it cannot be accepted; the message says what is wrong.
    """
    if reception.contract is None:
        return decode_cloud_event(element, reception)
    event = decode_strictly(element, _event_decoder)
    check_sender(event.source)
    if isinstance(event, FeedbackCloudEvent):
        _check_feedback(event, reception.contract)
        return land_cloud_event(event, reception, event.source)
    check_envelope(event)
    key = records.make_event_id(reception.application, event.source, event.id)
    data = event.data
    data = msgspec.structs.replace(
        data, prediction_id=data.prediction_id or event.id, user_id=data.user_id or event.subject
    )
    return _land_score(event.id, data, reception, event.source, key, reception.check_time(event.time, "time"))


def decode_text_edit(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one edit; a classifier's predictions are no texts.

    Raises:
        InvalidEventError: it cannot be accepted, or the application is a classifier.
    """
    if reception.contract is not None:
        raise InvalidEventError(
            f"{reception.application} is a classification application: send its predictions to "
            f"/v1/{reception.application}/predictions and labels to /v1/{reception.application}/labels"
        )
    return decode_edit(element, reception)


def decode_prediction(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one scored prediction in the team's own JSON.

    Raises:
        InvalidEventError: it cannot be accepted; the message names the field as the team calls it.
    """
    document, names = _open_document(element, reception)
    prediction_id = document.read_required(names.key, Identifier)
    data = ScoreData(
        prediction_id=prediction_id,
        score=document.read_required(names.score, Annotated[float, msgspec.Meta(ge=0, le=1)]),
        features=document.read_required(names.features, dict[str, float | str | bool | None]),
        model_version=document.read_optional(names.model_version, Identifier),
        user_id=document.read_optional(names.entity, Identifier),
        amount=document.read_optional(names.amount, float),
        segment=document.read_optional(names.segment, Identifier),
        action=document.read_optional(names.action, Identifier),
        allow_propensity=document.read_optional(names.allow_propensity, Annotated[float, msgspec.Meta(gt=0, le=1)]),
        do_not_train=bool(document.read_optional(names.do_not_train, bool)),
    )
    occurred_at = reception.check_time(document.read_optional(names.prediction_time, _TIME), names.prediction_time)
    key = records.make_event_id(reception.application, PREDICTIONS_SOURCE, prediction_id)
    return _land_score(prediction_id, data, reception, PREDICTIONS_SOURCE, key, occurred_at)


def decode_label(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one label in the team's own JSON.

    Raises:
        InvalidEventError: it cannot be accepted; the message names the field as the team calls it.
    """
    document, names = _open_document(element, reception)
    prediction_id = document.read_required(names.key, Identifier)
    label = format_label(document.read_required(names.label, bool | Identifier))
    _check_label(label, _require_contract(reception), names.label)
    known_at = document.read_optional(names.known_at, _TIME)
    label_time = document.read_optional(names.label_time, _TIME)
    line = FeedbackLine(
        event_id="0" * 32,
        received_at=reception.stamp,
        occurred_at=reception.check_time(label_time, names.label_time),
        source=LABELS_SOURCE,
        prediction_id=prediction_id,
        signal=Signal.LABEL,
        do_not_train=bool(document.read_optional(names.do_not_train, bool)),
        sampling_probability=1.0,
        label=label,
        labeling_source=document.read_optional(names.labeling_source, Identifier),
        known_at=None if known_at is None else reception.check_time(known_at, names.known_at),
        statement_id=records.make_event_id(
            reception.application, LABELS_SOURCE, records.make_stable_id(document.values)
        ),
    )
    return build_feedback_event(prediction_id, line, label_time is not None)


class _Document:
    """Reads a team's own JSON object by dotted paths."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def read_optional(self, path: str, kind: Any) -> Any:
        """Return the value at a path as `kind`; None where it is absent or null."""
        value: Any = self.values
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return None
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise InvalidEventError(shorten_message(f"`{path}`: {error}")) from None

    def read_required(self, path: str, kind: Any) -> Any:
        """Return the value at a path as `kind`; raise where it is absent or null."""
        value = self.read_optional(path, kind)
        if value is None:
            raise InvalidEventError(f"`{path}` is missing; the application's field mapping says that it is there")
        return value


def _open_document(element: bytes, reception: Reception) -> tuple[_Document, FieldMapping]:
    """Decode a team's own JSON object, and return it with the names of its fields."""
    names = _require_contract(reception).mapping
    values: dict[str, Any] = decode_strictly(element, _document_decoder)
    return _Document(values), names


def _require_contract(reception: Reception) -> ScoreContract:
    if reception.contract is None:
        raise InvalidEventError(
            f"{reception.application} is no classification application: send CloudEvents to "
            f"/v1/{reception.application}/events, or edits to /v1/{reception.application}/edits"
        )
    return reception.contract


def _land_score(
    client_id: str, data: ScoreData, reception: Reception, source: str, key: str, occurred_at: str
) -> DecodedEvent:
    assert reception.contract is not None
    if problem := reception.contract.find_problem(data.features):
        raise InvalidEventError(problem)
    line = ScoreLine(
        event_id=key,
        received_at=reception.stamp,
        occurred_at=occurred_at,
        source=source,
        prediction_id=str(data.prediction_id),
        do_not_train=data.do_not_train,
        features=_features_encoder.encode(data.features).decode(),
        score=data.score,
        model_version=data.model_version,
        user_id=data.user_id,
        thread_id=data.thread_id,
        amount=data.amount,
        segment=data.segment,
        action=data.action,
        allow_propensity=data.allow_propensity,
    )
    content = hash((line.score, line.features, line.amount, line.segment, line.action, line.prediction_id))
    return build_prediction_event(client_id, reception.application, key, line.prediction_id, content, line)


def _check_feedback(event: FeedbackCloudEvent, contract: ScoreContract) -> None:
    signal = event.data.signal
    if signal in (Signal.EDIT, Signal.CHOICE, Signal.DEMONSTRATION):
        raise InvalidEventError(
            f"signal {signal.value!r} is about a text, and this application's predictions are scores"
        )
    if signal is Signal.RETRACT:
        raise InvalidEventError("signal 'retract' is about a text; send the right label instead: the newest counts")
    if event.data.signal is Signal.LABEL and event.data.label is not None:
        _check_label(format_label(event.data.label), contract, "label")


def _check_label(label: str, contract: ScoreContract, field: str) -> None:
    valid = (contract.positive_label, contract.negative_label)
    if label not in valid:
        raise InvalidEventError(f"`{field}` is {label[:80]!r}; valid: {', '.join(valid)}")
