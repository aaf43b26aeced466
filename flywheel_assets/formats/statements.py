"""Builds events of what people stated, and reads what thumbs, ratings, scores and words of judgement mean.

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
from collections.abc import Sequence
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
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.record import Record
from flywheel_assets.records import Signal, make_content_id
from flywheel_assets.wire import (
    LONGEST_IDENTIFIER,
    Choice,
    FeedbackCloudEvent,
    PredictionCloudEvent,
    shorten_message,
)

_UP = frozenset({
    "up", "thumbs_up", "thumbsup", "thumb_up", "+1", "1", "like", "liked", "good", "great", "yes", "true",
    "positive", "pass", "passed", "correct", "right", "helpful", "accept", "accepted", "approve", "approved",
    "upvote", "satisfied", "happy", "desirable", "👍",
})  # fmt: skip
_DOWN = frozenset({
    "down", "thumbs_down", "thumbsdown", "thumb_down", "-1", "0", "dislike", "disliked", "bad", "poor", "no",
    "false", "negative", "fail", "failed", "incorrect", "wrong", "unhelpful", "not_helpful", "reject", "rejected",
    "disapprove", "downvote", "unsatisfied", "dissatisfied", "unhappy", "undesirable", "👎",
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


_TEXTS = ("comment", "model_version", "thread_id", "labeling_source")
_T = TypeVar("_T")


def choose(
    prompt: Prompt,
    chosen: str | Message,
    rejected: str | Message,
    *,
    id: str | None = None,
    user_id: str | None = None,
    thread_id: str | None = None,
    model_version: str | None = None,
    do_not_train: bool = False,
    occurred_at: datetime | None = None,
    tools: Tools | None = None,
) -> Choice:
    """Build a choice.

    Raises:
        InvalidEventError: capture could not take it.
    """
    check_prompt(prompt)
    check_answer(chosen, "chosen")
    check_answer(rejected, "rejected")
    check_tools(tools)
    for name, given in (("id", id), ("user_id", user_id), ("thread_id", thread_id), ("model_version", model_version)):
        check_id(given, name)
    return Choice(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        id=id,
        user_id=user_id,
        thread_id=thread_id,
        model_version=model_version,
        do_not_train=do_not_train,
        occurred_at=occurred_at,
        tools=tools,
    )


def choose_best(
    prompt: Prompt, answers: Sequence[tuple[float, Any]], id: str | None = None, **fields: Any
) -> list[Choice]:
    """Build the choices of the best of several scored answers over each answer with a lower score.

    Answers with the same score are no choice.

    Raises:
        InvalidEventError: capture could not take one of them.
    """
    if not answers:
        return []
    best, chosen = max(answers, key=lambda each: each[0])
    return [
        choose(prompt, chosen, other, id=None if id is None else f"{id}/{place}", **fields)
        for place, (score, other) in enumerate(answers)
        if score < best and other != chosen
    ]


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
    **data: Any,
) -> PredictionCloudEvent:
    """Build the event of one answer; `data` are other fields of `PredictionData`.

    Raises:
        InvalidEventError: prompt or answer are missing, or capture could not take them.
    """
    if prompt is None:
        raise InvalidEventError("no prompt is in the record; turn on the logging of inputs, or export them as well")
    if output is None:
        raise InvalidEventError("no answer is in the record: the call failed, or outputs are not logged")
    check_prompt(prompt)
    check_answer(output, "output")
    check_tools(tools)
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
                **data,
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
        check_prompt(data["prompt"])
    for name in ("final_text", "original_output"):
        if data.get(name) is not None:
            check_answer(data[name], name)
    check_tools(data.get("tools"))
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


def judge(
    source: str, record: Record, prompt: Prompt, output: str | Message, is_good: bool, **data: Any
) -> list[Event]:
    """Build the events of an answer that was found good or bad: the answer, and a thumb.

    Raises:
        InvalidEventError: capture could not take them.
    """
    event_id = data.pop("id", None) or identify(source, record)
    return [
        predict(source, f"{event_id}/answer", event_id, prompt, output, **data),
        state(source, f"{event_id}/thumb", event_id, Signal.THUMB, value=1.0 if is_good else -1.0),
    ]


def demonstrate(source: str, record: Record, prompt: Prompt, answer: str | Message, **data: Any) -> list[Event]:
    """Build the event of a good answer to a prompt that no model answered.

    Raises:
        InvalidEventError: capture could not take it.
    """
    event_id = data.pop("id", None) or identify(source, record)
    return [state(source, event_id, None, Signal.DEMONSTRATION, prompt=prompt, final_text=answer, **data)]


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
    verdict, number = read_verdict(value), read_number(value)
    if verdict is not None:
        thumb = 1.0 if verdict else -1.0
        return state(source, event_id, prediction_id, Signal.THUMB, value=thumb, comment=comment, **fields)
    if number is not None and 0 < number < 1:
        return state(source, event_id, prediction_id, Signal.RATING, value=number, comment=comment, **fields)
    if number is not None:
        if is_alone:
            raise InvalidEventError(
                f"the score {name[:80]!r} is {str(value)[:40]}, and its scale is not in the record; valid: true or "
                "false, -1, or 0 to 1; divide it by its scale before the export, or use --map"
            )
        value = str(value)[:40]
    said = f"{name}: {value}" if isinstance(value, str) and value.strip() else ""
    text = "\n".join(filter(None, (said, comment)))
    if not text:
        return None
    return state(source, event_id, prediction_id, Signal.COMMENT, comment=text, **fields)


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


def identify(source: str, record: Record) -> str:
    """Return an id for a record without one: a hash of all its fields."""
    try:
        return make_content_id(source, record.values)
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError) as error:
        raise InvalidEventError(f"the record holds a value that JSON cannot: {shorten_message(str(error))}") from None


def read_verdict(value: Any) -> bool | None:
    """Return whether a verdict, a word or 1, 0 or -1, is good or bad; None where it says neither."""
    if isinstance(value, str):
        word = value.strip().lower().replace(" ", "_")
        word = word if word in _DOWN else word.replace("-", "_")
        if word in _UP or word in _DOWN:
            return word in _UP
    if isinstance(value, bool):
        return value
    number = read_number(value)
    return number == 1 if number in (-1, 0, 1) else None


def read_number(value: Any) -> float | None:
    """Return a finite number, also from a text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def rate(value: float, lowest: float, highest: float, field: str) -> float:
    """Map a score on a scale to a rating: (value − lowest) / (highest − lowest).

    Raises:
        InvalidEventError: it is not on the scale.
    """
    if not lowest <= value <= highest:
        raise InvalidEventError(
            f"`{field}` is {value:g}; valid: {lowest:g} to {highest:g}; say another scale with "
            f"--map rating=FIELD --map rating_scale=0-10"
        )
    return (value - lowest) / (highest - lowest)


