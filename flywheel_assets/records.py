"""Defines the records that every room uses: Arrow schemas, identifiers, signals and reason codes.

A schema's column metadata carries its description, so that the Dagster UI and the Iceberg tables show the same words.
All times are UTC, microseconds. Identifiers are 32 hexadecimal characters of BLAKE2b over a JSON array, so that no
two different lists of fields can collide by concatenation.
"""

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec
import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


class Signal(StrEnum):
    """The kind of feedback that a person or system gave."""

    EDIT = "edit"
    THUMB = "thumb"
    RATING = "rating"
    COPY = "copy"
    ACCEPT = "accept"
    REGENERATE = "regenerate"
    LABEL = "label"
    COMMENT = "comment"
    CHOICE = "choice"  # this answer rather than another one
    DEMONSTRATION = "demonstration"  # the right answer, where no model wrote one
    RETRACT = "retract"  # takes an earlier statement back


SILENCE = "silence"
"""The labeling source of a prediction that matured without a label."""

REVIEWER_SOURCE = "reviewer"
"""The feedback source of people who review here."""

IMPORT_PREFIX = "import:"
"""Begins the feedback source of telemetry that came from a file."""

# Shorter than the table's name on purpose: a partition value of more than 16 characters is dropped by rewriting files.
CURATION_STAGE = "curation"
"""The quarantine's stage of rows that the gate refused."""

LONGEST_TEXT_CHARACTERS = 50_000
"""Code points of an output or answer up to which a person's edit is read, and a reviewer may write."""


class SubjectKind(StrEnum):
    """The kind of a feedback's subject: the best identity known. Caps per person apply to USER only."""

    USER = "user"
    THREAD = "thread"
    PROMPT = "prompt"
    PREDICTION = "prediction"  # a classifier's prediction about no known person: its own subject


class PromptFormat(StrEnum):
    """The format of the `prompt` column; the chat template is applied at training only."""

    TEXT = "text"
    MESSAGES = "messages"  # a JSON array of {"role": …, "content": …}


class ExampleKind(StrEnum):
    """The kind of example in a gold row."""

    PREFERENCE_PAIR = "preference_pair"  # an edit: chosen = the person's text, rejected = the model's
    COMPARISON = "comparison"  # chosen and rejected are both answers of models, of which a person chose one
    ACCEPTED_OUTPUT = "accepted_output"  # chosen = the model's own output, rejected is null
    DEMONSTRATION = "demonstration"  # chosen = a person's text, rejected is null: no model wrote one
    OBJECTION = "objection"  # rejected = an output that a reviewer confirmed as wrong, chosen is empty
    STATEMENT = "statement"  # no example: texts are empty; what the person says still counts for the verdict


class Stance(StrEnum):
    """Names what one statement says about its prediction; `curation.texts.statements` reduces them to a verdict."""

    CHANGES = "changes"  # a text of one's own that the gate admits, or that waits
    CHANGES_REFUSED = "changes_refused"  # a text of one's own that the gate refuses
    RESTORES = "restores"  # the model's text, unchanged or again
    APPROVES = "approves"
    OBJECTS = "objects"
    REGENERATES = "regenerates"
    REMARKS = "remarks"  # a comment
    CHOOSES = "chooses"
    RETRACTS = "retracts"


