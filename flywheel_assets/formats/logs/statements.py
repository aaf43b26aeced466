"""Builds the events of logs, and reads what a score means.

| a score | becomes |
|---|---|
| true, 1, "up", "good", "yes", … | a thumb of 1 |
| false, 0, −1, "down", "bad", "no", … | a thumb of −1 |
| between 0 and 1 | a rating |
| another word | a comment, `name: word` |
| another number | needs its scale: refused alone, a comment within a larger record |

Judgements of models and of code are no feedback: only people's are. Where a system does not say who judged, the name of
the score must speak of people (`user`, `thumb`, `feedback`, `rating`, …).
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from flywheel_assets.conversations import (
    Message,
    Prompt,
    Tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
)
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.record import Record
from flywheel_assets.records import Signal
from flywheel_assets.wire import FeedbackCloudEvent, PredictionCloudEvent, shorten_message

_UP = frozenset({
    "up", "thumbs_up", "thumbsup", "thumb_up", "+1", "1", "like", "liked", "good", "great", "yes", "true",
    "positive", "pass", "passed", "correct", "right", "helpful", "accept", "accepted", "approve", "approved",
    "upvote", "satisfied", "happy", "👍",
})  # fmt: skip
_DOWN = frozenset({
    "down", "thumbs_down", "thumbsdown", "thumb_down", "-1", "0", "dislike", "disliked", "bad", "poor", "no",
    "false", "negative", "fail", "failed", "incorrect", "wrong", "unhelpful", "not_helpful", "reject", "rejected",
    "disapprove", "downvote", "unsatisfied", "dissatisfied", "unhappy", "👎",
})  # fmt: skip
CORRECTIONS = frozenset({
    "correction", "corrected", "corrected_output", "corrected_response", "corrected_answer", "expected_response",
    "expected_output", "expected_answer", "ideal_response", "reference_answer",
})  # fmt: skip
"""Names under which people write the answer that should have been given."""
_OF_PEOPLE = frozenset({
    "user", "users", "human", "people", "customer", "reviewer", "annotator", "annotation", "thumb", "thumbs",
    "thumbsup", "thumbsdown", "like", "likes", "liked", "vote", "votes", "upvote", "star", "stars", "rating",
    "feedback", "csat", "nps", "satisfaction", "emoji", "manual",
})  # fmt: skip
"""Words by which the name of a score says that people gave it."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_MACHINES = re.compile(r"llm|model|code|auto|judge|script|machine|system|heuristic|eval", re.IGNORECASE)
_PERSONS = re.compile(r"human|user|person|annotator|reviewer|people|manual|app$|customer|expert", re.IGNORECASE)


def check_shape(is_known: bool, shape: str, record: Record) -> None:
    """Check that a record has the shape of its format.

    Raises:
        InvalidEventError: it has not; the message lists its fields.
    """
    if not is_known:
        fields = ", ".join(sorted(str(name)[:40] for name in record.values)[:12])
        raise InvalidEventError(f"the record is not {shape}; its fields: {fields or 'none'}")


def predict(
    source: str,
    event_id: str,
    prediction_id: str,
    prompt: Prompt | None,
    output: str | Message | None,
    *,
    time: datetime | None = None,
    model_version: str | None = None,
    user_id: str | None = None,
    thread_id: str | None = None,
    tools: Tools | None = None,
) -> PredictionCloudEvent:
    """Build the event of one answer.

    Raises:
        InvalidEventError: prompt or answer are missing, or capture could not take them.
    """
    if prompt is None:
        raise InvalidEventError("no prompt is in the record; turn on the logging of inputs, or export them as well")
    if output is None:
        raise InvalidEventError("no answer is in the record: the call failed, or outputs are not logged")
    _check_prompt(prompt)
    _check_answer(output, "output")
    if tools and (problem := find_tools_problem(tools)):
        raise InvalidEventError(f"`tools`: {problem}")
    return _convert(
        PredictionCloudEvent,
        {
            "type": "flywheel.prediction",
            "specversion": "1.0",
            "id": event_id,
            "source": source,
            "time": time,
            "data": {
                "prompt": prompt,
                "output": output,
                "prediction_id": prediction_id,
                "model_version": model_version or None,
                "user_id": user_id or None,
                "thread_id": thread_id or None,
                "tools": tools or None,
            },
        },
    )


