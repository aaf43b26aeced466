"""Completions and responses of OpenAI, Azure and Together."""

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import openai_logs
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read

ASKED = [{"role": "user", "content": "What color is the sky?"}]
STORED = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1742855151, "model": "gpt-4o", "messages": ASKED,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "blue"}}],
    "metadata": {"user": "p1"}, "usage": {"total_tokens": 30},
}  # fmt: skip
SAID = {
    "prompt": [("user", "What color is the sky?")], "output": "blue", "prediction_id": "chatcmpl-1",
    "model_version": "gpt-4o", "user_id": "p1", "time": "2025-03-24T22:25:51",
}  # fmt: skip


def test_stored_completion() -> None:
    assert read("openai-logs", STORED) == [SAID]
    record = Record(STORED)
    openai_logs.convert(record)
    assert record.list_unread() == ["usage"]


@pytest.mark.parametrize(("asked", "answered"), [("request", "response"), ("input", "output")])
def test_request_next_to_the_response(asked: str, answered: str) -> None:
    response = {name: value for name, value in STORED.items() if name not in ("messages", "metadata")}
    record = {asked: {"messages": ASKED, "user": "p1"}, answered: response}
    assert read("openai-logs", record) == [SAID]


def test_prompt_of_text_next_to_the_response() -> None:
    completion = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": " blue"}]}
    [found] = read("openai-logs", {"prompt": "The sky is", "response": completion})
    assert (found["prompt"], found["output"]) == ("The sky is", " blue")


def test_batch_file_with_bodies() -> None:
    response = {name: value for name, value in STORED.items() if name not in ("messages", "metadata")}
    record = {
        "custom_id": "7", "request": {"body": {"messages": ASKED, "user": "p1"}},
        "response": {"status_code": 200, "body": response},
    }  # fmt: skip
    assert read("openai-logs", record) == [SAID]


def test_each_choice_is_an_answer() -> None:
    choices = [{"index": place, "message": {"role": "assistant", "content": text}} for place, text in enumerate("ab")]
    found = read("openai-logs", {**STORED, "choices": choices})
    assert [(each["prediction_id"], each["output"]) for each in found] == [("chatcmpl-1", "a"), ("chatcmpl-1/1", "b")]


def test_tool_calls_and_tools_stay() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    choices = [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}]
    [found] = read("openai-logs", {**STORED, "tools": [tool], "choices": choices})
    assert found["output"] == '{"name": "look", "arguments": {"at": "sky"}}'
    assert found["tools"] == [tool]


def test_response_with_items_and_instructions() -> None:
    record = {
        "id": "resp_1", "object": "response", "created_at": 1742855151, "model": "o3", "instructions": "Be short.",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Because."}]},
        ],
    }  # fmt: skip
    [found] = read("openai-logs", record)
    assert found["prompt"] == [("system", "Be short."), ("user", "Why?")]
    assert (found["output"], found["prediction_id"]) == ("Because.", "resp_1")
    [event] = openai_logs.convert(Record(record))
    assert event.data.output.reasoning_content == "hm"  # type: ignore[union-attr]


def test_failed_call_gives_its_reason() -> None:
    with pytest.raises(InvalidEventError, match="the call failed"):
        openai_logs.convert(Record({**STORED, "error": {"message": "rate limit"}}))
    with pytest.raises(InvalidEventError, match="no answer is in the record"):
        openai_logs.convert(Record({**STORED, "choices": [{"message": {"role": "assistant", "content": None}}]}))


def test_message_of_anthropic_with_its_request() -> None:
    request = {"model": "claude", "system": "Be brief.", "messages": [{"role": "user", "content": "q"}]}
    response = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-4",
                "content": [{"type": "text", "text": "r"}]}  # fmt: skip
    (answer,) = read("openai-logs", {"request": request, "response": response})
    assert answer["prompt"] == [("system", "Be brief."), ("user", "q")]
    assert (answer["output"], answer["prediction_id"], answer["model_version"]) == ("r", "msg_1", "claude-4")
