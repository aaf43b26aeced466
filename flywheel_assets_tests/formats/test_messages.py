"""Messages in the spellings of other systems."""

from typing import Any

import pytest

from flywheel_assets.conversations import Message, Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.messages import is_message, read_message, read_messages

CALL = {"role": "assistant", "tool_calls": [{"id": "c", "name": "look", "arguments": {"at": "sky"}}]}


@pytest.mark.parametrize(
    ("spelling", "role", "content"),
    [
        ({"role": "user", "content": "hi"}, Role.USER, "hi"),
        ({"from": "human", "value": "hi"}, Role.USER, "hi"),
        ({"type": "human", "data": {"content": "hi"}}, Role.USER, "hi"),
        ({"type": "ai", "content": "hi"}, Role.ASSISTANT, "hi"),
        ({"lc": 1, "id": ["langchain", "HumanMessage"], "kwargs": {"content": "hi"}}, Role.USER, "hi"),
        ({"role": "user", "parts": [{"type": "text", "content": "hi"}]}, Role.USER, "hi"),
        ({"role": "model", "parts": [{"text": "hi"}]}, Role.ASSISTANT, "hi"),
        ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}, Role.USER, "hi"),
        ({"type": "function_call_output", "call_id": "c", "output": {"n": 1}}, Role.TOOL, '{"n":1}'),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "hi"}]}, Role.TOOL, "hi"),
        ({"role": "assistant", "content": {"a": 1}}, Role.ASSISTANT, '{"a":1}'),
        ({"role": "user", "content": ["hi"]}, Role.USER, "hi"),
    ],
)
def test_spellings(spelling: dict[str, Any], role: Role, content: str) -> None:
    assert is_message(spelling)
    message = read_message(spelling)
    assert (message.role, message.content) == (role, content)


@pytest.mark.parametrize(
    "spelling",
    [
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": '{"at": "sky"}'}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "look", "input": {"at": "sky"}}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "look", "arguments": {"at": "sky"}}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"at": "sky"}'},
        {"type": "ai", "data": {"content": None, "tool_calls": [{"id": "c", "name": "look", "args": {"at": "sky"}}]}},
    ],
)
def test_calls_of_tools(spelling: dict[str, Any]) -> None:
    assert read_message(spelling) == read_message(CALL)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning(field: str) -> None:
    spelt = {"role": "assistant", "content": "So.", field: "hm"}
    assert read_message(spelt) == Message(Role.ASSISTANT, "So.", reasoning_content="hm")
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "So."}]
    assert read_message({"role": "assistant", "content": blocks}) == read_message(spelt)


def test_a_question_with_an_empty_call_id_stays_a_question() -> None:
    """It was taken for the result of a tool."""
    assert read_message({"role": "user", "content": "hi", "tool_call_id": None}).role is Role.USER


@pytest.mark.parametrize("value", ["hi", [1], [{"role": "bard", "content": "hi"}], [{"role": "user", "content": 7}]])
def test_what_is_no_message_gives_a_reason(value: Any) -> None:
    with pytest.raises(InvalidEventError):
        read_messages(value)