class Reason(StrEnum):
    """The reason code of a dropped or quarantined row; stable words that dashboards and tests may rely on."""

    # landing → raw tables
    MALFORMED_EVENT = "malformed_event"
    DUPLICATE_EVENT = "duplicate_event"
    PREDICTION_ID_REUSED = "prediction_id_reused"
    ERASED = "erased"
    TRIMMED = "trimmed"
    # raw tables → joined feedback
    NO_PREDICTION_IN_WINDOW = "no_prediction_in_window"
    WAITING_FOR_PREDICTION = "waiting_for_prediction"
    LABEL_AFTER_WINDOW = "label_after_window"
    # joined feedback → gold
    NOT_TRAINABLE_SIGNAL = "not_trainable_signal"
    NO_CONSENT = "no_consent"
    EMPTY = "empty"
    UNCHANGED = "unchanged"
    COSMETIC_EDIT = "cosmetic_edit"
    TRIVIAL_EDIT = "trivial_edit"
    REWRITE = "rewrite"
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    SECRET = "secret"  # noqa: S105
    PERSONAL_DATA = "personal_data"
    PROMPT_INJECTION = "prompt_injection"
    TOXIC_LANGUAGE = "toxic_language"
    NEUTRALITY = "neutrality"
    DESTRUCTIVE_COMMAND = "destructive_command"
    STRUCTURAL_ABUSE = "structural_abuse"
    UNSUPPORTED_FACT = "unsupported_fact"
    CLASSIFIER = "classifier"
    JUDGE = "judge"
    CHECK_UNAVAILABLE = "check_unavailable"
    POLICY = "policy"
    BREAKER_TRIPPED = "breaker_tripped"
    SENDER_HELD = "sender_held"
    REASONING_ONLY = "reasoning_only"
    REMARK = "remark"
    CANNED_TEXT = "canned_text"
    WRONG_LANGUAGE = "wrong_language"
    UNSCREENED_LANGUAGE = "unscreened_language"
    # gold → a version, by the application's own tokenizer
    TEMPLATE_REFUSED = "template_refused"
    TEMPLATE_MISMATCH = "template_mismatch"
    CONTROL_TOKEN = "control_token"  # noqa: S105
    UNFINISHED_TURN = "unfinished_turn"
    UNSUPPORTED_CONTENT = "unsupported_content"
    TOO_MANY_TOKENS = "too_many_tokens"
    # joined labels and silent predictions → hard examples
    INVALID_FEATURES = "invalid_features"
    UNKNOWN_LABEL = "unknown_label"
    BLOCKED = "blocked"
    SILENCE_UNKNOWN = "silence_unknown"
    LABELLED = "labelled"
    DISPUTED = "disputed"
    HELD_FOR_REVIEW = "held_for_review"
    # gold → a version
    ROLLED_BACK = "rolled_back"
    EXCLUDED = "excluded"
    LATER_THAN_TRAINING = "later_than_training"
    STATEMENT = "statement"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    OUTVOTED = "outvoted"
    AWAITING_CHOICE = "awaiting_choice"
    UNSUPPORTED_CLAIM = "unsupported_claim"
    USER_CAP = "user_cap"
    ANONYMOUS_CAP = "anonymous_cap"
    SOURCE_CAP = "source_cap"
    PROMPT_CAP = "prompt_cap"
    NOT_SAMPLED = "not_sampled"


def make_stable_id(*fields: Any) -> str:
    """Hash fields, which must be JSON values, to 32 hex characters; their order counts."""
    canonical = json.dumps(fields, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=16).hexdigest()


_encode_in_order = msgspec.json.Encoder(order="deterministic").encode


def make_content_id(*fields: Any) -> str:
    """Hash records that have no id to 32 hex characters, at a third of `make_stable_id`'s cost; not the same digest.

    Raises:
        TypeError, ValueError, RecursionError: a field is no JSON value.
    """
    return hashlib.blake2b(_encode_in_order(fields), digest_size=16).hexdigest()


@lru_cache(maxsize=64)
def _begin_event_id(application: str, source: str) -> hashlib.blake2b:
    texts = ",".join(map(encode_basestring_ascii, ("event", application, source)))
    return hashlib.blake2b(f"[{texts},".encode("ascii"), digest_size=16)


def make_event_id(application: str, source: str, client_id: str) -> str:
    """Compute the dedupe key of one event: the same client id from the same source is the same event."""
    # `make_stable_id("event", …)`, at a sixth of its cost: capture asks for one or two per event.
    digest = _begin_event_id(application, source).copy()
    digest.update(f"{encode_basestring_ascii(client_id)}]".encode("ascii"))
    return digest.hexdigest()


def make_pair_id(application: str, prediction_id: str) -> str:
    """Compute the key of the one training example that a prediction can give, for any corrector."""
    return make_stable_id("pair", application, prediction_id)


def make_pair_ids(application: str, prediction_ids: Iterable[str]) -> list[str]:
    """Compute `pair_id` for a whole column, four times as fast: the common part is hashed once."""
    common = hashlib.blake2b(f'["pair",{json.dumps(application)},'.encode("ascii"), digest_size=16)
    found = []
    for prediction_id in prediction_ids:
        digest = common.copy()
        digest.update(f"{encode_basestring_ascii(prediction_id)}]".encode("ascii"))
        found.append(digest.hexdigest())
    return found


