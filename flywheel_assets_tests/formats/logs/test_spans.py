"""Spans, in OTLP's JSON and as Phoenix exports them."""

import json
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import otlp
from flywheel_assets.formats.logs.spans import convert_span, read_spans
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

TRACE, ROOT, INNER = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "aaa19b7ec3c1b175"
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "Summarize"}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "Revenue grew"}], "finish_reason": "stop"}]
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.input.messages": json.dumps(ASKED),
    "gen_ai.output.messages": json.dumps(ANSWERED),
}
ANSWER = {"prompt": [("user", "Summarize")], "output": "Revenue grew", "prediction_id": TRACE,
          "time": "2018-12-13T14:51:01"}  # fmt: skip


def make_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [make_value(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": make_attributes(value)}}
    return {"stringValue": value}


def make_attributes(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": make_value(value)} for key, value in attributes.items()]


def make_span(attributes: dict[str, Any], span_id: str = ROOT, **more: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE, "spanId": span_id, "name": "chat m", "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000", "attributes": make_attributes(attributes), **more,
    }  # fmt: skip


def make_event(name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "timeUnixNano": "1544712662000000000", "attributes": make_attributes(attributes)}


def make_request(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "x"},
                                                                              "spans": list(spans)}]}]}  # fmt: skip


def test_span_with_an_evaluation() -> None:
    said = {"gen_ai.evaluation.name": "thumb", "gen_ai.evaluation.score.value": 1.0}
    span = make_span(CHAT, events=[make_event("gen_ai.evaluation.result", said)])
    assert read("otlp", make_request(span)) == [ANSWER, thumb(TRACE, 1.0, time="2018-12-13T14:51:02")]


@pytest.mark.parametrize(
    ("said", "signal"),
    [
        ({"gen_ai.evaluation.name": "Relevance", "gen_ai.evaluation.score.value": 1.0}, None),
        ({"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.score.label": "positive"}, "thumb"),
        ({"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.score.value": 0.7}, "rating"),
        ({"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.score.value": 1.0,
          "gen_ai.evaluation.evaluator.model": "gpt-4o"}, None),
        ({"gen_ai.evaluation.name": "Relevance", "gen_ai.evaluation.source": "HUMAN",
          "gen_ai.evaluation.score.value": 1}, "thumb"),
        ({"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.explanation": "rude"}, "comment"),
        ({"gen_ai.evaluation.name": "Relevance", "gen_ai.evaluation.source": "human_evaluator",
          "gen_ai.evaluation.score.value": 1}, "thumb"),
        ({"gen_ai.evaluation.name": "likelihood", "gen_ai.evaluation.score.value": 1.0}, None),
        ({"gen_ai.evaluation.name": "userThumbs", "gen_ai.evaluation.score.value": 1.0}, "thumb"),
        ({"gen_ai.evaluation.name": "stars", "gen_ai.evaluation.score.value": 4}, "comment"),
    ],
)  # fmt: skip
def test_only_people_give_feedback(said: dict[str, Any], signal: str | None) -> None:
    span = make_span(CHAT, events=[make_event("gen_ai.evaluation.result", said)])
    assert [each["signal"] for each in read("otlp", make_request(span))[1:]] == ([signal] if signal else [])


def test_one_trace_in_one_request_has_one_answer() -> None:
    """The last call that lies in no other one answers the trace; the call before it has an id of its own."""
    later = {"endTimeUnixNano": "1544712669000000000"}
    request = make_request(
        make_span(CHAT, INNER, parentSpanId=ROOT),
        make_span(CHAT, "bbb", parentSpanId=ROOT, **later),
        make_span({"http.route": "/ask"}),
    )
    assert [each["prediction_id"] for each in read("otlp", request)] == [f"{TRACE}/{INNER}", TRACE]


def test_a_call_without_its_root_has_its_own_id() -> None:
    [found] = read("otlp", make_request(make_span(CHAT, INNER, parentSpanId=ROOT)))
    assert found["prediction_id"] == f"{TRACE}/{INNER}"


