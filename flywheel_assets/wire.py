"""Defines the JSON that clients may send, decodes it strictly, and explains what is wrong with it.

- **CloudEvents 1.0 JSON** of type `flywheel.prediction` or `flywheel.feedback`. Extension attributes of the envelope
  (tracing and the like) are allowed by that standard: they are accepted and not stored. `subject` is the user id where
  `data` has none. A prediction without a `prediction_id` takes the event's own `id`, which its feedback can name.
- **Edits**, `{"prompt", "original_llm_output", "final_user_edit"}` and a few optional fields. An edit without an `id`
  gets the hash of the application and all its fields.

A prompt is text or messages; an answer is text or one assistant message (`conversations`). Fields of a message that are
not known here are accepted and not stored; everywhere else an unknown field is an error.
"""

import re
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from flywheel_assets.conversations import Answer, FiledAnswer, Message, Role, Tools
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.records import Signal

LONGEST_IDENTIFIER = 1024
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]
# `decode_strictly` takes a whole number as its digits; the types are for the OpenAPI document.
Id = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER, extra_json_schema={"type": ["string", "integer"]}),
]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
# `texts.check_envelope` checks both, with a sentence; the patterns here are for the OpenAPI document.
SpecVersion = Annotated[str, msgspec.Meta(extra_json_schema={"const": "1.0"})]
JsonType = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^(application|text)/([\w.-]+\+)?json$"})]


Prompt = str | Annotated[list[Message], msgspec.Meta(min_length=1)]
Revision = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class PredictionData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes `data` of a `flywheel.prediction`."""

    prompt: Prompt
    output: Answer
    prediction_id: Id | None = None
    model_version: Identifier | None = None
    user_id: Id | None = None
    thread_id: Id | None = None
    do_not_train: bool = False
    tools: Tools | None = None
    user_token: Identifier | None = None


class ScoreData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes `data` of a classifier's `flywheel.prediction`; `features` are the values at the decision.

    It has `score`, or of several classes `scores` with the probability of each.
    """

    features: dict[str, float | str | bool | None]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    scores: dict[str, float] | None = None
    prediction_id: Id | None = None
    model_version: Identifier | None = None
    user_id: Id | None = None
    thread_id: Id | None = None
    do_not_train: bool = False
    amount: float | None = None
    segment: Identifier | None = None
    action: Identifier | None = None
    allow_propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    label_propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class FeedbackData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes `data` of a `flywheel.feedback`; `texts.check_signal` knows what each signal needs and may carry.

    `revision` counts what is said under one event id, `retracts` is the id of an event of the same source, and
    `user_token` is the product's signature of `user_id`.
    """

    signal: Signal
    prediction_id: Id | None = None
    final_text: Answer | None = None
    value: float | None = None
    label: Identifier | bool | None = None
    labeling_source: Identifier | None = None
    known_at: Time | None = None
    comment: str | None = None
    prompt: Prompt | None = None
    original_output: Answer | None = None
    model_version: Identifier | None = None
    user_id: Id | None = None
    thread_id: Id | None = None
    do_not_train: bool = False
    sampling_probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    tools: Tools | None = None
    revision: Revision | None = None
    sibling_id: Id | None = None
    retracts: Id | None = None
    user_token: Identifier | None = None


class _Envelope(msgspec.Struct, frozen=True, tag_field="type"):
    """Holds the CloudEvents attributes that both types share."""

    specversion: SpecVersion
    id: Id
    source: Identifier
    time: Time | None = None
    subject: Id | None = None
    datacontenttype: JsonType | None = None
    data_base64: str | None = None


class PredictionCloudEvent(_Envelope, frozen=True, tag="flywheel.prediction", kw_only=True):
    """Describes one served model output."""

    data: PredictionData


class ScoredCloudEvent(_Envelope, frozen=True, tag="flywheel.prediction", kw_only=True):
    """Describes one decision of a classifier."""

    data: ScoreData


class FeedbackCloudEvent(_Envelope, frozen=True, tag="flywheel.feedback", kw_only=True):
    """Describes one signal about one prediction, from a person or a system."""

    data: FeedbackData


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Describes the body of `/edits`: the smallest input from which a preference pair can be made."""

    prompt: Prompt
    original_llm_output: Answer
    final_user_edit: Answer
    id: Id | None = None
    user_id: Id | None = None
    thread_id: Id | None = None
    model_version: Identifier | None = None
    do_not_train: bool = False
    occurred_at: Time | None = None
    tools: Tools | None = None
    revision: Revision | None = None
    user_token: Identifier | None = None
    """The product's signature of `user_id`; no part of what is said."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Describes two answers to one prompt, of which a person preferred one: a row of a comparison set."""

    prompt: Prompt
    chosen: FiledAnswer
    rejected: FiledAnswer
    id: Id | None = None
    user_id: Id | None = None
    thread_id: Id | None = None
    model_version: Identifier | None = None
    do_not_train: bool = False
    occurred_at: Time | None = None
    tools: Tools | None = None
    revision: Revision | None = None


