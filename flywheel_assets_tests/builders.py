"""Valid records with overrides: `make_prediction(prompt="…")` is a whole landed row with only the prompt chosen.

Every call makes a new identity (ids count up and never repeat within a process), so that two records differ unless a
test says that they are the same. Times are fixed: nothing here reads a clock.
"""

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from flywheel_assets import records

APPLICATION = "assistant"
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAY = NOON.date()

_numbers = itertools.count(1)


def make_prediction(**overrides: Any) -> dict[str, Any]:
    """One row of PREDICTION_EVENT."""
    number = next(_numbers)
    row = {
        "event_id": records.make_event_id(APPLICATION, "app", f"prediction-{number}"),
        "received_at": NOON,
        "occurred_at": NOON - timedelta(seconds=2),
        "source": "app",
        "prediction_id": f"prediction-{number}",
        "model_version": "base",
        "user_id": f"user-{number}",
        "thread_id": None,
        "do_not_train": False,
        "prompt": f"How do I read setting number {number} from the central store?",
        "prompt_format": "text",
        "output": f"Call settings.fetch('number_{number}') and check the result for None.",
    }
    return _with(row, overrides, records.PREDICTION_EVENT)


def make_score(**overrides: Any) -> dict[str, Any]:
    """One row of SCORED_EVENT: an allowed transaction that the model found harmless."""
    number = next(_numbers)
    row = {
        "event_id": records.make_event_id(APPLICATION, "app", f"prediction-{number}"),
        "received_at": NOON,
        "occurred_at": NOON - timedelta(seconds=2),
        "source": "app",
        "prediction_id": f"prediction-{number}",
        "model_version": "static",
        "user_id": f"card-{number}",
        "thread_id": None,
        "do_not_train": False,
        "features": '{"amount":75.2,"night":false,"country":"NL"}',
        "score": 0.02,
        "amount": 75.2,
        "segment": "web",
        "action": "allow",
        "allow_propensity": None,
        "label_propensity": None,
    }
    return _with(row, overrides, records.SCORED_EVENT)


def make_label(**overrides: Any) -> dict[str, Any]:
    """One row of FEEDBACK_EVENT: a chargeback that says fraud."""
    row = {
        "signal": "label",
        "prompt": None,
        "prompt_format": None,
        "original_output": None,
        "final_text": None,
        "model_version": None,
        "user_id": None,
        "label": "true",
        "labeling_source": "chargeback",
    }
    return make_feedback(**{**row, **overrides})


def make_feedback(**overrides: Any) -> dict[str, Any]:
    """One row of FEEDBACK_EVENT: an edit that carries its prompt and the original text."""
    number = next(_numbers)
    row = {
        "event_id": records.make_event_id(APPLICATION, "app", f"feedback-{number}"),
        "received_at": NOON + timedelta(minutes=1),
        "occurred_at": NOON + timedelta(seconds=58),
        "source": "app",
        "prediction_id": f"prediction-{number}",
        "signal": "edit",
        "model_version": "base",
        "user_id": f"user-{number}",
        "thread_id": None,
        "do_not_train": False,
        "prompt": f"How do I read setting number {number} from the central store?",
        "prompt_format": "text",
        "original_output": f"Call settings.fetch('number_{number}') and check the result for None.",
        "final_text": f"Call store.read('number_{number}', default=0): it never returns None.",
        "value": None,
        "label": None,
        "labeling_source": None,
        "known_at": None,
        "comment": None,
        "sampling_probability": 1.0,
    }
    return _with(row, overrides, records.FEEDBACK_EVENT)