def state(
    source: str,
    event_id: str,
    prediction_id: str | None,
    signal: Signal,
    *,
    time: datetime | None = None,
    user_id: str | None = None,
    **data: Any,
) -> FeedbackCloudEvent:
    """Build the event of one thing that a person said or did; `data` are the fields of `FeedbackData`.

    Raises:
        InvalidEventError: capture could not take it.
    """
    if data.get("prompt") is not None:
        _check_prompt(data["prompt"])
    for name in ("final_text", "original_output"):
        if data.get(name) is not None:
            _check_answer(data[name], name)
    return _convert(
        FeedbackCloudEvent,
        {
            "type": "flywheel.feedback",
            "specversion": "1.0",
            "id": event_id,
            "source": source,
            "time": time,
            "data": {
                "signal": signal,
                "prediction_id": prediction_id,
                "user_id": user_id or None,
                **{name: value or None if name in _TEXTS else value for name, value in data.items()},
            },
        },
    )


_T = TypeVar("_T")
_TEXTS = ("comment", "model_version", "thread_id", "labeling_source")


def score(
    source: str,
    event_id: str,
    prediction_id: str,
    name: str | None,
    value: Any,
    *,
    is_alone: bool = True,
    comment: str | None = None,
    **fields: Any,
) -> FeedbackCloudEvent | None:
    """Build the event of one score that a person gave; None where neither a score nor a comment is there.

    Raises:
        InvalidEventError: it is a number on a scale that is not in the record, and `is_alone`.
    """
    name = name or "score"
    verdict = value
    if isinstance(value, str):
        word = value.strip().lower().replace(" ", "_").replace("-", "_") if value.strip() != "-1" else "-1"
        verdict = 1 if word in _UP else -1 if word in _DOWN else _parse_number(value)
    if isinstance(verdict, bool | int | float) and verdict in (-1, 0, 1):
        thumb = 1.0 if verdict == 1 else -1.0
        return state(source, event_id, prediction_id, Signal.THUMB, value=thumb, comment=comment, **fields)
    if isinstance(verdict, float) and 0 < verdict < 1:
        return state(source, event_id, prediction_id, Signal.RATING, value=verdict, comment=comment, **fields)
    if isinstance(verdict, int | float):
        if is_alone:
            raise InvalidEventError(
                f"the score {name[:80]!r} is {str(verdict)[:40]}, and its scale is not in the record; valid: true or "
                "false, -1, or 0 to 1; divide it by its scale before the export, or use --map"
            )
        value = str(verdict)[:40]
    said = f"{name}: {value}" if isinstance(value, str) and value.strip() else ""
    text = "\n".join(filter(None, (said, comment)))
    if not text:
        return None
    return state(source, event_id, prediction_id, Signal.COMMENT, comment=text, **fields)


def rate(value: float, lowest: float, highest: float) -> float:
    """Map a score on a scale to a rating, 0 to 1.

    Raises:
        InvalidEventError: it is not on the scale.
    """
    if not lowest <= value <= highest:
        raise InvalidEventError(f"the rating is {value:g}; valid: {lowest:g} to {highest:g}")
    return (value - lowest) / (highest - lowest)


def is_of_people(name: Any, judge: Any = None) -> bool:
    """Return whether people gave a score: the kind of judge says so, or else its name.

    A judge of an unknown kind counts by the name as well.
    """
    if isinstance(judge, str) and judge:
        if _PERSONS.search(judge):
            return True
        if _MACHINES.search(judge):
            return False
    return isinstance(name, str) and not _OF_PEOPLE.isdisjoint(word.lower() for word in _WORD.findall(name))


def read_mapping(value: Any) -> Mapping[str, Any]:
    """Return an object; an empty one where it is none."""
    return value if isinstance(value, Mapping) else {}


def list_objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none where it is no list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def read_text(value: Any) -> str | None:
    """Return a text that says something, or a whole number as one; None where it is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_prompt(prompt: Prompt) -> None:
    if isinstance(prompt, list) and (problem := find_role_problem(prompt)):
        raise InvalidEventError(f"the prompt: {problem}")


def _check_answer(answer: str | Message, field: str) -> None:
    if problem := find_answer_problem(answer):
        raise InvalidEventError(f"`{field}`: {problem}")


def _convert(kind: type[_T], fields: dict[str, Any]) -> _T:
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidEventError(shorten_message(str(error))) from None
