"""Runs, feedback and examples of LangSmith."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import langsmith
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

RUN: dict[str, Any] = {
    "id": "0b2a", "name": "ChatOpenAI", "run_type": "llm", "start_time": "2024-05-01T00:00:00.000000",
    "inputs": {"messages": [[{"type": "human", "data": {"content": "hi"}}]]},
    "outputs": {"generations": [[{"text": "hello"}]]}, "feedback_stats": {"user_score": {"n": 1, "avg": 0}},
    "session_id": "s",
}  # fmt: skip
ANSWER = {"prompt": [("user", "hi")], "output": "hello", "prediction_id": "0b2a", "time": "2024-05-01T00:00:00"}


def test_run_with_averages() -> None:
    assert read("langsmith", RUN) == [ANSWER, thumb("0b2a", -1.0, time="2024-05-01T00:00:00")]


def test_averages_of_evaluators_are_no_feedback() -> None:
    assert read("langsmith", {**RUN, "feedback_stats": {"hallucination": {"n": 1, "avg": 1}}}) == [ANSWER]


def test_serialized_messages_with_calls_of_tools() -> None:
    message = {
        "lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"],
        "kwargs": {"content": "", "tool_calls": [{"id": "c1", "name": "look", "args": {"at": "sky"}}]},
    }  # fmt: skip
    human = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
             "kwargs": {"content": "hi"}}  # fmt: skip
    [found] = read("langsmith", {
        **RUN, "feedback_stats": None, "inputs": {"messages": [[human]]},
        "outputs": {"generations": [[{"text": "", "message": message}]]},
    })  # fmt: skip
    assert found["output"] == '{"name": "look", "arguments": {"at": "sky"}}'
    assert found["prompt"] == [("user", "hi")]


def test_openai_spelling_with_metadata() -> None:
    record = {
        **RUN, "feedback_stats": None, "inputs": {"messages": [{"role": "user", "content": "hi"}], "model": "gpt-4o"},
        "outputs": {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
        "extra": {"metadata": {"ls_model_name": "gpt-4o", "thread_id": "th", "user_id": "u"}},
    }  # fmt: skip
    [found] = read("langsmith", record)
    assert (found["output"], found["model_version"], found["user_id"], found["thread_id"]) == (
        "hello", "gpt-4o", "u", "th",
    )  # fmt: skip


def test_agents_state_ends_with_the_answer() -> None:
    """LangGraph's outputs hold the whole conversation."""
    said = [{"type": "human", "content": "hi"}, {"type": "ai", "content": "", "tool_calls": [{"id": "1", "name": "f"}]},
            {"type": "tool", "content": "7", "tool_call_id": "1"}, {"type": "ai", "content": "It is 7."}]  # fmt: skip
    record = {**RUN, "run_type": "chain", "feedback_stats": {}, "inputs": {"messages": said[:1]},
              "outputs": {"messages": said}}  # fmt: skip
    [found] = read("langsmith", record)
    assert [role for role, _ in found["prompt"]] == ["user", "assistant", "tool"]
    assert found["output"] == "It is 7."


def test_inner_chains_and_tools_say_nothing() -> None:
    assert read("langsmith", {**RUN, "run_type": "chain", "parent_run_id": "p", "feedback_stats": None}) == []
    assert read("langsmith", {**RUN, "run_type": "tool", "feedback_stats": None}) == []


FEEDBACK: dict[str, Any] = {
    "id": "f1", "run_id": "0b2a", "key": "user_score", "score": 1, "comment": "nice", "value": None,
    "created_at": "2024-05-01T00:01:00+00:00", "feedback_source": {"type": "app", "user_id": "ann"},
}  # fmt: skip


def test_feedback_alone_and_within_its_run() -> None:
    said = thumb("0b2a", 1.0, comment="nice", user_id="ann", time="2024-05-01T00:01:00")
    assert read("langsmith", FEEDBACK) == [said]
    assert read("langsmith", {**RUN, "feedback": [FEEDBACK]}) == [ANSWER, said]
    assert read("langsmith", {**FEEDBACK, "feedback_source": {"type": "model"}}) == []


def test_a_correction_is_an_edit() -> None:
    edit, remark = read("langsmith", {**FEEDBACK, "score": None, "correction": {"output": "hello there"}})
    assert (edit["signal"], edit["final_text"]) == ("edit", "hello there")
    assert (remark["signal"], remark["comment"]) == ("comment", "nice")


def test_an_example_is_a_demonstration() -> None:
    record = {"id": "e", "dataset_id": "d", "inputs": {"question": "2+2?"}, "outputs": {"answer": "4"},
              "created_at": "2024-05-01T00:01:00+00:00"}  # fmt: skip
    [found] = read("langsmith", record)
    assert (found["signal"], found["prompt"], found["final_text"]) == ("demonstration", "2+2?", "4")


def test_failed_run_gives_its_reason() -> None:
    with pytest.raises(InvalidEventError, match="the run failed: timeout"):
        langsmith.convert(Record({**RUN, "outputs": None, "error": "timeout", "feedback_stats": None}))


def test_an_example_of_a_downloaded_data_set_has_no_ids() -> None:
    """The download as JSON lines holds inputs, outputs and metadata only, and had no format."""
    (row,) = read("langsmith", {"inputs": {"question": "2+2?"}, "outputs": {"answer": "4"}, "metadata": {"split": "a"}})
    assert (row["signal"], row["prompt"], row["final_text"]) == ("demonstration", "2+2?", "4")