def identify_subject(user_id: str | None, thread_id: str | None, prompt: str) -> tuple[str, SubjectKind]:
    """Return a feedback's subject: the user, else the thread, else all who sent the same prompt."""
    if user_id:
        return user_id, SubjectKind.USER
    if thread_id:
        return thread_id, SubjectKind.THREAD
    return make_stable_id("prompt", prompt), SubjectKind.PROMPT


def identify_score_subject(user_id: str | None, thread_id: str | None, prediction_id: str) -> tuple[str, SubjectKind]:
    """Return a score's subject: the entity (a card, a customer) sent as user, else the thread, else only itself."""
    if user_id:
        return user_id, SubjectKind.USER
    if thread_id:
        return thread_id, SubjectKind.THREAD
    return prediction_id, SubjectKind.PREDICTION


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts, encoded as a dictionary or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _define_column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> "pa.Field[Any]":
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def read_description(field: "pa.Field[Any]") -> str:
    """Read the sentence that a schema gives to one of its columns."""
    return bytes((field.metadata or {}).get(b"description", b"")).decode()


_IDENTITY = [
    _define_column("user_id", pa.string(), "the signed-in user, where the application knows one", nullable=True),
    _define_column("thread_id", pa.string(), "the conversation or session", nullable=True),
    _define_column("do_not_train", pa.bool_(), "consent withheld: never in a version"),
]
_RECEIPT = [
    _define_column(
        "event_id", pa.string(), "hash of application, source, client id and, for feedback, content: the dedupe key"
    ),
    _define_column("received_at", TIMESTAMP, "when capture received the event"),
    _define_column("occurred_at", TIMESTAMP, "when it happened, from the client"),
    _define_column("source", pa.string(), "who sent the event (CloudEvents source)"),
]

_TOOLS = [_define_column("tools", pa.string(), "functions the model could call, as a JSON array", nullable=True)]
_MESSAGE = "{} as an assistant message in JSON, where its text does not say everything"
_STATEMENT = [
    _define_column(
        "statement_id", pa.string(), "hash(application, source, client id): equal for its revisions", nullable=True
    ),
    _define_column("revision", pa.int64(), "of the statement, counted by the client", nullable=True),
    _define_column("sibling_id", pa.string(), "the other answer to the same prompt", nullable=True),
    _define_column("retracts", pa.string(), "statement_id of the statement that is taken back", nullable=True),
]

_ATTESTED = [
    _define_column(
        "attested_source",
        pa.string(),
        "the sender's name by its key, never by the event; null: no key vouches (open service, imports, older rows)",
        nullable=True,
    ),
    _define_column(
        "is_attested",
        pa.bool_(),
        "a server's key or a signed user token vouches for who it was; false: only claimed; null: as above",
        nullable=True,
    ),
]

