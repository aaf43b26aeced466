"""Turns conversations and answers, as products hold them, into the JSON values that capture reads.

A prompt is text, or messages; an answer is text, or one assistant message. A message is a mapping, or an object with
`model_dump` (those of the OpenAI package and of pydantic are). Content may be text, null, or parts. Kept are `role`,
`content`, `name`, `tool_calls`, `tool_call_id` and `reasoning_content`, and `function_call`, the older form of a call;
capture stores no other field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Union


class Dumpable(Protocol):
    """Describes an object that gives its fields as a dictionary."""

    def model_dump(self) -> dict[str, Any]:
        """Return the fields."""


Message = Union[Mapping[str, Any], Dumpable]
"""One turn of a conversation, `{"role": …, "content": …}` and what agents need."""
Prompt = Union[str, Sequence[Message]]
Text = Union[str, Message]
"""Of a model or a person: text, or one assistant message."""
Tools = Sequence[Union[Mapping[str, Any], Dumpable]]
"""The functions that the model could call, as JSON schemas, in the form that the model's API takes."""

_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "function_call")


def dump_prompt(prompt: Prompt) -> Any:
    """Return a prompt as JSON values: a copy, because a conversation goes on after it was given."""
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return prompt  # capture refuses a value that is no prompt
    return [_dump_message(message) for message in prompt]


def dump_text(text: Text) -> Any:
    """Return an answer as JSON values: its text, or its message where the text does not say everything."""
    if isinstance(text, str):
        return text
    message = _dump_message(text)
    if not isinstance(message, dict):
        return message
    message.setdefault("role", "assistant")
    if isinstance(message.get("content"), str) and set(message) == {"role", "content"}:
        return message["content"]
    return message


def dump_tools(tools: Tools | None) -> Any:
    """Return tools as JSON values; None where there are none."""
    return _dump(tools) if tools else None


def rewrite(answer: Any, text: Any) -> Any:
    """Return a dumped answer with another text: a person who edits a message leaves its tool calls as they are."""
    if isinstance(answer, dict) and isinstance(text, str):
        return {**answer, "content": text}
    return text


def is_same(answer: Any, other: Any) -> bool:
    """Return whether two dumped answers say the same to a person; reasoning does not count."""
    return bool(answer == other or _read_shown(answer) == _read_shown(other))


def count_characters(value: Any) -> int:
    """Count roughly how much text a JSON value holds."""
    if isinstance(value, str):
        return len(value)
    # A `dict` is no faster to read than another mapping, and a hundred times as fast to recognise.
    if isinstance(value, (dict, Mapping)):
        return sum(map(count_characters, value.values())) + 10 * len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(count_characters, value))
    return 8


def _dump_message(message: Any) -> Any:
    if not isinstance(message, dict):
        message = _dump(message)
        if not isinstance(message, dict):
            return message
    return {name: _dump(message[name]) for name in _FIELDS if message.get(name) is not None}


def _dump(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, (dict, Mapping)):
        return {str(name): _dump(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dump(each) for each in value]
    return value


def _read_shown(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return answer, None
    content = answer.get("content", "")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return content, answer.get("tool_calls")
