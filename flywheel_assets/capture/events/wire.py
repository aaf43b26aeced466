"""What clients may send: the two wire formats, both strict about unknown fields and types.

- **CloudEvents 1.0 JSON** of type `flywheel.prediction` or `flywheel.feedback`. Extension attributes of the envelope
  (tracing and the like) are allowed by that standard: they are accepted and not stored. `subject` is the user id where
  `data` has none. A prediction without a `prediction_id` takes the event's own `id`, which its feedback can name.
- **Edits**, `{"prompt", "original_llm_output", "final_user_edit"}` and a few optional fields. An edit without an `id`
  gets the hash of the application and all its fields.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from flywheel_assets.records import Signal

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
# Checked by `events`, in words; said here for the OpenAPI document.
SpecVersion = Annotated[str, msgspec.Meta(extra_json_schema={"const": "1.0"})]
JsonType = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^(application|text)/([\w.-]+\+)?json$"})]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a prompt that is a conversation."""

    role: str
    content: str


Prompt = str | Annotated[list[Message], msgspec.Meta(min_length=1)]


class PredictionData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` of a `flywheel.prediction`."""

    prompt: Prompt
    output: str
    prediction_id: Identifier | None = None
    model_version: Identifier | None = None
    user_id: Identifier | None = None
    thread_id: Identifier | None = None
    do_not_train: bool = False


class ScoreData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` of a classification application's `flywheel.prediction`; `features` as they were at the decision."""

    features: dict[str, float | str | bool | None]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    prediction_id: Identifier | None = None
    model_version: Identifier | None = None
    user_id: Identifier | None = None
    thread_id: Identifier | None = None
    do_not_train: bool = False
    amount: float | None = None
    segment: Identifier | None = None
    action: Identifier | None = None
    allow_propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class FeedbackData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` of a `flywheel.feedback`; `events.check_signal` knows what each signal needs and may carry."""

    prediction_id: Identifier
    signal: Signal
    final_text: str | None = None
    value: float | None = None
    label: Identifier | bool | None = None
    labeling_source: Identifier | None = None
    known_at: Time | None = None
    comment: str | None = None
    prompt: Prompt | None = None
    original_output: str | None = None
    model_version: Identifier | None = None
    user_id: Identifier | None = None
    thread_id: Identifier | None = None
    do_not_train: bool = False
    sampling_probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class _Envelope(msgspec.Struct, frozen=True, tag_field="type"):
    """CloudEvents attributes that both types share."""

    specversion: SpecVersion
    id: Identifier
    source: Identifier
    time: Time | None = None
    subject: Identifier | None = None
    datacontenttype: JsonType | None = None
    data_base64: str | None = None


class PredictionCloudEvent(_Envelope, frozen=True, tag="flywheel.prediction", kw_only=True):
    """One served model output."""

    data: PredictionData


class ScoredCloudEvent(_Envelope, frozen=True, tag="flywheel.prediction", kw_only=True):
    """One decision of a classifier."""

    data: ScoreData


class FeedbackCloudEvent(_Envelope, frozen=True, tag="flywheel.feedback", kw_only=True):
    """One human or system signal about one prediction."""

    data: FeedbackData


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `/edits` takes: the smallest thing from which a preference pair can be made."""

    prompt: Prompt
    original_llm_output: str
    final_user_edit: str
    id: Identifier | None = None
    user_id: Identifier | None = None
    thread_id: Identifier | None = None
    model_version: Identifier | None = None
    do_not_train: bool = False
    occurred_at: Time | None = None


CloudEvent = PredictionCloudEvent | FeedbackCloudEvent


def label_word(label: str | bool) -> str:
    """A label as it is stored: JSON's booleans by their names."""
    return str(label).lower() if isinstance(label, bool) else label
