"""Rows for OpenAI's fine-tuning, checked against the types of its own package where that is installed."""

import json
from typing import Any

import pytest

from flywheel_assets.conversations import Message, Role
from flywheel_assets.formats.messages import read_messages
from flywheel_assets.formats.writing.examples import Example, Gap
from flywheel_assets.formats.writing.openai import Written, write_chat, write_preference
from flywheel_assets_tests.formats.writing import samples


def written(result: Written | Gap) -> dict[str, Any]:
    assert isinstance(result, Written), result
    return result.row


def test_a_text_becomes_a_message_of_the_user() -> None:
    assert written(write_preference(samples.TEXT_PAIR)) == {
        "input": {"messages": [{"role": "user", "content": "Why?"}], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "Because of the rain."}],
        "non_preferred_output": [{"role": "assistant", "content": "I do not know."}],
    }


def test_calls_get_ids_and_arguments_become_texts() -> None:
    row = written(write_preference(samples.RESULT_PAIR))
    asked = row["input"]["messages"]
    function = {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert asked[2] == {"role": "assistant", "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}
    assert asked[3] == {"role": "tool", "content": "31 degrees", "tool_call_id": "call_0"}
    assert row["input"]["tools"] == samples.TOOLS


@pytest.mark.parametrize(
    ("example", "gap"),
    [
        (samples.ONLY_REASONED, Gap.SAME_ANSWERS),
        (Example([*samples.asks("Why?"), samples.says("Well,")], samples.says("a"), samples.says("b")),
         Gap.LAST_MESSAGE_IS_AN_ANSWER),
        (Example("p", samples.says("a"), samples.says("b"), [{"type": "web_search"}]), Gap.TOOL),
        (Example([*samples.asks("Why?"), Message(Role.TOOL, "31")], samples.says("a"), samples.says("b")),
         Gap.TOOL_RESULT_WITHOUT_CALL),
        (Example("p", samples.says([{"type": "image_url"}]), samples.says("b")), Gap.CONTENT_PART),
        (Example("p", samples.says("a"), samples.says("")), Gap.EMPTY_ANSWER),
    ],
)  # fmt: skip
def test_rows_that_the_format_cannot_hold_have_a_reason(example: Example, gap: Gap) -> None:
    assert write_preference(example) is gap


def test_reasoning_is_left_out_and_counted() -> None:
    result = write_preference(samples.REASONED)
    assert isinstance(result, Written)
    assert result.has_lost_reasoning
    assert result.row["preferred_output"] == [{"role": "assistant", "content": "Rain."}]
    assert not write_preference(samples.CHAT_PAIR).has_lost_reasoning


@pytest.mark.long
@pytest.mark.parametrize("name", ["TEXT_PAIR", "CHAT_PAIR", "CALL_PAIR", "RESULT_PAIR", "REASONED", "SHOWN"])
def test_messages_are_those_of_the_api(name: str) -> None:
    """`openai` describes its API in types; pydantic checks them."""
    params = pytest.importorskip("openai.types.chat", reason="pip install openai")
    from pydantic import TypeAdapter

    row = written(write_preference(getattr(samples, name)))
    messages = TypeAdapter(list[params.ChatCompletionMessageParam])
    for each in (row["input"]["messages"], row["preferred_output"], row["non_preferred_output"]):
        assert not [_ for _ in each if set(_) - _FIELDS]
        messages.validate_python(each)
    TypeAdapter(list[params.ChatCompletionFunctionToolParam]).validate_python(row["input"]["tools"])


_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id"}


@pytest.mark.parametrize("name", ["ACCEPTED", "ADDED"])
def test_a_right_answer_alone_is_a_chat(name: str) -> None:
    example = getattr(samples, name)
    row = json.loads(json.dumps(written(write_chat(example))))
    assert row.get("tools") == example.tools
    last = read_messages(row["messages"])[-1]
    assert (last.role, last.content) == (Role.ASSISTANT, example.chosen.content)
    assert [call.function for call in last.tool_calls or ()] == [
        call.function for call in example.chosen.tool_calls or ()
    ]