def test_a_span_read_alone_has_the_id_that_a_link_of_a_later_span_names() -> None:
    """Incident: a root had the trace's id here, and a verdict that linked to it met nothing."""
    request = make_request(make_span(CHAT, INNER, parentSpanId=ROOT), make_span(CHAT))
    found = [event for span in read_spans(request) for event in convert_span("otlp", span)]
    assert [event.data.prediction_id for event in found] == [f"{TRACE}/{INNER}", f"{TRACE}/{ROOT}"]  # type: ignore[union-attr]


RESPONSE = "chatcmpl-BkXw3pQ7TzY1"


@pytest.mark.parametrize(("given", "expected"), [(RESPONSE, RESPONSE), ("chatcmpl-7", TRACE)])
def test_an_answer_has_its_providers_id_where_that_is_unique(given: str, expected: str) -> None:
    said = {"gen_ai.evaluation.name": "thumb", "gen_ai.evaluation.score.value": 1.0, "gen_ai.response.id": given}
    named = {**CHAT, "gen_ai.response.id": given}
    request = make_request(make_span(named, events=[make_event("gen_ai.evaluation.result", said)]))
    assert {each["prediction_id"] for each in read("otlp", request)} == {expected}


def test_system_instructions_tools_and_reasoning() -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    answered = [{"role": "assistant", "parts": [
        {"type": "reasoning", "content": "hm"}, {"type": "tool_call", "id": "c", "name": "look", "arguments": {"a": 1}},
    ]}]  # fmt: skip
    attributes = {
        **CHAT, "gen_ai.output.messages": json.dumps(answered), "gen_ai.conversation.id": "c1", "user.id": "u1",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be short."}]),
        "gen_ai.tool.definitions": json.dumps([tool]), "gen_ai.response.model": "m-1",
    }  # fmt: skip
    request = make_request(make_span(attributes))
    [found] = read("otlp", request)
    assert found["prompt"] == [("system", "Be short."), ("user", "Summarize")]
    assert found["output"] == '{"name": "look", "arguments": {"a": 1}}'
    assert found["tools"] == [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    assert (found["user_id"], found["thread_id"], found["model_version"]) == ("u1", "c1", "m-1")
    [event] = otlp.convert(Record(request))
    assert event.data.output.reasoning_content == "hm"  # type: ignore[union-attr]


def test_messages_as_structured_attributes() -> None:
    attributes = {**CHAT, "gen_ai.input.messages": ASKED, "gen_ai.output.messages": ANSWERED}
    assert read("otlp", make_request(make_span(attributes))) == [ANSWER]


def test_one_element_of_a_request() -> None:
    [element] = make_request(make_span(CHAT))["resourceSpans"]
    assert read("otlp", element) == [ANSWER]


def test_content_on_an_event() -> None:
    details = make_event("gen_ai.client.inference.operation.details", CHAT)
    assert read("otlp", make_request(make_span({"gen_ai.operation.name": "chat"}, events=[details]))) == [ANSWER]


def test_older_events_one_per_message() -> None:
    events = [
        make_event("gen_ai.system.message", {"content": "Be short."}),
        make_event("gen_ai.user.message", {"content": "Summarize"}),
        make_event("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": "Revenue grew"}}),
    ]
    [found] = read("otlp", make_request(make_span({"gen_ai.operation.name": "chat"}, events=events)))
    assert found["prompt"] == [("system", "Be short."), ("user", "Summarize")]
    assert found["output"] == "Revenue grew"


