"""Reads prompts, answers and verdicts of other people's records, and builds events of them.

An answer is judged against a prompt, so two conversations are compared at their first different turn: what they share
is the prompt, and what follows that turn answers different contexts and is left out.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from flywheel_assets.conversations import (
    OPERATOR_ROLES,
    Message,
    Prompt,
    Role,
    Tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
)
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.messages import read_message, read_messages
from flywheel_assets.formats.record import Record
from flywheel_assets.records import Signal, make_content_id
from flywheel_assets.wire import (
    LONGEST_IDENTIFIER,
    Choice,
    FeedbackCloudEvent,
    PredictionCloudEvent,
    shorten_message,
)

UP_WORDS = frozenset(
    [
        "up",
        "good",
        "great",
        "yes",
        "true",
        "positive",
        "like",
        "liked",
        "correct",
        "right",
        "helpful",
        "accept",
        "accepted",
        "approve",
        "approved",
        "pass",
        "thumbs_up",
        "thumbsup",
        "+1",
        "1",
        "👍",
        "desirable",
    ]
)
DOWN_WORDS = frozenset(
    [
        "down",
        "bad",
        "poor",
        "no",
        "false",
        "negative",
        "dislike",
        "disliked",
        "incorrect",
        "wrong",
        "unhelpful",
        "reject",
        "rejected",
        "fail",
        "failed",
        "thumbs_down",
        "thumbsdown",
        "-1",
        "0",
        "👎",
        "undesirable",
    ]
)


def read_json(value: Any, field: str) -> Any:
    """Return a value, decoded where it is a text of JSON, as cells of tables are.

    Raises:
        InvalidEventError: it begins as a list of JSON and is none.
    """
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(f"`{field}` begins as JSON and is none: {shorten_message(str(error))}") from None


def is_messages(value: Any) -> bool:
    """Return whether a value seems to be a list of messages, or a cell that holds one as JSON."""
    if isinstance(value, str):
        return value.startswith("[{") and ('"role"' in value or '"from"' in value)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of several messages, or a cell that holds one as JSON."""
    if isinstance(value, str) and is_messages(value):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
    return isinstance(value, list) and len(value) > 1


def read_turns(value: Any, field: str) -> list[Message]:
    """Read a conversation.

    Raises:
        InvalidEventError: it is none, or has no message.
    """
    try:
        found = read_messages(read_json(value, field))
    except InvalidEventError as error:
        raise InvalidEventError(f"`{field}`: {error}") from None
    if not found:
        raise InvalidEventError(f"`{field}` has no message; valid: at least one")
    return found


def read_prompt(value: Any, field: str = "prompt") -> Prompt:
    """Read a prompt: text, or messages.

    Raises:
        InvalidEventError: it is neither, or missing.
    """
    if value is None or value == "":
        raise InvalidEventError(f"`{field}` is empty; valid: a text or messages")
    if isinstance(value, str) and not is_messages(value):
        return value
    return read_turns(value, field)


def read_answer(value: Any, field: str) -> str | Message:
    """Read an answer: text, one message, or a list of one message.

    Raises:
        InvalidEventError: it is something else, or missing.
    """
    if value is None:
        raise InvalidEventError(f"`{field}` is missing; valid: an answer as text or as one message")
    if isinstance(value, str) and not is_messages(value):
        return value
    value = read_json(value, field)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise InvalidEventError(f"`{field}` has {len(value)} messages; valid: one answer")
    try:
        return read_message(value)
    except InvalidEventError as error:
        raise InvalidEventError(f"`{field}`: {error}") from None


def read_tools(record: Record, *path: str) -> Tools | None:
    """Read the tools at a path, a list or a text of JSON; None where there are none.

    Raises:
        InvalidEventError: they are no list of objects.
    """
    value = record.get(*path)
    if value in (None, "", []):
        return None
    found = read_json(value, path[-1])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidEventError(f"`{'.'.join(path)}` is no list of tools; valid: descriptions of functions")
    return found or None


def add_system(prompt: Prompt, system: str | None) -> Prompt:
    """Return a prompt with a system message in front, where there is one."""
    if not system:
        return prompt
    return [Message(Role.SYSTEM, system), *as_messages(prompt)]


def as_messages(prompt: Prompt) -> list[Message]:
    """Return a prompt as messages."""
    return [Message(Role.USER, prompt)] if isinstance(prompt, str) else prompt