# One landed line each; the raw tables add the partition column in front.
# New columns come last: a table that exists gets them under the next field ids.
PREDICTION_EVENT = pa.schema(
    [
        *_RECEIPT,
        _define_column("prediction_id", pa.string(), "the served output that feedback refers to"),
        _define_column("model_version", pa.string(), "which model served it", nullable=True),
        *_IDENTITY,
        _define_column("prompt", pa.string(), "what the model was asked: text, or messages as a JSON array"),
        _define_column("prompt_format", pa.string(), "text | messages"),
        _define_column("output", pa.string(), "what the model answered"),
        *_TOOLS,
        _define_column("output_message", pa.string(), _MESSAGE.format("the output"), nullable=True),
    ]
)
_LABEL = [
    _define_column("label", pa.string(), "the true class, for label signals", nullable=True),
    _define_column("labeling_source", pa.string(), "who said so: analyst, chargeback, …", nullable=True),
    _define_column("known_at", TIMESTAMP, "when the label became known to its source", nullable=True),
]
_SCORE = [
    _define_column("features", pa.string(), "what the model saw when it decided, as a JSON object"),
    _define_column(
        "score",
        pa.float64(),
        "the model's probability of the positive class, of several classes of all but the negative one, 0 to 1",
    ),
    _define_column("amount", pa.float64(), "what is at stake, in the application's unit", nullable=True),
    _define_column("segment", pa.string(), "a group that is reported and sampled by itself", nullable=True),
    _define_column("action", pa.string(), "what was done: allow, review or block", nullable=True),
    _define_column(
        "allow_propensity",
        pa.float64(),
        "probability with which the action policy let a case like this through",
        nullable=True,
    ),
]
_LABEL_PROPENSITY = _define_column(
    "label_propensity",
    pa.float64(),
    "probability with which a case like this is labelled, where silence says nothing",
    nullable=True,
)
_SCORES = _define_column(
    "scores", pa.string(), "the model's probability of every class, as a JSON object; null: two classes", nullable=True
)
SCORED_EVENT = pa.schema(
    [
        *_RECEIPT,
        _define_column("prediction_id", pa.string(), "the decision that labels refer to"),
        _define_column("model_version", pa.string(), "which model scored it", nullable=True),
        *_IDENTITY,
        *_SCORE,
        _LABEL_PROPENSITY,
        _SCORES,
    ]
)
FEEDBACK_EVENT = pa.schema(
    [
        *_RECEIPT,
        _define_column("prediction_id", pa.string(), "the served output this is about"),
        _define_column(
            "signal",
            pa.string(),
            "edit, thumb, rating, copy, accept, regenerate, label, comment, choice, demonstration or retract",
        ),
        _define_column("model_version", pa.string(), "which model served it, as the client knew it", nullable=True),
        *_IDENTITY,
        _define_column(
            "prompt", pa.string(), "carried by edits, so that they never depend on a sampled prediction", nullable=True
        ),
        _define_column("prompt_format", pa.string(), "text | messages", nullable=True),
        _define_column(
            "original_output", pa.string(), "the model's text before the edit, carried by edits", nullable=True
        ),
        _define_column("final_text", pa.string(), "the text after the edit", nullable=True),
        _define_column("value", pa.float64(), "thumb: −1 or 1; rating: 0 to 1", nullable=True),
        *_LABEL,
        _define_column("comment", pa.string(), "free text, never trained on", nullable=True),
        _define_column("sampling_probability", pa.float64(), "with which the client kept this event"),
        *_STATEMENT,
        *_TOOLS,
        _define_column("original_message", pa.string(), _MESSAGE.format("the original output"), nullable=True),
        _define_column("final_message", pa.string(), _MESSAGE.format("the final text"), nullable=True),
        *_ATTESTED,
    ]
)

_RECEIVED_DATE = _define_column("received_date", pa.date32(), "UTC day of publication in landing; the partition")
_COMPLETED_DATE = _define_column(
    "completed_date", pa.date32(), "UTC day on which the match became complete; the partition"
)

RAW_PREDICTIONS = pa.schema([_RECEIVED_DATE, *PREDICTION_EVENT])
RAW_SCORES = pa.schema([_RECEIVED_DATE, *SCORED_EVENT])
GROUND_TRUTH = pa.schema([_RECEIVED_DATE, *FEEDBACK_EVENT])

_MATCH = [
    _COMPLETED_DATE,
    _define_column("feedback_event_id", pa.string(), "the feedback event; the key"),
    _define_column("prediction_id", pa.string(), "the served output"),
    _define_column(
        "prediction_received_date",
        pa.date32(),
        "first receipt of the prediction; null: the edit carried its text",
        nullable=True,
    ),
    _define_column("feedback_received_date", pa.date32(), "first receipt of the feedback"),
    _define_column("feedback_received_at", TIMESTAMP, "when capture received the feedback"),
    _define_column("occurred_at", TIMESTAMP, "when the feedback happened"),
    _define_column("predicted_at", TIMESTAMP, "when the prediction happened", nullable=True),
    _define_column(
        "signal",
        pa.string(),
        "edit, thumb, rating, copy, accept, regenerate, label, comment, choice, demonstration or retract",
    ),
    _define_column("source", pa.string(), "who sent the feedback"),
    _define_column("model_version", pa.string(), "which model served the output", nullable=True),
    _define_column("subject", pa.string(), "whose feedback it is"),
    _define_column("subject_kind", pa.string(), "user | thread | prompt | prediction"),
    *_IDENTITY,
]

