"""Turns one element of a request into landed lines, or into an error that explains the problem.

A CloudEvent becomes one line, an edit two: the prediction and the feedback it stands for.

Feedback has two ids. `statement_id` hashes application, source and the client's id: it is the same for everything that
is said under that id. `event_id` hashes the content too, so that the same content sent again is a duplicate, and other
content under the same id is a *revision*, of which the newest counts at resolution. A prediction has one id, without
its content: the first one received counts.

Texts are kept verbatim: empty strings, NUL, right-to-left marks and emoji pass (DuckDB, Parquet and Iceberg give them
back unchanged; the gate decides what is worth training on). A lone surrogate such as U+D800 is refused, because it
is not text: no UTF-8 file can hold it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events.attestation import Sender
from flywheel_assets.conversations import (
    FiledAnswer,
    Tools,
    encode_answer,
    encode_prompt,
    encode_tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
)
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.records import IMPORT_PREFIX, REVIEWER_SOURCE, PromptFormat, Signal
from flywheel_assets.wire import (
    Choice,
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

EDITS_SOURCE = "edits-api"
EARLIEST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(days=1)


class PredictionLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Describes one landed line with the columns of `records.PREDICTION_EVENT`; null columns are left out.

    Lines of requests are built by position: by name, their fields would cost a tenth of decoding an event.
    """

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


class FeedbackLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Describes one landed line with the columns of `records.FEEDBACK_EVENT`; null columns are left out.

    The first three fields stay first: `build_feedback_event` hashes what comes after them. Lines of requests are built
    by position, as those of predictions are.
    """

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


class LandedRow(msgspec.Struct, frozen=True, gc=False):
    """Holds one event as it will lie in the landing zone: a JSON line including its newline."""

    kind: EventKind
    line: bytes


class DecodedEvent(msgspec.Struct, frozen=True, gc=False):
    """Holds one accepted element of a request: the id that the answer names, and its rows."""

    client_id: str
    keys: tuple[str, ...]
    """What the element is known by. Feedback: its statement id. A prediction: its event id, and a prediction id that
    is another one than the client's id."""
    content: str | int
    """A hash of what it says, without the time of receipt; an int of another process means nothing here."""
    rows: tuple[LandedRow, ...]
    rank: tuple[int, str] | None = None
    """Of feedback, the revision and the time: of one statement the highest counts. None: a prediction."""


_LOOKED_AT_DOCUMENTS = 20
_LISTED_FIELDS = 50
_LONGEST_SHOWN_FIELD = 100
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Reception:
    """Holds what the element itself does not say: application, time of receipt, contract.

    `advance` moves it on from one element of a request to the next. It is one object, because a new one for each
    element would cost as much as a tenth of decoding it.
    """

    application: str
    received_at: datetime
    contract: ScoreContract | None = None
    """The declared fields of a classification application; None: its predictions are texts."""
    labels_as: frozenset[str] | None = None
    """The trusted labeling sources that the sender may claim; None: all, as without keys and for imports."""
    sender: Sender | None = None
    """Says what the key vouches for; None: no key came, as without keys and for imports."""
    as_history: bool = False
    """Whether rows land on the days on which they happened: what was required on those days is asked of them."""
    stamp: str = field(init=False)
    """`received_at` as landed lines have it."""
    unmapped: dict[str, None] = field(default_factory=dict)
    """Fields of the first documents that the contract's mapping does not name, in their order."""
    _documents_left: int = _LOOKED_AT_DOCUMENTS

    def __post_init__(self) -> None:
        """Format the time once."""
        self.stamp = format_time(self.received_at)

    def advance(self) -> None:
        """Let a microsecond pass, so that the elements of a request keep their order."""
        self.received_at += _MICROSECOND
        microsecond = self.received_at.microsecond
        self.stamp = f"{self.stamp[:20]}{microsecond:06d}Z" if microsecond else format_time(self.received_at)

    def note_unmapped(self, values: Mapping[str, Any]) -> None:
        """Remember which fields of a classifier's own JSON are not read; only the first documents are looked at."""
        if self._documents_left > 0 and self.contract is not None:
            self._documents_left -= 1
            for path in self.contract.list_unmapped(values):
                if len(self.unmapped) < _LISTED_FIELDS:
                    self.unmapped[path[:_LONGEST_SHOWN_FIELD]] = None

    def attest(self, source: str, user_id: str | None, user_token: str | None = None) -> bytes:
        """Return the end of a landed line that says what is attested; empty where no key came.

        Raises:
            InvalidEventError: the token was not signed for this user.
        """
        return b"" if self.sender is None else self.sender.attest(source, user_id, user_token, self.received_at)

    def check_time(self, claimed: datetime | None, field: str) -> str:
        """Return the client's time if it is plausible, the time of receipt if there is none; else raise."""
        if claimed is None:
            return self.stamp
        if not EARLIEST_TIME <= claimed <= self.received_at + CLOCK_TOLERANCE:
            latest = self.received_at + CLOCK_TOLERANCE
            raise InvalidEventError(
                f"{field} is {claimed.isoformat()}; valid: from {format_time(EARLIEST_TIME)} to a day from now, "
                f"{format_time(latest)}"
            )
        return format_time(claimed)