def part_last(turns: Sequence[Message], field: str) -> tuple[list[Message], Message]:
    """Part a conversation into what comes before its last answer, and that answer.

    Raises:
        InvalidEventError: it does not end with an answer, or nothing comes before it.
    """
    if turns[-1].role is not Role.ASSISTANT:
        raise InvalidEventError(f"`{field}` ends with role {turns[-1].role.value!r}; valid: an answer of 'assistant'")
    if len(turns) < 2:
        raise InvalidEventError(f"`{field}` holds one message; valid: a prompt before the answer")
    return list(turns[:-1]), turns[-1]


def part_different(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[list[Message], Message, Message]:
    """Part two conversations at their first different turn, into what they share and the two answers.

    Raises:
        InvalidEventError: they are the same, one ends where the other goes on, or people's turns differ first.
    """
    place = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), None
    )
    if place is None:
        if len(chosen) == len(rejected):
            raise InvalidEventError("chosen and rejected are the same; there is nothing to prefer")
        raise InvalidEventError("one of chosen and rejected ends where the other goes on; no two answers differ")
    one, other = chosen[place], rejected[place]
    if one.role is not Role.ASSISTANT or other.role is not Role.ASSISTANT:
        raise InvalidEventError(
            f"chosen and rejected differ first in turn {place} ({one.role.value}, {other.role.value}); valid: two "
            "answers of 'assistant' to the same turns"
        )
    return list(chosen[:place]), one, other


def compare(
    prompt: Prompt | None, chosen: Sequence[Message], rejected: Sequence[Message]
) -> tuple[Prompt, Message, Message]:
    """Return prompt, chosen and rejected answer of two conversations that hold their prompt or stand behind it.

    Raises:
        InvalidEventError: they cannot be compared, or have no prompt.
    """
    shared, one, other = part_different(chosen, rejected)
    if prompt is None:
        if not shared:
            raise InvalidEventError("chosen and rejected share no turn, and there is no prompt")
        return shared, one, other
    if not shared:
        return prompt, one, other
    given = as_messages(prompt)
    if shared[0].role is Role.USER and given[0].role in OPERATOR_ROLES:
        return [given[0], *shared], one, other
    is_whole = shared[0].role is Role.USER or shared[0].role in OPERATOR_ROLES
    return (shared if is_whole else [*given, *shared]), one, other


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
    prompt: Prompt,
    output: str | Message,
    *,
    time: datetime | None = None,
    tools: Tools | None = None,
    **data: Any,
) -> PredictionCloudEvent:
    """Build the event of one answer; `data` are other fields of `PredictionData`.

    Raises:
        InvalidEventError: capture could not take it.
    """
    check_prompt(prompt)
    check_answer(output, "output")
    check_tools(tools)
    found = {"prompt": prompt, "output": output, "prediction_id": prediction_id, "tools": tools, **data}
    event: PredictionCloudEvent = _convert(PredictionCloudEvent, "prediction", event_id, source, time, found)
    return event


def state(
    source: str,
    event_id: str,
    prediction_id: str | None,
    signal: Signal,
    *,
    time: datetime | None = None,
    **data: Any,
) -> FeedbackCloudEvent:
    """Build the event of one thing that a person said; `data` are other fields of `FeedbackData`.

    Raises:
        InvalidEventError: capture could not take it.
    """
    if data.get("prompt") is not None:
        check_prompt(data["prompt"])
    for name in ("final_text", "original_output"):
        if data.get(name) is not None:
            check_answer(data[name], name)
    check_tools(data.get("tools"))
    found = {"signal": signal, "prediction_id": prediction_id, **data}
    event: FeedbackCloudEvent = _convert(FeedbackCloudEvent, "feedback", event_id, source, time, found)
    return event


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


def identify(source: str, record: Record) -> str:
    """Return an id for a record without one: a hash of all its fields."""
    try:
        return make_content_id(source, record.values)
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError) as error:
        raise InvalidEventError(f"the record holds a value that JSON cannot: {shorten_message(str(error))}") from None


def read_verdict(value: Any) -> bool | None:
    """Return whether a verdict is good or bad; None where it says neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return True if value == 1 else False if value in (0, -1) else None
    if isinstance(value, str):
        word = value.strip().lower().replace(" ", "_")
        return True if word in UP_WORDS else False if word in DOWN_WORDS else None
    return None


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


def _convert(kind: Any, name: str, event_id: str, source: str, time: datetime | None, data: dict[str, Any]) -> Any:
    fields = {"type": f"flywheel.{name}", "specversion": "1.0", "id": event_id, "source": source, "time": time}
    try:
        return msgspec.convert({**fields, "data": data}, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidEventError(shorten_message(str(error))) from None
