"""Calls that LiteLLM, Helicone and PostHog logged."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import helicone, litellm, posthog
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

ASKED = [{"role": "user", "content": "What color is the sky?"}]
RESPONSE = {"id": "chatcmpl-1", "created": 1742855151, "model": "gpt-4o", "choices": [
    {"finish_reason": "stop", "index": 0, "message": {"content": "hi", "role": "assistant", "tool_calls": None}},
]}  # fmt: skip
PAYLOAD: dict[str, Any] = {
    "id": "chatcmpl-1", "trace_id": None, "call_type": "acompletion", "startTime": "2025-01-24 09:20:46.847371",
    "model": "gpt-4o", "messages": ASKED, "response": RESPONSE, "end_user": "", "metadata": {},
}  # fmt: skip
ANSWER = {"prompt": [("user", "What color is the sky?")], "output": "hi", "model_version": "gpt-4o"}


def test_litellm_payload() -> None:
    assert read("litellm", PAYLOAD) == [{**ANSWER, "prediction_id": "chatcmpl-1", "time": "2025-01-24T09:20:46"}]


def test_litellm_payload_with_user_tools_and_seconds() -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    record = {**PAYLOAD, "startTime": 1742855150.5, "endTime": 1742855151.5, "end_user": "u1", "trace_id": "tr",
              "model_parameters": {"tools": [tool], "temperature": 0}}  # fmt: skip
    assert read("litellm", record) == [
        {**ANSWER, "prediction_id": "chatcmpl-1", "user_id": "u1", "thread_id": "tr", "tools": [tool],
         "time": "2025-03-24T22:25:51"}
    ]  # fmt: skip


def test_litellm_row_of_spend_logs() -> None:
    record = {"request_id": "chatcmpl-1", "call_type": "completion", "startTime": "2025-01-24T09:20:46+00:00",
              "model": "gpt-4o", "messages": '[{"role": "user", "content": "Hi"}]', "response": '{"choices": ['
              '{"message": {"role": "assistant", "content": "hi"}}]}', "metadata": '{"session_id": "s"}'}  # fmt: skip
    [found] = read("litellm", record)
    assert (found["prompt"], found["output"], found["thread_id"]) == ([("user", "Hi")], "hi", "s")


def test_litellm_failures_and_other_calls() -> None:
    with pytest.raises(InvalidEventError, match="the call failed: quota"):
        litellm.convert(Record({**PAYLOAD, "status": "failure", "error_str": "quota"}))
    assert read("litellm", {**PAYLOAD, "call_type": "aembedding"}) == []


REQUEST: dict[str, Any] = {
    "request_id": "r1", "response_id": "x", "request_created_at": "2025-01-24T09:20:46Z", "response_status": 200,
    "request_body": {"model": "gpt-4o", "messages": ASKED}, "response_body": RESPONSE, "request_user_id": "u1",
    "request_properties": {"Helicone-Session-Id": "s1"}, "request_model": "gpt-4o", "feedback_rating": False,
    "feedback_id": "f1", "feedback_created_at": "2025-01-24T09:21:00Z",
    "scores": {"helicone-score-feedback": 0, "faithfulness": 90}, "provider": "OPENAI",
}  # fmt: skip


def test_helicone_request_with_feedback() -> None:
    assert read("helicone", REQUEST) == [
        {**ANSWER, "prediction_id": "r1", "user_id": "u1", "thread_id": "s1", "time": "2025-01-24T09:20:46"},
        thumb("r1", -1.0, user_id="u1", time="2025-01-24T09:21:00"),
    ]


def test_helicone_request_to_anthropic() -> None:
    record = {
        **REQUEST, "feedback_rating": None, "scores": None,
        "request_body": {"system": "Be kind.", "messages": ASKED,
                         "tools": [{"name": "look", "input_schema": {"a": 1}}]},
        "response_body": {"id": "msg", "type": "message", "role": "assistant", "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "c", "name": "look", "input": {"b": 2}}]},
    }  # fmt: skip
    [found] = read("helicone", record)
    assert found["prompt"] == [("system", "Be kind."), ("user", "What color is the sky?")]
    assert found["output"] == 'Let me see.\n{"name": "look", "arguments": {"b": 2}}'
    assert found["tools"] == [{"type": "function", "function": {"name": "look", "parameters": {"a": 1}}}]


def test_helicone_schema_where_bodies_were_left_out() -> None:
    record = {**REQUEST, "request_body": {}, "response_body": {}, "llmSchema": {
        "request": {"messages": ASKED},
        "response": {"messages": [{"role": "assistant", "content": "hi"}]}}}  # fmt: skip
    assert read("helicone", record)[0]["output"] == "hi"
    left_out = {**REQUEST, "request_body": None, "response_body": None, "signed_body_url": "https://x",
                "feedback_rating": None, "scores": {}}  # fmt: skip
    with pytest.raises(InvalidEventError, match="--include-body"):
        helicone.convert(Record(left_out))


GENERATION: dict[str, Any] = {
    "uuid": "u", "event": "$ai_generation", "distinct_id": "p1", "timestamp": "2025-01-15T00:00:00.000000+00:00",
    "properties": {"$ai_input": ASKED, "$ai_output_choices": [{"role": "assistant", "content": "hi"}],
                   "$ai_trace_id": "trace1", "$ai_model": "gpt-4o"},
}  # fmt: skip


def test_posthog_generation_meets_the_feedback_of_its_trace() -> None:
    answer = {**ANSWER, "prediction_id": "trace1", "user_id": "p1", "time": "2025-01-15T00:00:00"}
    assert read("posthog", GENERATION) == [answer]
    said = {"$ai_trace_id": "trace1", "$ai_feedback_text": "bad"}
    feedback = {"event": "$ai_feedback", "distinct_id": "p1", "properties": said}
    assert read("posthog", feedback) == [
        {"signal": "comment", "prediction_id": "trace1", "comment": "bad", "user_id": "p1"}
    ]
    metric = {"$ai_trace_id": "trace1", "$ai_metric_name": "thumbs", "$ai_metric_value": "true"}
    assert read("posthog", {"event": "$ai_metric", "distinct_id": "p1", "properties": metric}) == [
        thumb("trace1", 1.0, user_id="p1")
    ]


def test_posthog_feedback_without_an_id_is_the_same_each_time() -> None:
    record = Record({"event": "$ai_feedback", "properties": {"$ai_trace_id": "t", "$ai_feedback_text": "bad"}})
    assert posthog.convert(record)[0].id == posthog.convert(record)[0].id


def test_posthog_inner_generation_and_whole_trace() -> None:
    inner = {**GENERATION["properties"], "$ai_parent_id": "span", "$ai_span_id": "s1"}
    assert read("posthog", {**GENERATION, "properties": inner})[0]["prediction_id"] == "s1"
    state = {"$ai_trace_id": "trace1", "$ai_input_state": {"messages": ASKED}, "$ai_output_state": {"output": "hi"}}
    whole = {**GENERATION, "event": "$ai_trace", "properties": state}
    assert read("posthog", whole)[0]["prediction_id"] == "trace1"


def test_posthog_what_models_and_code_say() -> None:
    metric = {"$ai_trace_id": "trace1", "$ai_metric_name": "latency_ok", "$ai_metric_value": "1"}
    assert read("posthog", {"event": "$ai_metric", "properties": metric}) == []
    assert read("posthog", {"event": "$ai_evaluation", "properties": {"$ai_trace_id": "trace1"}}) == []
    failed = {**GENERATION["properties"], "$ai_output_choices": [], "$ai_is_error": True, "$ai_error": "429"}
    with pytest.raises(InvalidEventError, match="the call failed: 429"):
        posthog.convert(Record({**GENERATION, "properties": failed}))


def test_posthog_columns_of_the_uis_csv() -> None:
    flat = {
        "uuid": "1",
        "event": "$ai_generation",
        "distinct_id": "p",
        "timestamp": "2025-01-15T00:00:00Z",
        "properties.$ai_trace_id": "t",
        "properties.$ai_input": '[{"role": "user", "content": "q"}]',
        "properties.$ai_output_choices": '[{"role": "assistant", "content": "r"}]',
        "properties.$ai_parent_id": "",
    }
    (answer,) = read("posthog", flat)
    assert (answer["prompt"], answer["output"], answer["prediction_id"]) == ([("user", "q")], "r", "t")


def test_posthog_page_views_in_an_export_of_all_events_say_nothing() -> None:
    """They had been refused, so that a good export ended with exit code 3."""
    view = {
        "uuid": "2",
        "event": "$pageview",
        "distinct_id": "p",
        "properties": {},
        "timestamp": "2025-01-15T00:00:00Z",
    }
    assert posthog.convert(Record(view)) == []