_SIGNALLED_FIELDS = ("final_text", "value", "label", "labeling_source", "known_at", "sibling_id", "retracts")


class _Signalled:
    """Lists the fields that a signal needs, and those signal-dependent ones that it may also carry."""

    def __init__(self, required: Iterable[str] = (), optional: Iterable[str] = ()) -> None:
        self.required = tuple(sorted(required))
        self.carried = frozenset((*self.required, *optional))
        self.refused = tuple(name for name in _SIGNALLED_FIELDS if name not in self.carried)


_FIELDS = {
    Signal.EDIT: _Signalled(["final_text"]),
    Signal.THUMB: _Signalled(["value"], ["final_text"]),
    Signal.RATING: _Signalled(["value"], ["final_text"]),
    Signal.COPY: _Signalled(),
    Signal.ACCEPT: _Signalled(),
    Signal.REGENERATE: _Signalled(optional=["sibling_id", "final_text"]),
    Signal.LABEL: _Signalled(["label"], ["labeling_source", "known_at"]),
    Signal.COMMENT: _Signalled(["comment"]),
    Signal.CHOICE: _Signalled(["prompt", "final_text", "original_output"], ["sibling_id"]),
    Signal.DEMONSTRATION: _Signalled(["prompt", "final_text"]),
    Signal.RETRACT: _Signalled(optional=["retracts"]),
}
_REGENERATED = ("sibling_id", "final_text", "prompt", "original_output")
"""What makes a regeneration half of a comparison; the last two may also come alone."""

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
    return land_cloud_event(event, reception, event.source)


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


def land_cloud_event(
    event: CloudEvent, reception: Reception, source: str, rename: Callable[[str], str] = str
) -> DecodedEvent:
    """Build the row of a decoded CloudEvent.

    Args:
        event: the decoded event.
        reception: when and for which application it came.
        source: the source that it lands with.
        rename: makes the client's ids unique under that source; they are, unless it is not the event's own.
    """
    check_envelope(event)
    if isinstance(event, PredictionCloudEvent):
        return _land_prediction(event, reception, source, rename(event.id))
    return _land_feedback(event, reception, source, rename)


def land_event(
    event: CloudEvent | Edit | Choice, reception: Reception, source: str, rename: Callable[[str], str] = str
) -> DecodedEvent:
    """Build the rows of an event that a format made; `rename` is `land_cloud_event`'s.

    Raises:
        InvalidEventError: it cannot be accepted.
    """
    if isinstance(event, Edit):
        return land_edit(event, reception, source)
    if isinstance(event, Choice):
        return land_choice(event, reception, source)
    return land_cloud_event(event, reception, source, rename)


def land_events(events: Iterable[CloudEvent | Edit | Choice], reception: Reception, source: str) -> list[DecodedEvent]:
    """Build the rows of events that a format made of one record, each a microsecond after the one before it.

    Raises:
        InvalidEventError: one of them cannot be accepted.
    """
    landed = []
    for event in events:
        reception.advance()
        landed.append(land_event(event, reception, source))
    return landed


def identify_statement(application: str, source: str, client_id: str) -> str:
    """Return the `statement_id` of the edit or the feedback that a client sent under an id."""
    return records.make_event_id(application, source, f"{client_id}/feedback" if source == EDITS_SOURCE else client_id)


