"""Turns one element of a request into landed lines, or into an error that explains the problem.

A CloudEvent becomes one line, an edit two: the prediction and the feedback it stands for.

Texts are kept verbatim: empty strings, NUL, right-to-left marks and emoji pass (DuckDB, Parquet and Iceberg give them
back unchanged; the gate decides what is worth training on). A lone surrogate such as `\ud800` is refused, because it
is not text: no UTF-8 file can hold it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events.wire import (
    CloudEvent,
    Edit,
    FeedbackCloudEvent,
    FeedbackData,
    PredictionCloudEvent,
    Prompt,
    ScoredCloudEvent,
    decode_strictly,
    format_label,
)
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.records import IMPORT_PREFIX, REVIEWER_SOURCE, PromptFormat, Signal

EDITS_SOURCE = "edits-api"
EARLIEST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(days=1)


class PredictionLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one landed line with the columns of `records.PREDICTION_EVENT`; null columns are left out."""

    event_id: str
    received_at: str
    occurred_at: str
    source: str
    prediction_id: str
    do_not_train: bool
    prompt: str
    prompt_format: PromptFormat
    output: str
    model_version: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    tools: str | None = None
    output_message: str | None = None


class FeedbackLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one landed line with the columns of `records.FEEDBACK_EVENT`; null columns are left out."""

    event_id: str
    received_at: str
    occurred_at: str
    source: str
    prediction_id: str
    signal: Signal
    do_not_train: bool
    sampling_probability: float
    model_version: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    prompt: str | None = None
    prompt_format: PromptFormat | None = None
    original_output: str | None = None
    final_text: str | None = None
    value: float | None = None
    label: str | None = None
    labeling_source: str | None = None
    known_at: str | None = None
    comment: str | None = None
    statement_id: str | None = None
    revision: int | None = None
    sibling_id: str | None = None
    retracts: str | None = None
    tools: str | None = None
    original_message: str | None = None
    final_message: str | None = None


class LandedRow(msgspec.Struct, frozen=True):
    """Holds one event as it will lie in the landing zone: a JSON line including its newline."""

    kind: EventKind
    line: bytes


class DecodedEvent(msgspec.Struct, frozen=True):
    """Holds one accepted element of a request: the id that the answer names, and its rows.

    `event_id` is the dedupe key of the first row.
    """

    client_id: str
    event_id: str
    rows: tuple[LandedRow, ...]


@dataclass(frozen=True, slots=True)
class Reception:
    """Holds what the element itself does not say: application, time of receipt, contract."""

    application: str
    received_at: datetime
    contract: ScoreContract | None = None
    """The declared fields of a classification application; None: its predictions are texts."""

    def check_time(self, claimed: datetime | None, field: str) -> str:
        """Return the client's time if it is plausible, the time of receipt if there is none; else raise."""
        if claimed is None:
            return format_time(self.received_at)
        latest = self.received_at + CLOCK_TOLERANCE
        if not EARLIEST_TIME <= claimed <= latest:
            raise InvalidEventError(
                f"{field} is {claimed.isoformat()}; valid: from {format_time(EARLIEST_TIME)} to a day from now, "
                f"{format_time(latest)}"
            )
        return format_time(claimed)


@dataclass(frozen=True)
class _Signalled:
    """Lists the signal-dependent fields that a signal needs, and those that it may also carry."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


_FIELDS = {
    Signal.EDIT: _Signalled(required=frozenset({"final_text"})),
    Signal.THUMB: _Signalled(required=frozenset({"value"}), optional=frozenset({"final_text"})),
    Signal.RATING: _Signalled(required=frozenset({"value"}), optional=frozenset({"final_text"})),
    Signal.COPY: _Signalled(),
    Signal.ACCEPT: _Signalled(),
    Signal.REGENERATE: _Signalled(),
    Signal.LABEL: _Signalled(required=frozenset({"label"}), optional=frozenset({"labeling_source", "known_at"})),
    Signal.COMMENT: _Signalled(required=frozenset({"comment"})),
}
_SIGNALLED_FIELDS = ("final_text", "value", "label", "labeling_source", "known_at")

_cloud_event_decoder: msgspec.json.Decoder[CloudEvent] = msgspec.json.Decoder(CloudEvent)
_edit_decoder = msgspec.json.Decoder(Edit)
_line_encoder = msgspec.json.Encoder()


def decode_cloud_event(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one CloudEvent that came over HTTP.

    Raises:
        InvalidEventError: it cannot be accepted; the message says what is wrong.
    """
    event = decode_strictly(element, _cloud_event_decoder)
    check_sender(event.source)
    return land_cloud_event(event, reception, event.source, event.id)