CloudEvent = PredictionCloudEvent | FeedbackCloudEvent


def format_label(label: str | bool) -> str:
    """Return a label as it is stored: JSON's booleans become `true` and `false`."""
    return str(label).lower() if isinstance(label, bool) else label


T = TypeVar("T")

_LONGEST_MESSAGE = 500  # a field name in a message is the client's: it may be as long as an event
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_ID_FIELDS = ("id", "subject", "prediction_id", "user_id", "thread_id", "sibling_id", "retracts")
_MALFORMED_BYTE = re.compile(r"\(byte (\d+)\)")
_NO_NUMBER = re.compile(rb"NaN|-?Infinity")
_VALID_VALUES = {
    "$.type": ", ".join(str(event.__struct_config__.tag) for event in (PredictionCloudEvent, FeedbackCloudEvent)),
    "$.data.signal": ", ".join(signal.value for signal in Signal),
}
_VALID_ROLES = ", ".join(Role)


class _ClaimedId(msgspec.Struct, frozen=True):
    id: Id | None = None


_id_decoder = msgspec.json.Decoder(_ClaimedId)


def decode_strictly(element: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode an element as the decoder's type; a whole number as an id counts as its digits.

    Raises:
        InvalidEventError: it is not JSON, not text, or not of that type; the message names the field.
    """
    try:
        return decoder.decode(element)
    except msgspec.ValidationError as error:
        written = _write_ids(element) if "got `int`" in str(error) else None
        if written is not None:
            return decode_strictly(written, decoder)
        raise InvalidEventError(_describe_invalid(str(error))) from None
    except msgspec.DecodeError as error:
        raise InvalidEventError(_describe_malformed(element, error)) from None
    except UnicodeDecodeError as error:
        position = error.start
        raise InvalidEventError(
            f"not valid UTF-8: byte 0x{error.object[position]:02x} at position {position} of a text; send UTF-8"
        ) from None
    except RecursionError:
        raise InvalidEventError("nested too deeply to be an event") from None


def _write_ids(element: bytes) -> bytes | None:
    """Return the element with its whole numbers as ids written as text; None where it has none.

    Most senders have texts as ids: they do not pay for this second look.
    """
    try:
        event = msgspec.json.decode(element)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_changed = False
    for part in (event, event.get("data") if isinstance(event, dict) else None):
        if isinstance(part, dict):
            for name in _ID_FIELDS:
                value = part.get(name)
                if isinstance(value, int) and not isinstance(value, bool):
                    part[name] = str(value)
                    is_changed = True
    return msgspec.json.encode(event) if is_changed else None


def read_claimed_id(element: bytes) -> str | None:
    """Read the id of a refused element, where it can be read, so that the answer names it."""
    try:
        return _id_decoder.decode(element).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def shorten_message(message: str) -> str:
    """Return an error message of bounded length."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def _describe_invalid(message: str) -> str:
    received, _, place = message.rpartition(" - at ")
    # Roles stand at many places: in prompts and answers, of events, edits and lines of files.
    valid = _VALID_ROLES if place.endswith(".role`") else _VALID_VALUES.get(place.strip("`"))
    if valid is not None and received.startswith("Invalid"):
        return f"{shorten_message(received)} - at {place}; valid: {valid}"
    return shorten_message(message)


def _describe_malformed(element: bytes, error: msgspec.DecodeError) -> str:
    surrogate = find_lone_surrogate(element)
    if surrogate is not None:
        return f"holds the lone surrogate {surrogate}, which is not text; send the character itself in UTF-8"
    if not element.strip():
        return "not JSON: nothing between two commas"
    if place := _MALFORMED_BYTE.search(str(error)):
        token = _NO_NUMBER.search(element, max(int(place[1]) - 2, 0), int(place[1]) + 10)
        if token:
            return f"{token[0].decode()} (byte {place[1]}) is no JSON; send null for an unknown number"
    return shorten_message(f"not JSON: {error}")


def find_lone_surrogate(element: bytes) -> str | None:
    r"""Find the first `\uD800`–`\uDFFF` escape without a partner, and return it as it is written."""
    high: re.Match[bytes] | None = None
    for escape in _ESCAPE.finditer(element):
        code = int(escape[1], 16) if escape[1] else 0
        pairs = high is not None and high.end() == escape.start() and 0xDC00 <= code <= 0xDFFF
        if high is not None and not pairs:
            return high[0].decode()
        if 0xDC00 <= code <= 0xDFFF and not pairs:
            return escape[0].decode()
        high = escape if 0xD800 <= code <= 0xDBFF else None
    return high[0].decode() if high is not None else None