def land_retraction(client_id: str, source: str, reception: Reception) -> DecodedEvent:
    """Build the row that takes back what a source said under an id.

    It needs no other event to be known. It has no id of its own and is never a repeat of another: an id that is used
    again can be taken back again.

    Raises:
        InvalidEventError: the source is reserved, or the application's feedback is labels.
    """
    check_sender(source)
    if reception.contract is not None:
        raise InvalidEventError(
            f"{reception.application} is a classification application: its labels are not taken back; send the right "
            f"label to /v1/{reception.application}/labels"
        )
    retracted = identify_statement(reception.application, source, client_id)
    line = FeedbackLine(
        event_id=_NO_ID,
        received_at=reception.stamp,
        occurred_at=reception.stamp,
        source=source,
        prediction_id="",
        signal=Signal.RETRACT,
        do_not_train=False,
        sampling_probability=1.0,
        statement_id=records.make_event_id(
            reception.application, source, records.make_stable_id("retract", retracted, reception.stamp)
        ),
        retracts=retracted,
    )
    return build_feedback_event(client_id, line, is_time_claimed=False, attested=reception.attest(source, None))


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
    client_id = edit.id or _identify_edit(edit, reception.application)
    is_row_number = edit.id is not None and source.startswith(IMPORT_PREFIX)
    prediction_id = records.make_stable_id("imported", source, client_id) if is_row_number else client_id
    prompt, prompt_format = store_prompt(edit.prompt)
    output, output_message = store_answer(edit.original_llm_output, "original_llm_output")
    final_text, final_message = store_answer(edit.final_user_edit, "final_user_edit")
    tools = None if edit.tools is None else store_tools(edit.tools)
    application, stamp = reception.application, reception.stamp
    prediction = PredictionLine(
        records.make_event_id(application, source, f"{client_id}/prediction"),
        stamp,
        occurred_at,
        source,
        prediction_id,
        edit.do_not_train,
        prompt,
        prompt_format,
        output,
        edit.model_version,
        edit.user_id,
        edit.thread_id,
        tools,
        output_message,
    )
    feedback = FeedbackLine(
        _NO_ID,
        stamp,
        occurred_at,
        source,
        prediction_id,
        Signal.EDIT,
        edit.do_not_train,
        1.0,  # sampling_probability
        edit.model_version,
        edit.user_id,
        edit.thread_id,
        prompt,
        prompt_format,
        output,
        final_text,
        None,  # value
        None,  # label
        None,  # labeling_source
        None,  # known_at
        None,  # comment
        records.make_event_id(application, source, f"{client_id}/feedback"),
        edit.revision,
        None,  # sibling_id
        None,  # retracts
        tools,
        output_message,
        final_message,
    )
    is_time_claimed = edit.occurred_at is not None
    rows = (encode_row(EventKind.PREDICTION, prediction),)
    attested = reception.attest(source, edit.user_id, edit.user_token)
    return build_feedback_event(client_id, feedback, is_time_claimed, rows, attested)


def _identify_edit(edit: Edit, application: str) -> str:
    said = msgspec.to_builtins(edit)
    said.pop("user_token", None)  # a retry may bring a newer one
    return records.make_stable_id("edit", application, said)


def land_choice(choice: Choice, reception: Reception, source: str) -> DecodedEvent:
    """Build the feedback row of one choice from a file; it carries its texts, so that no prediction is landed."""
    occurred_at = reception.check_time(choice.occurred_at, "occurred_at")
    prompt, prompt_format = store_prompt(choice.prompt)
    chosen, chosen_message = store_answer(choice.chosen, "chosen")
    rejected, rejected_message = store_answer(choice.rejected, "rejected")
    client_id = choice.id or records.make_content_id("choice", reception.application, choice)
    line = FeedbackLine(
        event_id=_NO_ID,
        received_at=reception.stamp,
        occurred_at=occurred_at,
        source=source,
        prediction_id=records.make_stable_id("imported", source, client_id) if choice.id else client_id,
        signal=Signal.CHOICE,
        do_not_train=choice.do_not_train,
        sampling_probability=1.0,
        model_version=choice.model_version,
        user_id=choice.user_id,
        thread_id=choice.thread_id,
        prompt=prompt,
        prompt_format=prompt_format,
        original_output=rejected,
        final_text=chosen,
        statement_id=records.make_event_id(reception.application, source, f"{client_id}/feedback"),
        revision=choice.revision,
        tools=store_tools(choice.tools),
        original_message=rejected_message,
        final_message=chosen_message,
    )
    return build_feedback_event(
        client_id, line, choice.occurred_at is not None, attested=reception.attest(source, choice.user_id)
    )


def store_prompt(prompt: Prompt) -> tuple[str, PromptFormat]:
    """Return a prompt as it is stored, with its format.

    Raises:
        InvalidEventError: no chat model could answer its messages.
    """
    if isinstance(prompt, str):
        return prompt, PromptFormat.TEXT
    if problem := find_role_problem(prompt):
        raise InvalidEventError(f"`prompt`: {problem}")
    return encode_prompt(prompt)


