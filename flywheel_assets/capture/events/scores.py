"""Decodes events of classifiers: scored predictions and late labels, as CloudEvents or in the team's own JSON.

`/events` takes CloudEvents like any application's, with `features` and `score` where a text has `prompt` and `output`.
`/predictions` and `/labels` take the JSON that the team has already, whose fields the application's `FieldMapping`
names; other fields are not stored. Such a prediction's key is its event's id; a label has the hash of its whole
document, so that sending it again changes nothing and another label for the same prediction is another event.
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events._documents import Document, write_id
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
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.records import Signal
from flywheel_assets.wire import (
    LONGEST_IDENTIFIER,
    FeedbackCloudEvent,
    ScoreData,
    ScoredCloudEvent,
    decode_strictly,
    format_label,
    read_claimed_id,
    shorten_message,
)

PREDICTIONS_SOURCE = "predictions-api"
LABELS_SOURCE = "labels-api"


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
    label_propensity: float | None = None
    scores: str | None = None


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
    return _land_event(event, reception, reception.contract, event.source)


def _land_event(
    event: ScoredCloudEvent | FeedbackCloudEvent, reception: Reception, contract: ScoreContract, source: str
) -> DecodedEvent:
    if isinstance(event, FeedbackCloudEvent):
        _check_feedback(event, contract)
        if event.data.signal is Signal.LABEL:
            _check_role(event.data.labeling_source or source, reception, contract)
        return land_cloud_event(event, reception, source)
    check_envelope(event)
    key = records.make_event_id(reception.application, event.source, event.id)
    data = event.data
    data = msgspec.structs.replace(
        data, prediction_id=data.prediction_id or event.id, user_id=data.user_id or event.subject
    )
    return _land_score(event.id, data, reception, source, key, reception.check_time(event.time, "time"))


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
    return _land_prediction(_open_document(element, reception), reception, PREDICTIONS_SOURCE)


def decode_label(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one label in the team's own JSON.

    Raises:
        InvalidEventError: it cannot be accepted; the message names the field as the team calls it.
    """
    return _land_label(_open_document(element, reception), reception, LABELS_SOURCE)


def land_document(values: Mapping[str, Any], reception: Reception, source: str) -> list[DecodedEvent]:
    """Build the events of one record of a file.

    It is a CloudEvent, or the team's own JSON with a prediction, a label or both.

    A label that is there and null or empty is not given yet: the record gives no label event. The event id of a
    prediction does not depend on `source`, so that the same one over HTTP is a repeat: the first receipt counts.

    Raises:
        InvalidEventError: the record, or one of its two events, cannot be accepted.
    """
    contract = _require_contract(reception)
    if "specversion" in values:
        return [_land_converted(values, reception, contract, source)]
    document = Document(values, contract)
    names = contract.mapping
    events = []
    if document.has(names.scores) if contract.classes else document.has_number(names.score):
        events.append(_land_prediction(document, reception, source))
    if document.has_label(names.label):
        events.append(_land_label(document, reception, source))
    elif not events and not document.has(names.label):
        score = names.scores if contract.classes else names.score
        raise InvalidEventError(
            f"neither a prediction nor a label: `{score}` and `{names.label}` are missing; the record's fields "
            f"are {', '.join(list(values)[:20])}"
        )
    return events


def read_event_id(element: bytes, _: Reception) -> str | None:
    """Read the id of a refused event, where it can be read, so that the answer names it."""
    return read_claimed_id(element)


def read_key(element: bytes, reception: Reception) -> str | None:
    """Read the key of a refused element, where it can be read, so that the answer names it."""
    if reception.contract is None:
        return None
    try:
        values = json.loads(element)  # takes NaN, too, for which the element may have been refused
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    key = write_id(Document(values, reception.contract).find(reception.contract.mapping.key))
    return key if key is not None and len(key) <= LONGEST_IDENTIFIER else None


def _land_prediction(document: Document, reception: Reception, source: str) -> DecodedEvent:
    names = document.mapping
    prediction_id = document.require_id(names.key)
    score, scores = None, None
    if document.contract.classes:
        scores = document.read_scores(names.scores, names.score_scale)
    else:
        document.require(names.score)
        score = document.read_share(names.score, names.score_scale)
        if score is None:
            shown = str(document.find(names.score))[:40]
            raise InvalidEventError(f"`{names.score}` is {shown!r}; valid: a finite number")
    data = ScoreData(
        prediction_id=prediction_id,
        score=score,
        scores=scores,
        features=document.read_features(),
        model_version=document.read_id(names.model_version),
        user_id=document.read_id(names.entity),
        amount=document.read_number(names.amount),
        segment=document.read_id(names.segment),
        action=document.read_id(names.action),
        allow_propensity=document.read_share(names.allow_propensity, is_zero_valid=False),
        label_propensity=document.read_share(names.label_propensity, is_zero_valid=False),
        do_not_train=document.read_boolean(names.do_not_train),
    )
    occurred_at = reception.check_time(document.read_time(names.prediction_time), names.prediction_time)
    key = records.make_event_id(reception.application, PREDICTIONS_SOURCE, prediction_id)
    return _land_score(prediction_id, data, reception, source, key, occurred_at, names.scores)