def test_other_vendors_spellings() -> None:
    listed = [{"event.name": "gen_ai.user.message", "role": "user", "content": "Summarize"},
              {"event.name": "gen_ai.choice", "message": {"role": "assistant", "content": "Revenue grew"}}]  # fmt: skip
    blocks = [make_event("gen_ai.user.message", {"content": '[{"text": "Summarize"}]'}),
              make_event("gen_ai.choice", {"message": '[{"text": "Revenue grew"}]'})]  # fmt: skip
    google = {"config": {"system_instruction": ""}, "contents": [{"role": "user", "parts": [{"text": "Summarize"}]}]}
    spans = [
        make_span({"gen_ai.operation.name": "chat", "events": json.dumps(listed)}),
        make_span({"gen_ai.operation.name": "chat"}, events=blocks),
        make_span({"langfuse.observation.type": "generation", "langfuse.observation.output": "Revenue grew",
                   "langfuse.observation.input": '[{"role": "user", "content": "Summarize"}]'}),
        make_span({"mlflow.spanType": '"CHAT_MODEL"', "mlflow.spanOutputs": '"Revenue grew"',
                   "mlflow.spanInputs": '{"messages": [{"role": "user", "content": "Summarize"}]}'}),
        make_span({"ai.prompt.messages": '[{"role": "user", "content": [{"type": "text", "text": "Summarize"}]}]',
                   "ai.response.text": "Revenue grew"}),
        make_span({"gen_ai.operation.name": "call_llm", "gcp.vertex.agent.llm_request": json.dumps(google),
                   "gcp.vertex.agent.llm_response": json.dumps({"content": {
                       "role": "model", "parts": [{"text": "Revenue grew"}]}})}),
    ]  # fmt: skip
    for span in spans:
        assert read("otlp", make_request(span)) == [ANSWER]


def test_numbered_attributes_of_openllmetry() -> None:
    attributes = {
        "llm.request.type": "chat", "gen_ai.request.model": "m",
        "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "Be short.",
        "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "Summarize",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.tool_calls.0.name": "look",
        "gen_ai.completion.0.tool_calls.0.arguments": '{"a": 1}', "gen_ai.completion.0.tool_calls.0.id": "c",
        "llm.request.functions.0.name": "look", "llm.request.functions.0.parameters": '{"type": "object"}',
    }  # fmt: skip
    [found] = read("otlp", make_request(make_span(attributes)))
    assert found["prompt"] == [("system", "Be short."), ("user", "Summarize")]
    assert found["output"] == '{"name": "look", "arguments": {"a": 1}}'
    assert found["tools"][0]["function"]["name"] == "look"


OPENINFERENCE = {
    "openinference.span.kind": "LLM", "llm.model_name": "m", "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.contents.0.message_content.type": "text",
    "llm.input_messages.0.message.contents.0.message_content.text": "Summarize",
    "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "Revenue grew",
    "annotations.0.annotation.name": "helpfulness", "annotations.0.annotation.label": "good",
    "annotations.0.annotation.annotator_kind": "HUMAN", "annotations.0.annotation.explanation": "short",
    "annotations.1.annotation.name": "helpfulness", "annotations.1.annotation.score": 0,
    "annotations.1.annotation.annotator_kind": "LLM",
}  # fmt: skip


def test_openinference_over_otlp() -> None:
    said = thumb(TRACE, 1.0, comment="short", time="2018-12-13T14:51:01")
    assert read("otlp", make_request(make_span(OPENINFERENCE))) == [{**ANSWER, "model_version": "m"}, said]


def test_spans_without_content_or_answer_give_reasons() -> None:
    with pytest.raises(InvalidEventError, match="CAPTURE_MESSAGE_CONTENT"):
        otlp.convert(Record(make_request(make_span({"gen_ai.operation.name": "chat"}))))
    failed = make_span({**CHAT, "gen_ai.output.messages": "[]"}, status={"code": 2, "message": "429"})
    with pytest.raises(InvalidEventError, match="the call failed: 429"):
        otlp.convert(Record(make_request(failed)))
    assert read("otlp", make_request(make_span({"http.route": "/ask"}))) == []


def test_read_spans_knows_ids_times_and_resources() -> None:
    request = make_request(make_span(CHAT, parentSpanId="0000000000000000", links=[{"traceId": "t", "spanId": "s"}]))
    [span] = read_spans(request)
    assert (span.trace_id, span.span_id, span.parent_id, span.links) == (TRACE, ROOT, None, [("t", "s")])
    assert span.start is not None
    assert span.end is not None
    assert (span.end - span.start).total_seconds() == 1