JOINED_FEEDBACK = pa.schema(
    [
        *_MATCH,
        _define_column("prompt", pa.string(), "what the model was asked"),
        _define_column("prompt_format", pa.string(), "text | messages"),
        _define_column("output", pa.string(), "what the model answered"),
        _define_column("final_text", pa.string(), "the text after the edit", nullable=True),
        _define_column("value", pa.float64(), "thumb: −1 or 1; rating: 0 to 1", nullable=True),
        _define_column("label", pa.string(), "the true class, for label signals", nullable=True),
        _define_column("comment", pa.string(), "free text, never trained on", nullable=True),
        _define_column("sampling_probability", pa.float64(), "with which the client kept the feedback"),
        *_STATEMENT,
        *_TOOLS,
        _define_column("output_message", pa.string(), _MESSAGE.format("the output"), nullable=True),
        _define_column("final_message", pa.string(), _MESSAGE.format("the final text"), nullable=True),
        *_ATTESTED,
    ]
)
JOINED_LABELS = pa.schema(
    [
        *_MATCH,
        *_LABEL,
        *_SCORE,
        _define_column("value", pa.float64(), "thumb: −1 or 1; rating: 0 to 1", nullable=True),
        _define_column("comment", pa.string(), "free text, never trained on", nullable=True),
        _define_column("sampling_probability", pa.float64(), "with which the client kept the feedback"),
        _LABEL_PROPENSITY,
        _SCORES,
    ]
)

CURATED_DPO_PAIRS = pa.schema(
    [
        _COMPLETED_DATE,
        _define_column("pair_id", pa.string(), "hash(application, prediction id); the key once a version is resolved"),
        _define_column(
            "example_kind",
            pa.string(),
            "preference_pair | comparison | accepted_output | demonstration | objection | statement",
        ),
        _define_column("feedback_event_id", pa.string(), "the feedback that admitted it"),
        _define_column("prediction_id", pa.string(), "the served output"),
        _define_column("feedback_received_date", pa.date32(), "first receipt of the feedback"),
        _define_column("feedback_received_at", TIMESTAMP, "when capture received the feedback"),
        _define_column("occurred_at", TIMESTAMP, "when the feedback happened"),
        _define_column("signal", pa.string(), "edit, or the signal that accepted the output"),
        _define_column("source", pa.string(), "who sent the feedback"),
        _define_column(
            "model_version", pa.string(), "which model served the rejected or accepted output", nullable=True
        ),
        _define_column("subject", pa.string(), "whose feedback it is"),
        _define_column("subject_kind", pa.string(), "user | thread | prompt"),
        _define_column("prompt", pa.string(), "what the model was asked"),
        _define_column("prompt_format", pa.string(), "text | messages"),
        _define_column("chosen", pa.string(), "the user's text; for an accepted output the model's"),
        _define_column("rejected", pa.string(), "the model's text; null for an accepted output", nullable=True),
        _define_column(
            "similarity",
            pa.float64(),
            "1 − Levenshtein / longer length, in characters; null for an accepted output",
            nullable=True,
        ),
        _define_column("prompt_hash", pa.string(), "hash of the normalized prompt without the operator's text"),
        _define_column(
            "content_hash", pa.string(), "hash of the normalized prompt, without the operator's text, and chosen text"
        ),
        _define_column("policy_version", pa.string(), "the policy that passed it"),
        _define_column("sampling_probability", pa.float64(), "with which the client kept the feedback"),
        _define_column(
            "signature",
            pa.string(),
            "MinHash of the chosen text, 128 bytes in hex; null: too short, only equal texts are duplicates",
            nullable=True,
        ),
        _define_column(
            "held_reason", pa.string(), "why the row waits for support; null: it is admitted", nullable=True
        ),
        _define_column("support_key", pa.string(), "what has to recur before a held row is admitted", nullable=True),
        _define_column(
            "added_ngrams",
            pa.string(),
            "8 hex characters for each pair of neighbouring words that the edit adds, at most 64; null: none",
            nullable=True,
        ),
        _define_column("stance", pa.string(), "what the statement says about the output"),
        *_STATEMENT,
        _define_column("thread_id", pa.string(), "the conversation or session", nullable=True),
        _define_column("refused_reason", pa.string(), "why a statement gives no example", nullable=True),
        _define_column("admitted_by", pa.string(), "what makes a small change substantial", nullable=True),
        *_TOOLS,
        _define_column("chosen_message", pa.string(), _MESSAGE.format("the chosen text"), nullable=True),
        _define_column("rejected_message", pa.string(), _MESSAGE.format("the rejected text"), nullable=True),
        _define_column("request_hash", pa.string(), "hash of the normalized request: the last turn of the user"),
        _define_column(
            "request_signature", pa.string(), "MinHash of the request, as `signature`; null: too short", nullable=True
        ),
        _define_column(
            "anchors",
            pa.string(),
            "hash of the numbers, negations, opinions and code in the chosen text: near duplicates agree in them",
            nullable=True,
        ),
        *_ATTESTED,
        _define_column(
            "added_words",
            pa.string(),
            "8 hex characters for each word that the edit adds, at most 128; null: none, or curated before 2026-11-29",
            nullable=True,
        ),
    ]
)