def check_sender(source: str) -> None:
    """Check that a client may use this source.

    Raises:
        InvalidEventError: the source is reserved for this project.
    """
    if source == REVIEWER_SOURCE or source.startswith(IMPORT_PREFIX):
        raise InvalidEventError(
            f"source {source[:80]!r} is reserved: only this project uses {REVIEWER_SOURCE!r} and sources that begin "
            f"with {IMPORT_PREFIX!r}; send the name of your own service"
        )


def land_cloud_event(event: CloudEvent, reception: Reception, source: str, client_id: str) -> DecodedEvent:
    """Build the row of a decoded CloudEvent, under the source and client id that make its dedupe key."""
    check_envelope(event)
    occurred_at = reception.check_time(event.time, "time")
    key = records.make_event_id(reception.application, source, client_id)
    if isinstance(event, PredictionCloudEvent):
        return DecodedEvent(event.id, key, (_build_prediction_row(event, reception, source, key, occurred_at),))
    return DecodedEvent(event.id, key, (_build_feedback_row(event, reception, source, key, occurred_at),))


def check_envelope(event: CloudEvent | ScoredCloudEvent) -> None:
    """Check that capture can read this envelope.

    Raises:
        InvalidEventError: another version, or data that are no JSON object.
    """
    if event.specversion != "1.0":
        raise InvalidEventError(f"specversion is {event.specversion[:20]!r}; valid: '1.0'")
    if event.data_base64 is not None:
        raise InvalidEventError("data_base64 is not read here; send `data` as a JSON object")
    if event.datacontenttype is not None and not _is_json(event.datacontenttype):
        raise InvalidEventError(f"datacontenttype is {event.datacontenttype[:80]!r}; valid: 'application/json'")


def decode_edit(element: bytes, reception: Reception) -> DecodedEvent:
    """Decode one edit that came over HTTP.

    Raises:
        InvalidEventError: it cannot be accepted; the message says what is wrong.
    """
    edit = decode_strictly(element, _edit_decoder)
    return land_edit(edit, reception, EDITS_SOURCE)


def land_edit(edit: Edit, reception: Reception, source: str) -> DecodedEvent:
    """Build the prediction row and the feedback row of one edit.

    An id given by the client over HTTP is the prediction's id too, so that other feedback may refer to it. In a file it
    is often no more than a row number: the file's name makes it unique, or two files would supersede each other.
    """
    occurred_at = reception.check_time(edit.occurred_at, "occurred_at")
    client_id = edit.id or records.make_stable_id("edit", reception.application, msgspec.to_builtins(edit))
    is_row_number = edit.id is not None and source.startswith(IMPORT_PREFIX)
    prediction_id = records.make_stable_id("imported", source, client_id) if is_row_number else client_id
    prompt, prompt_format = encode_prompt(edit.prompt)
    received_at = format_time(reception.received_at)
    prediction = PredictionLine(
        event_id=records.make_event_id(reception.application, source, f"{client_id}/prediction"),
        received_at=received_at,
        occurred_at=occurred_at,
        source=source,
        prediction_id=prediction_id,
        do_not_train=edit.do_not_train,
        prompt=prompt,
        prompt_format=prompt_format,
        output=edit.original_llm_output,
        model_version=edit.model_version,
        user_id=edit.user_id,
        thread_id=edit.thread_id,
    )
    feedback = FeedbackLine(
        event_id=records.make_event_id(reception.application, source, f"{client_id}/feedback"),
        received_at=received_at,
        occurred_at=occurred_at,
        source=source,
        prediction_id=prediction_id,
        signal=Signal.EDIT,
        do_not_train=edit.do_not_train,
        sampling_probability=1.0,
        model_version=edit.model_version,
        user_id=edit.user_id,
        thread_id=edit.thread_id,
        prompt=prompt,
        prompt_format=prompt_format,
        original_output=edit.original_llm_output,
        final_text=edit.final_user_edit,
    )
    rows = (encode_row(EventKind.PREDICTION, prediction), encode_row(EventKind.FEEDBACK, feedback))
    return DecodedEvent(client_id, prediction.event_id, rows)


