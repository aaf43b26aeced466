"""Reads prompts and answers of other people's records, and compares conversations.

An answer is judged against a prompt, so two conversations are compared at their first different turn: what they share
is the prompt, and what follows that turn answers different contexts and is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flywheel_assets.conversations import (
    OPERATOR_ROLES,
    Message,
    Prompt,
    Role,
    Tools,
)
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.messages import read_message, read_messages
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import (
    shorten_message,
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