FEEDBACK_SUMMARY = pa.schema(
    [
        _COMPLETED_DATE,
        _define_column("model_version", pa.string(), "which model served the outputs; empty: unknown"),
        _define_column("events", pa.int64(), "feedback events"),
        _define_column("interactions", pa.int64(), "distinct outputs that they are about"),
        _define_column("edits", pa.int64(), "edits of an output"),
        _define_column("edits_unchanged", pa.int64(), "of these, edits that left the output as it was"),
        _define_column("thumbs_up", pa.int64(), "thumbs up"),
        _define_column("thumbs_down", pa.int64(), "thumbs down"),
        _define_column("ratings", pa.int64(), "ratings"),
        _define_column("mean_rating", pa.float64(), "mean of the ratings, 0 to 1; null: none", nullable=True),
        _define_column("copies", pa.int64(), "outputs copied"),
        _define_column("accepts", pa.int64(), "outputs accepted"),
        _define_column("regenerates", pa.int64(), "outputs asked for again"),
        _define_column("comments", pa.int64(), "comments in free text"),
        _define_column("choices", pa.int64(), "choices between two outputs", nullable=True),
        _define_column("demonstrations", pa.int64(), "answers of people where no model wrote one", nullable=True),
        _define_column(
            "retractions", pa.int64(), "statements or outputs about which all was taken back", nullable=True
        ),
    ]
)

HARD_EXAMPLES = pa.schema(
    [
        _COMPLETED_DATE,
        _define_column("prediction_id", pa.string(), "the decision; the key once a version is resolved"),
        _define_column("label_event_id", pa.string(), "the label that completed it; null: silence", nullable=True),
        _define_column("prediction_received_date", pa.date32(), "first receipt of the prediction"),
        _define_column("predicted_at", TIMESTAMP, "when the model decided", nullable=True),
        _define_column("is_positive", pa.bool_(), "the true class"),
        _define_column("labeling_source", pa.string(), "who said so; `silence` for a matured negative"),
        _define_column("label_known_at", TIMESTAMP, "when the label was known here at the earliest"),
        _define_column("label_received_at", TIMESTAMP, "when capture received it; for silence the end of the day"),
        _define_column("label_received_date", pa.date32(), "first receipt of the label; null: silence", nullable=True),
        _define_column("model_version", pa.string(), "which model scored it", nullable=True),
        _define_column("subject", pa.string(), "whom it is about"),
        _define_column("subject_kind", pa.string(), "user | thread | prediction"),
        *_SCORE,
        _define_column(
            "discrepancy",
            pa.string(),
            "uncertain | confident_miss | confident_false_alarm | wrong_class",
            nullable=True,
        ),
        _define_column("severity", pa.float64(), "how wrong or unsure the model was, 0 to 1"),
        _define_column("selection_reason", pa.string(), "positive | surprise | floor: what set π"),
        _define_column(
            "inclusion_probability", pa.float64(), "π: with which it is drawn for training; 1 for positives"
        ),
        _define_column("draw", pa.float64(), "u in [0, 1), a hash of the prediction id: drawn where u < π"),
        _define_column("sampling_version", pa.string(), "hash of the rules that gave π"),
        _LABEL_PROPENSITY,
        _SCORES,
        _define_column(
            "label_class", pa.string(), "the true class of several; null: two classes, `is_positive`", nullable=True
        ),
    ]
)