def encode_prompt(prompt: Prompt) -> tuple[str, PromptFormat]:
    """Return a prompt as it is stored: its text, or its messages as one canonical JSON array."""
    if isinstance(prompt, str):
        return prompt, PromptFormat.TEXT
    return _line_encoder.encode(prompt).decode(), PromptFormat.MESSAGES


@lru_cache(maxsize=16)  # the events of a batch are received at one moment
def format_time(moment: datetime) -> str:
    """Format a time as landed lines do: RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def check_signal(data: FeedbackData) -> None:
    """Check that feedback carries all fields that its signal needs, and none without a meaning for it.

    Raises:
        InvalidEventError: a field is missing, superfluous or out of its range.
    """
    rule = _FIELDS[data.signal]
    for name in sorted(rule.required):
        if getattr(data, name) is None:
            raise InvalidEventError(f"signal {data.signal.value!r} needs the field `{name}` in `data`")
    for name in _SIGNALLED_FIELDS:
        if getattr(data, name) is not None and name not in rule.required | rule.optional:
            signals = [signal.value for signal, other in _FIELDS.items() if name in other.required | other.optional]
            raise InvalidEventError(
                f"signal {data.signal.value!r} cannot carry `{name}`; signals that do: {', '.join(signals)}"
            )
    if data.signal is Signal.THUMB and data.value not in (-1.0, 1.0):
        raise InvalidEventError(f"`value` of a thumb is {data.value}; valid: -1 (down) or 1 (up)")
    if data.signal is Signal.RATING and not 0.0 <= (data.value or 0.0) <= 1.0:
        raise InvalidEventError(f"`value` of a rating is {data.value}; valid: 0 to 1")


def _build_prediction_row(
    event: PredictionCloudEvent, reception: Reception, source: str, key: str, occurred_at: str
) -> LandedRow:
    data = event.data
    prompt, prompt_format = encode_prompt(data.prompt)
    line = PredictionLine(
        event_id=key,
        received_at=format_time(reception.received_at),
        occurred_at=occurred_at,
        source=source,
        prediction_id=data.prediction_id or event.id,
        do_not_train=data.do_not_train,
        prompt=prompt,
        prompt_format=prompt_format,
        output=data.output,
        model_version=data.model_version,
        user_id=data.user_id or event.subject,
        thread_id=data.thread_id,
    )
    return encode_row(EventKind.PREDICTION, line)


def _build_feedback_row(
    event: FeedbackCloudEvent, reception: Reception, source: str, key: str, occurred_at: str
) -> LandedRow:
    data = event.data
    check_signal(data)
    prompt, prompt_format = (None, None) if data.prompt is None else encode_prompt(data.prompt)
    line = FeedbackLine(
        event_id=key,
        received_at=format_time(reception.received_at),
        occurred_at=occurred_at,
        source=source,
        prediction_id=data.prediction_id,
        signal=data.signal,
        do_not_train=data.do_not_train,
        sampling_probability=data.sampling_probability,
        model_version=data.model_version,
        user_id=data.user_id or event.subject,
        thread_id=data.thread_id,
        prompt=prompt,
        prompt_format=prompt_format,
        original_output=data.original_output,
        final_text=data.final_text,
        value=data.value,
        label=None if data.label is None else format_label(data.label),
        labeling_source=data.labeling_source,
        known_at=None if data.known_at is None else reception.check_time(data.known_at, "known_at"),
        comment=data.comment,
    )
    return encode_row(EventKind.FEEDBACK, line)


def encode_row(kind: EventKind, line: msgspec.Struct) -> LandedRow:
    """Encode one line of a segment."""
    return LandedRow(kind, _line_encoder.encode(line) + b"\n")


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")