def make_joined(**overrides: Any) -> dict[str, Any]:
    """One row of JOINED_FEEDBACK: an edit that passes the gate.

    `subject` and `subject_kind` follow `user_id`, `thread_id` and `prompt` unless they are overridden.
    """
    number = next(_numbers)
    row = {
        "completed_date": DAY,
        "feedback_event_id": records.make_event_id(APPLICATION, "app", f"feedback-{number}"),
        "prediction_id": f"prediction-{number}",
        "prediction_received_date": DAY,
        "feedback_received_date": DAY,
        "feedback_received_at": NOON + timedelta(minutes=1),
        "occurred_at": NOON + timedelta(seconds=58),
        "predicted_at": NOON,
        "signal": "edit",
        "source": "app",
        "model_version": "base",
        "user_id": f"user-{number}",
        "thread_id": None,
        "do_not_train": False,
        "prompt": f"How do I read setting number {number} from the central store?",
        "prompt_format": "text",
        "output": f"Call settings.fetch('number_{number}') and check the result for None.",
        "final_text": f"Call store.read('number_{number}', default=0): it never returns None.",
        "value": None,
        "label": None,
        "comment": None,
        "sampling_probability": 1.0,
    }
    known = {**row, **overrides}
    subject, kind = records.identify_subject(known["user_id"], known["thread_id"], known["prompt"])
    row["statement_id"] = known["feedback_event_id"]
    return _with({**row, "subject": subject, "subject_kind": str(kind)}, overrides, records.JOINED_FEEDBACK)


def make_gold(**overrides: Any) -> dict[str, Any]:
    """One row of CURATED_DPO_PAIRS: a preference pair of its own user, prompt and prediction.

    With `example_kind="accepted_output"` the text is the model's own and `rejected` and `similarity` are null.
    `pair_id` follows `prediction_id`; the two hashes follow prompt and chosen unless they are overridden.
    """
    number = next(_numbers)
    is_accepted = overrides.get("example_kind") == "accepted_output"
    row = {
        "completed_date": DAY,
        "example_kind": "preference_pair",
        "feedback_event_id": records.make_event_id(APPLICATION, "app", f"feedback-{number}"),
        "prediction_id": f"prediction-{number}",
        "feedback_received_date": DAY,
        "feedback_received_at": NOON + timedelta(minutes=1),
        "occurred_at": NOON + timedelta(seconds=58),
        "signal": "accept" if is_accepted else "edit",
        "source": "app",
        "model_version": "base",
        "subject": f"user-{number}",
        "subject_kind": "user",
        "prompt": f"How do I read setting number {number} from the central store?",
        "prompt_format": "text",
        "chosen": f"Call store.read('number_{number}', default=0): it never returns None.",
        "rejected": None if is_accepted else f"Call settings.fetch('number_{number}') and check the result for None.",
        "similarity": None if is_accepted else 0.5,
        "policy_version": "policy",
        "sampling_probability": 1.0,
        "signature": None,
        "held_reason": None,
        "support_key": None,
        "added_ngrams": None,
    }
    known = {**row, **overrides}
    derived = {
        "stance": "approves" if is_accepted else "changes",
        "statement_id": known["feedback_event_id"],
        "request_hash": records.make_stable_id("request", known["prompt"]),
        "pair_id": records.make_pair_id(APPLICATION, known["prediction_id"]),
        "prompt_hash": records.make_stable_id(known["prompt"]),
        "content_hash": records.make_stable_id(known["prompt"], known["chosen"]),
    }
    return _with({**row, **derived}, overrides, records.CURATED_DPO_PAIRS)


def table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The rows as an Arrow table of exactly this schema."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def day(offset_days: int = 0) -> date:
    """The builders' day, or one some days from it."""
    return DAY + timedelta(days=offset_days)


def _with(row: Mapping[str, Any], overrides: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    unknown = set(overrides) - set(schema.names)
    assert not unknown, f"no such column: {sorted(unknown)}; valid: {schema.names}"
    absent = {field.name: None for field in schema if field.nullable}
    row = {**absent, **row}
    assert set(row) == set(schema.names), f"the builder and its schema differ: {set(row) ^ set(schema.names)}"
    return {**row, **overrides}
