"""Traces, observations, scores and dataset items of Langfuse."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import langfuse
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
GENERATION: dict[str, Any] = {
    "id": "g1", "traceId": "t1", "type": "GENERATION", "name": "chat", "startTime": "2025-06-05T15:45:50.000Z",
    "endTime": "2025-06-05T15:45:51.000Z", "model": "gpt-4o", "input": ASKED, "parentObservationId": None,
    "output": {"role": "assistant", "content": "Hello"}, "level": "DEFAULT",
}  # fmt: skip
SCORE = {
    "id": "s1", "timestamp": "2025-06-05T15:45:52.971Z", "traceId": "t1", "name": "user-feedback", "value": 0,
    "source": "API", "comment": "wrong, and rude", "dataType": "BOOLEAN",
}  # fmt: skip
TRACE = {
    "id": "t1", "timestamp": "2025-06-05T15:45:49.000Z", "name": "chat", "userId": "u1", "sessionId": "x",
    "input": "Hi", "output": "Hello", "observations": [GENERATION], "scores": [SCORE], "htmlPath": "/t1",
}  # fmt: skip
DOWN = thumb("t1", -1.0, comment="wrong, and rude", time="2025-06-05T15:45:52")


def test_scores_of_a_csv_file() -> None:
    """A table has only texts."""
    row = {"id": "s1", "timestamp": "2025-06-05T15:45:52.971Z", "traceId": "t1", "name": "user-feedback",
           "value": "0", "source": "API", "comment": "wrong, and rude", "dataType": "BOOLEAN"}  # fmt: skip
    assert read("langfuse", row) == [DOWN]
    assert read("langfuse", {**SCORE, "value": False}) == [DOWN]


@pytest.mark.parametrize(
    ("change", "signal", "value"),
    [
        ({"dataType": "NUMERIC", "value": 0.8}, "rating", 0.8),
        ({"dataType": "NUMERIC", "value": 1}, "thumb", 1.0),
        ({"dataType": "CATEGORICAL", "value": 0, "stringValue": "thumbs up"}, "thumb", 1.0),
        ({"dataType": "CATEGORICAL", "value": None, "stringValue": "too long"}, "comment", None),
        ({"dataType": "BOOLEAN", "value": 1, "stringValue": "True"}, "thumb", 1.0),
    ],
)
def test_kinds_of_scores(change: dict[str, Any], signal: str, value: float | None) -> None:
    [found] = read("langfuse", {**SCORE, **change})
    assert (found["signal"], found.get("value")) == (signal, value)


def test_a_models_judgement_is_no_feedback() -> None:
    assert read("langfuse", {**SCORE, "source": "EVAL"}) == []


def test_an_unknown_scale_gives_a_reason() -> None:
    with pytest.raises(InvalidEventError, match="its scale is not in the record"):
        langfuse.convert(Record({**SCORE, "dataType": "NUMERIC", "value": 4}))


def test_a_correction_is_an_edit() -> None:
    record = {**SCORE, "dataType": "CORRECTION", "name": "output", "value": 0, "stringValue": "Good day.",
              "source": "ANNOTATION", "authorUserId": "ann", "comment": None}  # fmt: skip
    [found] = read("langfuse", record)
    assert (found["signal"], found["final_text"], found["user_id"]) == ("edit", "Good day.", "ann")


def test_the_third_api_names_its_subject() -> None:
    record = {"id": "s2", "name": "thumb", "source": "API", "timestamp": "2025-06-05T15:45:52Z", "dataType": "BOOLEAN",
              "value": True, "subject": {"kind": "observation", "id": "g1", "traceId": "t1"}}  # fmt: skip
    assert read("langfuse", record) == [thumb("g1", 1.0, time="2025-06-05T15:45:52")]


def test_trace_takes_its_answering_generation() -> None:
    """The generation has the system prompt; the trace has the id that scores name."""
    answer = {
        "prompt": [("system", "Be kind."), ("user", "Hi")], "output": "Hello", "prediction_id": "t1",
        "model_version": "gpt-4o", "user_id": "u1", "thread_id": "x", "time": "2025-06-05T15:45:51",
    }  # fmt: skip
    down = {**DOWN, "user_id": "u1"}
    assert read("langfuse", TRACE) == [answer, down]
    scored = {**TRACE, "scores": [{**SCORE, "observationId": "g1"}]}
    assert read("langfuse", scored)[1] == down


def test_trace_with_an_output_of_its_own() -> None:
    found = read("langfuse", {**TRACE, "output": "Hello, signed: the shop", "scores": []})
    assert [(each["prediction_id"], each["output"]) for each in found] == [
        ("t1", "Hello, signed: the shop"),
        ("g1", "Hello"),
    ]


def test_trace_of_the_list_has_only_ids() -> None:
    found = read("langfuse", {**TRACE, "observations": ["g1"], "scores": ["s1"]})
    assert [(each["prediction_id"], each["output"]) for each in found] == [("t1", "Hello")]


def test_observation_alone() -> None:
    [found] = read("langfuse", {**GENERATION, "userId": "u1"})
    assert (found["prediction_id"], found["user_id"]) == ("t1", "u1")
    [found] = read("langfuse", {**GENERATION, "parentObservationId": "span"})
    assert found["prediction_id"] == "g1"
    assert read("langfuse", {**GENERATION, "type": "SPAN"}) == []


def test_blob_export_spells_with_underscores() -> None:
    row = {
        "id": "g1", "trace_id": "t1", "type": "GENERATION", "start_time": "2025-06-05 15:45:50.000",
        "end_time": "2025-06-05 15:45:51.000", "provided_model_name": "gpt-4o", "parent_observation_id": "s",
        "input": '{"messages": [{"role": "user", "content": "Hi"}]}', "output": '{"content": "Hello"}',
    }  # fmt: skip
    [found] = read("langfuse", row)
    assert (found["prompt"], found["output"], found["model_version"]) == ([("user", "Hi")], "Hello", "gpt-4o")


def test_failed_generation_gives_its_reason() -> None:
    with pytest.raises(InvalidEventError, match="the call failed: rate limit"):
        langfuse.convert(Record({**GENERATION, "output": None, "level": "ERROR", "statusMessage": "rate limit"}))


def test_expected_output_is_a_demonstration() -> None:
    item = {"id": "i1", "datasetId": "d", "input": {"question": "Hi"}, "expectedOutput": "Good day.",
            "createdAt": "2025-06-05T15:45:50Z", "sourceTraceId": None}  # fmt: skip
    [found] = read("langfuse", item)
    assert (found["signal"], found["prompt"], found["final_text"]) == ("demonstration", "Hi", "Good day.")