PHOENIX: dict[str, Any] = {
    "id": "U3Bhbjox", "name": "ChatCompletion", "context": {"trace_id": TRACE, "span_id": ROOT}, "span_kind": "LLM",
    "parent_id": None, "start_time": "2025-06-01T10:00:00+00:00", "end_time": "2025-06-01T10:00:01+00:00",
    "status_code": "OK", "status_message": "", "events": [],
    "attributes": {name: value for name, value in OPENINFERENCE.items() if not name.startswith("annotations")},
}  # fmt: skip
SEEN = {"prompt": [("user", "Summarize")], "output": "Revenue grew", "prediction_id": ROOT, "model_version": "m",
        "time": "2025-06-01T10:00:01"}  # fmt: skip
NOTE = {
    "id": "U3Bhbl8x", "span_id": ROOT, "name": "correctness", "annotator_kind": "HUMAN", "user_id": "ann",
    "result": {"label": "incorrect", "score": 0.0, "explanation": "old numbers"},
    "created_at": "2025-06-01T10:02:00+00:00", "source": "APP", "metadata": {},
}  # fmt: skip


def test_phoenix_span_and_its_annotation() -> None:
    assert read("phoenix", PHOENIX) == [SEEN]
    said = thumb(ROOT, -1.0, comment="old numbers", user_id="ann", time="2025-06-01T10:02:00")
    assert read("phoenix", NOTE) == [said]
    assert read("phoenix", {**NOTE, "annotator_kind": "LLM"}) == []


def test_phoenix_table_with_a_column_for_each_attribute() -> None:
    row = {
        "context.span_id": ROOT, "context.trace_id": TRACE, "span_kind": "LLM", "parent_id": None, "name": "x",
        "end_time": "2025-06-01T10:00:01+00:00", "attributes.llm.model_name": "m",
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": "Summarize"}],
        "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": "Revenue grew"}],
    }  # fmt: skip
    assert read("phoenix", row) == [SEEN]


def test_console_exporter_of_opentelemetry() -> None:
    said = {"gen_ai.evaluation.name": "thumb", "gen_ai.evaluation.score.value": 0}
    event = {"name": "gen_ai.evaluation.result", "timestamp": "2025-06-01T10:00:02Z", "attributes": said}
    span = {
        "name": "chat m", "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{ROOT}", "trace_state": "[]"},
        "kind": "SpanKind.CLIENT", "parent_id": None, "start_time": "2025-06-01T10:00:00Z",
        "end_time": "2025-06-01T10:00:01Z", "status": {"status_code": "UNSET"}, "attributes": CHAT,
        "events": [event], "links": [], "resource": {"attributes": {}, "schema_url": ""},
    }  # fmt: skip
    answer = {name: each for name, each in SEEN.items() if name != "model_version"}
    assert read("phoenix", span) == [answer, thumb(ROOT, -1.0, time="2025-06-01T10:00:02")]


def test_phoenix_correction_is_an_edit() -> None:
    note = {**NOTE, "name": "correction", "result": {"explanation": "Revenue fell"}}
    [found] = read("phoenix", note)
    assert (found["signal"], found["final_text"]) == ("edit", "Revenue fell")
    assert read("phoenix", {**PHOENIX, "span_kind": "CHAIN"}) == []


def test_traces_of_tempo_are_batches() -> None:
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat",
            "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                           {"key": "gen_ai.prompt.0.role", "value": {"stringValue": "user"}},
                           {"key": "gen_ai.prompt.0.content", "value": {"stringValue": "q"}},
                           {"key": "gen_ai.completion.0.content", "value": {"stringValue": "r"}}]}  # fmt: skip
    assert len(read("otlp", {"batches": [{"scopeSpans": [{"spans": [span]}]}]})) == 1