def _land_label(document: Document, reception: Reception, source: str) -> DecodedEvent:
    names = document.mapping
    prediction_id = document.require_id(names.key)
    label = document.read_label(names.label)
    labeling_source = document.read_id(names.labeling_source)
    _check_role(labeling_source or source, reception, document.contract)
    known_at = document.read_time(names.known_at)
    label_time = document.read_time(names.label_time)
    line = FeedbackLine(
        event_id="0" * 32,
        received_at=reception.stamp,
        occurred_at=reception.check_time(label_time, names.label_time),
        source=source,
        prediction_id=prediction_id,
        signal=Signal.LABEL,
        do_not_train=document.read_boolean(names.do_not_train),
        sampling_probability=1.0,
        label=label,
        labeling_source=labeling_source,
        known_at=None if known_at is None else reception.check_time(known_at, names.known_at),
        statement_id=records.make_event_id(
            reception.application, LABELS_SOURCE, records.make_stable_id(msgspec.to_builtins(document.values))
        ),
    )
    return build_feedback_event(prediction_id, line, label_time is not None, attested=reception.attest(source, None))


def _land_converted(
    values: Mapping[str, Any], reception: Reception, contract: ScoreContract, source: str
) -> DecodedEvent:
    try:
        event = msgspec.convert(values, ScoredCloudEvent | FeedbackCloudEvent)
    except msgspec.ValidationError as error:
        raise InvalidEventError(shorten_message(str(error))) from None
    return _land_event(event, reception, contract, source)


def _open_document(element: bytes, reception: Reception) -> Document:
    contract = _require_contract(reception)
    values: dict[str, Any] = decode_strictly(element, _document_decoder)
    reception.note_unmapped(values)
    return Document(values, contract)


def _require_contract(reception: Reception) -> ScoreContract:
    if reception.contract is None:
        raise InvalidEventError(
            f"{reception.application} is no classification application: send CloudEvents to "
            f"/v1/{reception.application}/events, or edits to /v1/{reception.application}/edits"
        )
    return reception.contract


def _land_score(
    client_id: str,
    data: ScoreData,
    reception: Reception,
    source: str,
    key: str,
    occurred_at: str,
    scores_field: str = "scores",
) -> DecodedEvent:
    assert reception.contract is not None
    score, scores = _read_score(data, reception.contract, scores_field)
    received = reception.received_at.date()
    if reception.as_history:
        received = min(received, date.fromisoformat(occurred_at[:10]))
    if problem := reception.contract.find_problem(data.features, received):
        raise InvalidEventError(problem)
    line = ScoreLine(
        event_id=key,
        received_at=reception.stamp,
        occurred_at=occurred_at,
        source=source,
        prediction_id=str(data.prediction_id),
        do_not_train=data.do_not_train,
        features=_features_encoder.encode(data.features).decode(),
        score=score,
        model_version=data.model_version,
        user_id=data.user_id,
        thread_id=data.thread_id,
        amount=data.amount,
        segment=data.segment,
        action=data.action,
        allow_propensity=data.allow_propensity,
        label_propensity=data.label_propensity,
        scores=scores,
    )
    content = hash((line.score, line.scores, line.features, line.amount, line.segment, line.action, line.prediction_id))
    return build_prediction_event(client_id, reception.application, key, line.prediction_id, content, line)


def _read_score(data: ScoreData, contract: ScoreContract, name: str) -> tuple[float, str | None]:
    """Return the probability of a positive, and of several classes all probabilities as JSON."""
    if not contract.classes:
        if data.score is None or data.scores is not None:
            problem = "is missing" if data.score is None else "has a field `scores` next to it"
            raise InvalidEventError(f"`score` {problem}; valid: the probability of the positive class, 0 to 1")
        return data.score, None
    if data.scores is None or data.score is not None:
        problem = "is missing" if data.scores is None else "has a field `score` next to it, which follows from it"
        raise InvalidEventError(f"`{name}` {problem}; valid: an object with the probability of every class")
    try:
        score = contract.check_scores(data.scores, name)
    except ValueError as error:
        raise InvalidEventError(shorten_message(str(error))) from None
    ordered = {each: data.scores[each] for each in contract.classes}
    return score, _features_encoder.encode(ordered).decode()


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


def _check_role(claimed: str, reception: Reception, contract: ScoreContract) -> None:
    """Check that the sender's key may label as this source: a free field must not outrank an analyst."""
    if reception.labels_as is None or claimed not in contract.trusted_sources or claimed in reception.labels_as:
        return
    raise InvalidEventError(
        f"labeling source {claimed[:80]!r} is trusted, and this key may not label as it; create a key with "
        f"`flywheel keys create {reception.application} --holder NAME --labels-as {claimed[:80]}`"
    )


def _check_label(label: str, contract: ScoreContract, field: str) -> None:
    if label not in contract.label_words:
        raise InvalidEventError(f"`{field}` is {label[:80]!r}; valid: {', '.join(contract.label_words)}")