DRIFT_REPORTS = pa.schema(
    [
        _define_column("day", pa.date32(), "last UTC day of the week of receipt that was compared; the partition"),
        _define_column("field", pa.string(), "a feature, or the score"),
        _define_column(
            "reference_version",
            pa.string(),
            "gold version whose weighted training rows are the reference, or the first served days",
        ),
        _define_column("rows", pa.int64(), "predictions with a value"),
        _define_column("missing_share", pa.float64(), "of the week's predictions", nullable=True),
        _define_column("psi", pa.float64(), "population stability index, nats; null: too few rows", nullable=True),
        _define_column(
            "wasserstein", pa.float64(), "in standard deviations of the reference; null for texts", nullable=True
        ),
        _define_column("jensen_shannon", pa.float64(), "distance in bits, 0 to 1", nullable=True),
        _define_column("breach", pa.string(), "what exceeded which limit; null: nothing", nullable=True),
    ]
)

QUARANTINE = pa.schema(
    [
        _define_column("day", pa.date32(), "the partition of the asset that refused the row"),
        _define_column("stage", pa.string(), "the asset that refused it; each replaces only its own rows"),
        _define_column(
            "row_id", pa.string(), "event id of the row in the stage's input, or a hash of a line that has none"
        ),
        _define_column("reason", pa.string(), "reason code"),
        _define_column("detail", pa.string(), "what exactly, without user text", nullable=True),
        _define_column(
            "evidence", pa.string(), "JSON list of {category, score, field, start, end} found by checks", nullable=True
        ),
        _define_column("subject", pa.string(), "whose feedback it is", nullable=True),
        _define_column("policy_version", pa.string(), "the policy that refused it", nullable=True),
        _define_column(
            "payload", pa.string(), "the refused line itself, only where no other table holds it", nullable=True
        ),
    ]
)

LEDGER = pa.schema(
    [
        _define_column("asset", pa.string(), "which asset"),
        _define_column("day", pa.date32(), "which of its partitions"),
        _define_column("is_closed", pa.bool_(), "every input of the day is closed: the rows are final"),
        _define_column("content_hash", pa.string(), "of the partition's rows"),
        _define_column(
            "input_hashes", pa.string(), "JSON {input asset: hash of the days it was read over}; differs later = stale"
        ),
        _define_column("rows_in", pa.int64(), "rows the day had to account for"),
        _define_column("rows_kept", pa.int64(), "rows in the partition"),
        _define_column("rows_by_reason", pa.string(), "JSON {reason: rows} of everything not kept"),
        _define_column("rows_held", pa.int64(), "of those, rows that lie in the partition and wait for support"),
        _define_column("run_id", pa.string(), "the Dagster run, or the command, that wrote it"),
        _define_column("code_version", pa.string(), "of the asset's logic"),
        _define_column("recorded_at", TIMESTAMP, "when it was written"),
        _define_column(
            "rows_stated",
            pa.int64(),
            "rows of neither kind that lie in the partition for what they state; null: none",
            nullable=True,
        ),
    ]
)

_DECISION = [
    _define_column("id", pa.string(), "of the decision"),
    _define_column("decided_at", TIMESTAMP, "when"),
    _define_column("decided_by", pa.string(), "who"),
    _define_column("reason", pa.string(), "why, in their words"),
]

# Append-only: an exclusion is ended by another row that names it, so that the table tells what held at any time.
EXCLUSIONS = pa.schema(
    [
        *_DECISION,
        _define_column(
            "ends", pa.string(), "id of the exclusion that this row ends; null: this row begins one", nullable=True
        ),
        _define_column("first_day", pa.date32(), "first excluded day", nullable=True),
        _define_column("last_day", pa.date32(), "last excluded day, included", nullable=True),
        _define_column("day_of", pa.string(), "which day counts: received | occurred", nullable=True),
        _define_column("user_id", pa.string(), "whose rows are excluded", nullable=True),
        _define_column("model_version", pa.string(), "whose outputs are excluded", nullable=True),
        _define_column("prediction_id", pa.string(), "the output whose rows are excluded", nullable=True),
        _define_column("thread_id", pa.string(), "the conversation whose rows are excluded", nullable=True),
        _define_column("statement_id", pa.string(), "the statement whose revisions are excluded", nullable=True),
        _define_column("event_id", pa.string(), "the feedback event that is excluded", nullable=True),
        _define_column("source", pa.string(), "whose feedback is excluded: a sender, or a file", nullable=True),
    ]
)

