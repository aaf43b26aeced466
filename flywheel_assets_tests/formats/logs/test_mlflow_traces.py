"""Traces of MLflow with their assessments."""

import copy
import json
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import mlflow_traces
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

HUMAN = {"source_type": "HUMAN", "source_id": "p1"}
TRACE: dict[str, Any] = {
    "info": {
        "trace_id": "tr-1", "request_time": "2025-06-01T10:00:00Z", "state": "OK", "request_preview": "q",
        "response_preview": "a",
        "assessments": [
            {"assessment_id": "a-1", "assessment_name": "user_feedback", "source": HUMAN, "feedback": {"value": False},
             "rationale": "wrong", "create_time": "2025-06-01T10:01:00Z"},
            {"assessment_id": "a-2", "assessment_name": "expected_response", "source": HUMAN,
             "expectation": {"value": "The right answer."}},
        ],
    },
    "data": {"spans": [{"name": "root",
                        "attributes": {"mlflow.spanInputs": '{"q":"x"}', "mlflow.spanOutputs": '"a"'}}]},
}  # fmt: skip
ANSWER = {"prompt": "x", "output": "a", "prediction_id": "tr-1", "time": "2025-06-01T10:00:00"}
DOWN = thumb("tr-1", -1.0, comment="wrong", user_id="p1", time="2025-06-01T10:01:00")
EDIT = {"signal": "edit", "prediction_id": "tr-1", "final_text": "The right answer.", "user_id": "p1",
        "time": "2025-06-01T10:00:00"}  # fmt: skip


def make_trace(*assessments: dict[str, Any], **info: Any) -> dict[str, Any]:
    trace = copy.deepcopy(TRACE)
    trace["info"] |= {"assessments": list(assessments), **info}
    return trace


def test_trace_with_feedback_and_expectation() -> None:
    assert read("mlflow", TRACE) == [ANSWER, DOWN, EDIT]


@pytest.mark.parametrize(
    ("change", "signal", "value"),
    [
        ({"feedback": {"value": True}}, "thumb", 1.0),
        ({"feedback": {"value": "yes"}}, "thumb", 1.0),
        ({"feedback": {"value": 0.25}}, "rating", 0.25),
        ({"feedback": {"value": 4}}, "comment", None),
        ({"feedback": {"value": ["slow", "rude"]}}, "comment", None),
        ({"expectation": {"value": {"expected_facts": ["a"]}}, "assessment_name": "expected_facts"}, "comment", None),
        ({"expectation": {"serialized_value": {"value": '"Yes."', "serialization_format": "JSON_FORMAT"}},
          "assessment_name": "expected_response"}, "edit", None),
    ],
)  # fmt: skip
def test_kinds_of_assessments(change: dict[str, Any], signal: str, value: float | None) -> None:
    _, found = read(
        "mlflow", make_trace({"assessment_id": "a", "assessment_name": "quality", "source": HUMAN, **change})
    )
    assert (found["signal"], found.get("value")) == (signal, value)


def test_judges_and_overridden_assessments_are_left_out() -> None:
    judge = {"assessment_id": "a", "assessment_name": "safety", "feedback": {"value": "yes"},
             "source": {"source_type": "LLM_JUDGE", "source_id": "gpt"}}  # fmt: skip
    old = {"assessment_id": "b", "assessment_name": "x", "source": HUMAN, "feedback": {"value": True}}
    new = {**old, "assessment_id": "c", "feedback": {"value": False}, "overrides": "b"}
    found = read("mlflow", make_trace(judge, old, new))
    assert [(each["signal"], each["value"]) for each in found[1:]] == [("thumb", -1.0)]
    assert read("mlflow", make_trace({**old, "valid": False})) == [ANSWER]


def test_chat_model_at_the_root() -> None:
    trace = make_trace()
    asked = {"messages": [{"role": "user", "content": "Hi"}], "model": "gpt-4o"}
    answered = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}
    trace["data"]["spans"] = [{
        "span_id": "cm9vdA==", "parent_span_id": None, "name": "Completions",
        "attributes": {"mlflow.spanType": '"CHAT_MODEL"', "mlflow.spanInputs": json.dumps(asked),
                       "mlflow.spanOutputs": json.dumps(answered)},
    }]  # fmt: skip
    trace["info"]["trace_metadata"] = {"mlflow.trace.user": "u1", "mlflow.trace.session": "s1"}
    assert read("mlflow", trace) == [
        {**ANSWER, "prompt": [("user", "Hi")], "output": "Hello", "model_version": "gpt-4o", "user_id": "u1",
         "thread_id": "s1"}
    ]  # fmt: skip


def test_second_schema_and_table_of_traces() -> None:
    older = {"info": {"request_id": "tr-1", "timestamp_ms": 1748772000000, "status": "OK"},
             "data": {"request": '{"question": "x"}', "response": '"a"', "spans": []}}  # fmt: skip
    assert read("mlflow", older) == [ANSWER]
    row = {"trace_id": "tr-1", "request_time": 1748772000000, "state": "OK", "request": {"question": "x"},
           "response": "a", "spans": [], "trace_metadata": {},
           "assessments": TRACE["info"]["assessments"]}  # fmt: skip
    assert read("mlflow", row) == [ANSWER, DOWN, EDIT]


def test_assessments_of_a_table_count_milliseconds() -> None:
    said = {"assessment_id": "a", "name": "thumb", "source": HUMAN, "feedback": {"value": True},
            "create_time_ms": 1748772060000, "last_update_time_ms": 1748772120000}  # fmt: skip
    assert read("mlflow", make_trace(said))[1]["time"] == "2025-06-01T10:02:00"


def test_expectation_of_a_trace_that_failed_is_a_demonstration() -> None:
    trace = make_trace(*TRACE["info"]["assessments"][1:], state="ERROR", response_preview=None)
    trace["data"]["spans"][0]["attributes"].pop("mlflow.spanOutputs")
    [found] = read("mlflow", trace)
    assert (found["signal"], found["prompt"], found["final_text"]) == ("demonstration", "x", "The right answer.")
    trace["info"]["assessments"] = []
    with pytest.raises(InvalidEventError, match="the trace failed"):
        mlflow_traces.convert(Record(trace))