def store_answer(answer: FiledAnswer, field: str) -> tuple[str, str | None]:
    """Return an answer as it is stored: its text, and its message where the text does not say everything.

    Raises:
        InvalidEventError: it is a message, and not one of an assistant.
    """
    if isinstance(answer, str):
        return answer, None
    if problem := find_answer_problem(answer):
        raise InvalidEventError(f"`{field}`: {problem}")
    return encode_answer(answer)


def store_tools(tools: Tools | None) -> str | None:
    """Return tools as they are stored.

    Raises:
        InvalidEventError: one of them is no description of a function.
    """
    if tools and (problem := find_tools_problem(tools)):
        raise InvalidEventError(f"`tools`: {problem}")
    return encode_tools(tools)


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
    for name in rule.required:
        if getattr(data, name) is None:
            raise InvalidEventError(f"signal {data.signal.value!r} needs the field `{name}` in `data`")
    for name in rule.refused:
        if getattr(data, name) is not None:
            signals = [signal.value for signal, other in _FIELDS.items() if name in other.carried]
            raise InvalidEventError(
                f"signal {data.signal.value!r} cannot carry `{name}`; signals that do: {', '.join(signals)}"
            )
    _check_subject_matter(data)
    if data.signal is Signal.THUMB and data.value not in (-1.0, 1.0):
        raise InvalidEventError(f"`value` of a thumb is {data.value}; valid: -1 (down) or 1 (up)")
    if data.signal is Signal.RATING and not 0.0 <= (data.value or 0.0) <= 1.0:
        raise InvalidEventError(f"`value` of a rating is {data.value}; valid: 0 to 1")
    if data.tools and data.prompt is None:
        raise InvalidEventError("`tools` belong to a prompt; send `prompt` with them, or send them with the prediction")


def _check_subject_matter(data: FeedbackData) -> None:
    """Check that feedback says which answers it is about, and carries the texts of those that nothing else brings."""
    match data.signal:
        case Signal.DEMONSTRATION:
            if data.original_output is not None:
                raise InvalidEventError(
                    "signal 'demonstration' cannot carry `original_output`: it is about a prompt that no model "
                    "answered; send signal 'edit' for what a person made of a model's text"
                )
            return
        case Signal.RETRACT if data.retracts is not None:
            if data.prediction_id is not None:
                raise InvalidEventError(
                    "signal 'retract' carries both `retracts` and `prediction_id`; send `retracts` to take back one "
                    "statement, or `prediction_id` for all statements of this person about that prediction"
                )
            return
        case Signal.REGENERATE if data.sibling_id is not None or data.final_text is not None:
            missing = [name for name in _REGENERATED if getattr(data, name) is None]
            if missing:
                raise InvalidEventError(
                    f"signal 'regenerate' with the new answer lacks {', '.join(f'`{name}`' for name in missing)}; send "
                    f"all of {', '.join(f'`{name}`' for name in _REGENERATED)} for a comparison of the two answers, or "
                    "neither `sibling_id` nor `final_text`"
                )
        case _:
            pass
    if data.prediction_id is None:
        otherwise = " (or `retracts`)" if data.signal is Signal.RETRACT else ""
        raise InvalidEventError(
            f"signal {data.signal.value!r} needs the field `prediction_id`{otherwise} in `data`: the answer it is about"
        )
    if data.sibling_id == data.prediction_id:
        raise InvalidEventError("`sibling_id` is the `prediction_id` itself; send the id of the other answer")


def _land_prediction(event: PredictionCloudEvent, reception: Reception, source: str, client_id: str) -> DecodedEvent:
    data = event.data
    occurred_at = reception.check_time(event.time, "time")
    prompt, prompt_format = store_prompt(data.prompt)
    output, output_message = store_answer(data.output, "output")
    line = PredictionLine(
        records.make_event_id(reception.application, source, client_id),
        reception.stamp,
        occurred_at,
        source,
        data.prediction_id or event.id,
        data.do_not_train,
        prompt,
        prompt_format,
        output,
        data.model_version,
        data.user_id or event.subject,
        data.thread_id,
        None if data.tools is None else store_tools(data.tools),
        output_message,
    )
    content = hash((prompt, output, output_message, line.tools, line.prediction_id))
    return build_prediction_event(event.id, reception.application, line.event_id, line.prediction_id, content, line)