BREAKER_DAYS = pa.schema(
    [
        _define_column("day", pa.date32(), "closed day of joined feedback; the key"),
        _define_column("joined_hash", pa.string(), "content hash of the joined rows that were judged"),
        _define_column("rows", pa.int64(), "joined rows of the day; of a classifier its labels"),
        _define_column("subjects", pa.int64(), "distinct subjects among them; like the next two 0 for labels"),
        _define_column("flagged_ratio", pa.float64(), "share of the rows that a hostile policy reason refused"),
        _define_column("top_user_ratio", pa.float64(), "share of the rows that came from one signed-in user"),
        _define_column(
            "trailing_median_rows", pa.float64(), "joined rows of an ordinary day before; null: too few", nullable=True
        ),
        _define_column(
            "concentrated_rows", pa.int64(), "most pairs that add the same words and come from few subjects"
        ),
        _define_column("trips", pa.string(), "JSON list of {rule, value, limit, examples: [feedback event ids]}"),
        _define_column("is_reset", pa.bool_(), "a person let the day in, whatever tripped"),
        _define_column("recorded_at", TIMESTAMP, "when it was judged"),
        _define_column("positives", pa.int64(), "positive labels; null: edits were judged", nullable=True),
        _define_column("reversals", pa.int64(), "labels that overturn what was known before", nullable=True),
        _define_column(
            "held_rows", pa.int64(), "rows of the senders behind the trips: held, and the day goes on", nullable=True
        ),
    ]
)
BREAKER_RESETS = pa.schema(
    [
        *_DECISION,
        _define_column("day", pa.date32(), "whose rows are let in"),
        _define_column("joined_hash", pa.string(), "the joined rows that the person decided about"),
    ]
)

ROLLBACKS = pa.schema(
    [
        *_DECISION,
        _define_column("what", pa.string(), "data | models | share"),
        _define_column("to_version", pa.string(), "the tag that was rolled back to"),
        _define_column("snapshot_before", pa.int64(), "head of the gold table before", nullable=True),
        _define_column("snapshot_after", pa.int64(), "head of the gold table after", nullable=True),
        _define_column("saved_head", pa.string(), "the tag that keeps the old head", nullable=True),
        _define_column("champion_before", pa.string(), "gold version of the champion before", nullable=True),
        _define_column("share_before", pa.float64(), "part of the users that the champion had", nullable=True),
        _define_column("share_after", pa.float64(), "part of the users that it has now", nullable=True),
    ]
)

ERASURES = pa.schema(
    [
        *_DECISION,
        _define_column("person_key", pa.string(), "keyed hash of the user id: what was received before is refused"),
        _define_column("event_keys", pa.string(), "JSON list of keyed hashes of event ids, refused whenever they come"),
        _define_column("key_check", pa.string(), "hash of a fixed text by the key: shows a wrong one", nullable=True),
    ]
)

# Written before the first day changes: a closed day never changes without an entry here.
HISTORY_IMPORTS = pa.schema(
    [
        *_DECISION,
        _define_column("file", pa.string(), "name of the imported file"),
        _define_column("events", pa.int64(), "rows of predictions and feedback"),
        _define_column("days", pa.string(), "JSON object: by kind of event the days that they belong to"),
        _define_column("reopened", pa.string(), "JSON object: those of the days that were closed before"),
    ]
)

STORAGE = pa.schema(
    [
        _define_column("measured_at", TIMESTAMP, "end of a maintenance"),
        _define_column("stage", pa.string(), "landing, a table, or versions"),
        _define_column("files", pa.int64(), "files of the stage"),
        _define_column("bytes", pa.int64(), "their bytes"),
    ]
)