def check_prompt(prompt: Prompt) -> None:
    """Check a prompt.

    Raises:
        InvalidEventError: no chat model could answer it.
    """
    if not isinstance(prompt, str) and (problem := find_role_problem(prompt)):
        raise InvalidEventError(f"the prompt: {problem}")


def check_answer(answer: str | Message, field: str) -> None:
    """Check an answer.

    Raises:
        InvalidEventError: it is none of an assistant.
    """
    if problem := find_answer_problem(answer):
        raise InvalidEventError(f"`{field}`: {problem}")


def check_tools(tools: Tools | None) -> None:
    """Check tools.

    Raises:
        InvalidEventError: a chat template could not list them.
    """
    if tools and (problem := find_tools_problem(tools)):
        raise InvalidEventError(f"`tools`: {problem}")


def check_id(given: str | None, field: str) -> None:
    """Check the length of an id.

    Raises:
        InvalidEventError: it is empty or too long.
    """
    if given is not None and not 1 <= len(given) <= LONGEST_IDENTIFIER:
        raise InvalidEventError(f"`{field}` has {len(given)} characters; valid: 1 to {LONGEST_IDENTIFIER}")


def _convert(kind: type[_T], fields: dict[str, Any]) -> _T:
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidEventError(shorten_message(str(error))) from None