def build_prediction_event(
    client_id: str, application: str, event_id: str, prediction_id: str, content: int, line: msgspec.Struct
) -> DecodedEvent:
    """Build the event of one landed prediction, which is known by its event id and by its prediction id."""
    # Feedback may have the same id from the same source: the mark keeps the two apart.
    event_key = f"prediction {event_id}"
    keys = (event_key,) if prediction_id == client_id else (event_key, f"{application} {prediction_id}")
    return DecodedEvent(client_id, keys, content, (encode_row(EventKind.PREDICTION, line),))


def _land_feedback(
    event: FeedbackCloudEvent, reception: Reception, source: str, rename: Callable[[str], str]
) -> DecodedEvent:
    data = event.data
    check_signal(data)
    client_id = rename(event.id)
    prediction_id = data.prediction_id
    if prediction_id is None:
        is_made = data.signal is Signal.DEMONSTRATION
        prediction_id = records.make_stable_id("demonstrated", source, client_id) if is_made else ""
    prompt, prompt_format = (None, None) if data.prompt is None else store_prompt(data.prompt)
    original = original_message = final_text = final_message = None
    if data.original_output is not None:
        original, original_message = store_answer(data.original_output, "original_output")
    if data.final_text is not None:
        final_text, final_message = store_answer(data.final_text, "final_text")
    retracts = data.retracts
    if retracts is not None:
        retracts = identify_statement(reception.application, source, rename(retracts))
    line = FeedbackLine(
        _NO_ID,
        reception.stamp,
        reception.check_time(event.time, "time"),
        source,
        prediction_id,
        data.signal,
        data.do_not_train,
        data.sampling_probability,
        data.model_version,
        data.user_id or event.subject,
        data.thread_id,
        prompt,
        prompt_format,
        original,
        final_text,
        data.value,
        None if data.label is None else format_label(data.label),
        data.labeling_source,
        None if data.known_at is None else reception.check_time(data.known_at, "known_at"),
        data.comment,
        records.make_event_id(reception.application, source, client_id),
        data.revision,
        data.sibling_id,
        retracts,
        None if data.tools is None else store_tools(data.tools),
        original_message,
        final_message,
    )
    attested = reception.attest(source, line.user_id, data.user_token)
    return build_feedback_event(event.id, line, event.time is not None, attested=attested)


_NOTHING_SAID = blake2b(digest_size=16, person=b"feedback")
_NO_ID = "0" * 32
_AFTER_ID = len('{"event_id":"') + len(_NO_ID)
# Every time is formatted to the microsecond: each is as long as any other.
_BEFORE_TIME = _AFTER_ID + len('","received_at":"2026-03-02T12:00:00.000000Z",')
_BEFORE_CONTENT = _BEFORE_TIME + len('"occurred_at":"2026-03-02T12:00:00.000000Z",')


def build_feedback_event(
    client_id: str,
    line: FeedbackLine,
    is_time_claimed: bool,
    others: tuple[LandedRow, ...] = (),
    attested: bytes = b"",
) -> DecodedEvent:
    """Build the event of one feedback line behind `others`, and give it its `event_id`: a hash of what it says.

    The time of receipt is no part of that, and neither is a time that only repeats it, so that a retry is a duplicate.
    A label without a time of its own is the exception: true, false and true again are three statements, and only their
    receipts tell the first from the third. Its retry lands twice, which resolution reads as one statement.
    The line is encoded once: what is hashed is its end, and the id goes into the room that was left for it. What is
    attested is no part of what is said: the same statement through another key is the same event.
    """
    encoded = _line_encoder.encode(line)
    digest = _NOTHING_SAID.copy()
    digest.update(encoded[_BEFORE_TIME if is_time_claimed else _BEFORE_CONTENT :])
    content = digest.hexdigest()
    if line.signal is Signal.LABEL and not is_time_claimed and line.known_at is None:
        digest.update(line.received_at.encode())
    event_id = digest.hexdigest()
    landed = b"".join((b'{"event_id":"', event_id.encode(), encoded[_AFTER_ID:-1], attested, b"}\n"))
    assert line.statement_id is not None
    rank = (line.revision or 0, line.occurred_at)
    rows = (*others, LandedRow(EventKind.FEEDBACK, landed))
    return DecodedEvent(client_id, (line.statement_id,), content, rows, rank)


def encode_row(kind: EventKind, line: msgspec.Struct) -> LandedRow:
    """Encode one line of a segment."""
    return LandedRow(kind, _line_encoder.encode_lines((line,)))


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")
