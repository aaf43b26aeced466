"""What people entered in annotation tools becomes their edits, thumbs, ratings and choices."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.catalog import detect_format
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.landings import land

FIELDS = {"prompt": "Explain DPO", "response": "DPO optimises."}
PAIR = {"prompt": "Name a prime", "response_a": "7", "response_b": "9"}


def read(record: dict[str, Any]) -> list[dict[str, Any]]:
    found = detect_format([Record(record)])
    assert found is not None
    return land(found.convert(Record(record)))


def argilla(fields: dict[str, Any], responses: Any, **more: Any) -> dict[str, Any]:
    return {"id": "r1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": responses, **more}


def studio(data: dict[str, Any], *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"id": 5, "completed_by": 10, "result": list(results), "updated_at": "2021-03-09T22:16:08Z", **more}
    return {"id": 1, "project": 83, "data": data, "annotations": [annotation]}


def result(kind: str, name: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": name, "to_name": "x", "value": value}


@pytest.mark.parametrize(
    "record",
    [
        argilla(
            FIELDS,
            {"corrected": [{"value": "Better.", "user_id": "u1"}], "quality": [{"value": "bad", "user_id": "u2"}]},
        ),
        argilla(
            FIELDS,
            [
                {"user_id": "u1", "status": "submitted", "values": {"corrected": {"value": "Better."}}},
                {"user_id": "u2", "status": "submitted", "values": {"quality": {"value": "bad"}}},
                {"user_id": "u3", "status": "draft", "values": {"quality": {"value": "good"}}},
            ],
        ),
        {
            "id": "r1", **FIELDS, "corrected.responses": ["Better."], "corrected.responses.users": ["u1"],
            "quality.responses": ["bad", "good"], "quality.responses.users": ["u2", "u3"],
            "quality.responses.status": ["submitted", "discarded"],
        },
        {
            "external_id": "r1", **FIELDS, "metadata": "{}", "corrected-suggestion": None,
            "corrected": [{"user_id": "u1", "value": "Better.", "status": "submitted"}],
            "quality": {"user_id": ["u2", "u3"], "value": ["bad", "good"], "status": ["submitted", "discarded"]},
            "quality-suggestion": "good", "quality-suggestion-metadata": {"agent": "m"},
        },
    ],
    ids=["2.x", "1.x", "2.x flat", "1.x on the Hub"],
)  # fmt: skip
def test_every_shape_of_argilla_gives_the_same_statements(record: dict[str, Any]) -> None:
    prediction, edit, thumb = read(record)
    assert (prediction["prompt"], prediction["output"]) == ("Explain DPO", "DPO optimises.")
    assert (edit["signal"], edit["final_text"], edit["user_id"]) == ("edit", "Better.", "u1")
    assert (thumb["signal"], thumb["value"], thumb["user_id"]) == ("thumb", -1.0, "u2")
    assert {row["prediction_id"] for row in (prediction, edit, thumb)} == {"r1"}


def test_several_annotators_are_several_statements() -> None:
    responses = {"quality": [{"value": "good", "user_id": name} for name in ("u1", "u2", "u3")]}
    rows = read(argilla(FIELDS, responses))
    assert len({row["statement_id"] for row in rows if "signal" in row}) == 3


@pytest.mark.parametrize(
    ("question", "value", "signal", "said"),
    [
        ("quality", "good", "thumb", {"value": 1.0}),
        ("is_helpful", False, "thumb", {"value": -1.0}),
        ("quality", ["bad"], "thumb", {"value": -1.0}),
        ("rating", 1, "rating", {"value": 0.0}),
        ("rating", 3, "rating", {"value": 0.5}),
        ("rating", 5, "rating", {"value": 1.0}),
        ("improved_answer", "A better text", "edit", {"final_text": "A better text"}),
        ("comment", "bad", "comment", {"comment": "bad"}),
        ("topic", "sports", "comment", {"comment": "topic: sports"}),
        ("topics", ["a", "b"], "comment", {"comment": "topics: a, b"}),
    ],
)
def test_a_value_is_read_by_its_question(question: str, value: Any, signal: str, said: dict[str, Any]) -> None:
    [_, row] = read(argilla(FIELDS, {question: [{"value": value, "user_id": "u1"}]}))
    assert row["signal"] == signal
    assert row.items() >= said.items()


@pytest.mark.parametrize("value", ["response_b", "Response B", "b", "B", "right", "response-b"])
def test_a_preferred_answer_is_a_choice(value: str) -> None:
    [row] = read(argilla(PAIR, {"preference": [{"value": value, "user_id": "u1"}]}))
    assert (row["signal"], row["prompt"], row["final_text"], row["original_output"]) == (
        "choice", "Name a prime", "9", "7",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["tie", "Both bad", "none"])
def test_a_tie_of_answers_is_nothing(value: str) -> None:
    assert read(argilla(PAIR, {"preference": [{"value": value, "user_id": "u1"}]})) == []


def test_a_ranking_is_a_choice_over_each_of_a_lower_rank() -> None:
    fields = {"instruction": "q", "generation-1": "a", "generation-2": "b", "generation-3": "c"}
    ranks = [{"value": f"generation-{place}", "rank": rank} for place, rank in ((1, 2), (2, 1), (3, 2))]
    rows = read(argilla(fields, {"ranking": [{"value": ranks, "user_id": "u1"}]}))
    assert [(row["final_text"], row["original_output"]) for row in rows] == [("b", "a"), ("b", "c")]


def test_a_text_without_an_answer_is_a_demonstration() -> None:
    [row] = read(argilla({"prompt": "q"}, {"corrected": [{"value": "An answer.", "user_id": "u1"}]}))
    assert (row["signal"], row["prompt"], row["final_text"]) == ("demonstration", "q", "An answer.")


def test_a_conversation_is_prompt_and_answer() -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    [prediction, _] = read(argilla({"chat": chat}, {"quality": [{"value": "good", "user_id": "u1"}]}))
    assert (prediction["prompt"], prediction["output"]) == ('[{"role":"user","content":"q"}]', "a")


def test_suggestions_of_models_are_no_feedback() -> None:
    assert read(argilla(FIELDS, {}, suggestions={"quality": {"value": "good", "agent": "m"}})) == []


def test_the_applications_own_id_is_the_predictions() -> None:
    responses = {"quality": [{"value": "good", "user_id": "u1"}]}
    rows = read(argilla(FIELDS, responses, metadata={"prediction_id": "p7", "model": "m1"}))
    assert {row["prediction_id"] for row in rows} == {"p7"}
    assert rows[0]["model_version"] == "m1"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_side_is_a_choice_of_who_completed_it(side: str) -> None:
    [row] = read(studio(PAIR, result("pairwise", "pw", selected=side)))
    assert (row["final_text"], row["user_id"]) == ("7" if side == "left" else "9", "10")
    assert row["occurred_at"] == "2021-03-09T22:16:08.000000Z"


def test_results_of_label_studio_are_read_by_their_kind() -> None:
    rows = read(
        studio(
            FIELDS,
            result("choices", "quality", choices=["Good"]),
            result("textarea", "correction", text=["Line one.", "Line two."]),
            result("rating", "stars", rating=4),
            result("labels", "spans", start=0, end=3, text="DPO", labels=["term"]),
            completed_by={"id": 11, "email": "ann@example.com"},
        )
    )
    assert [row.get("signal") for row in rows] == [None, "thumb", "edit", "rating"]
    assert rows[2]["final_text"] == "Line one.\nLine two."
    assert rows[3]["value"] == 0.75
    assert {row["user_id"] for row in rows[1:]} == {"ann@example.com"}
    assert {row["prediction_id"] for row in rows} == {"label-studio/83/1"}


def test_cancelled_annotations_are_ignored() -> None:
    assert read(studio(FIELDS, result("choices", "quality", choices=["Good"]), was_cancelled=True)) == []


def test_rows_of_json_min_are_read() -> None:
    shared = {"id": 1, "annotator": 10, "annotation_id": 5, "lead_time": 1.0, "created_at": "2021-03-09T22:16:08Z"}
    [row] = read({**PAIR, "pw": [{"selected": "left"}], **shared})
    assert (row["signal"], row["final_text"], row["user_id"]) == ("choice", "7", "10")
    rows = read({**FIELDS, "stars": [{"rating": 1}], "quality": "bad", **shared})
    assert [(row.get("signal"), row.get("value")) for row in rows] == [(None, None), ("rating", 0.0), ("thumb", -1.0)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (argilla({"response": "a"}, {"quality": [{"value": "good"}]}), "no prompt is among the fields"),
        (argilla({"prompt": "q"}, {"quality": [{"value": "good"}]}), "no answer is among the fields"),
        (argilla(FIELDS, {"rating": [{"value": 9}]}), "`rating` is 9; valid: 1 to 5"),
        (argilla(FIELDS, {"quality": ["good"]}), "a response to 'quality' is no object"),
        (argilla(FIELDS, ["x"]), "a response has no `values`"),
        (argilla(FIELDS, {"quality": [{"value": "good", "user_id": {"a": 1}}]}), "the user of a response is"),
        (argilla(PAIR, {"r": [{"value": [{"value": "x", "rank": 1}]}]}), "fewer than two"),
        (studio(FIELDS, result("pairwise", "pw", selected="left")), "two answers are not among the fields"),
        (studio(FIELDS, updated_at="yesterday"), "the time of an annotation is 'yesterday'"),
        ({"id": 1, "data": FIELDS, "annotations": [None]}, "annotation 0 is no object"),
    ],
)
def test_messy_annotations_are_refused_with_a_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        read(record)


def test_a_ranker_of_label_studio_is_choices() -> None:
    """Its result had been passed over without a word."""
    items = [{"id": "a", "title": "A", "body": "7"}, {"id": "b", "title": "B", "body": "9"}]
    result = {"type": "ranker", "from_name": "rank", "to_name": "items", "value": {"ranker": {"rank": ["b", "a"]}}}
    (row,) = read(studio({"prompt": "Name a prime", "items": items}, result))
    assert (row["final_text"], row["original_output"]) == ("9", "7")


@pytest.mark.parametrize(
    "record",
    [
        argilla({"prompt": "Name a prime"}, {"response": [{"value": "7", "user_id": "ann"}]}),
        studio({"prompt": "Name a prime"}, {"type": "textarea", "from_name": "response", "value": {"text": ["7"]}}),
    ],
)
def test_an_answer_that_people_wrote_themselves_is_a_demonstration(record: dict[str, Any]) -> None:
    """The templates for supervised tuning call the question `response`; such texts had been lost."""
    (row,) = read(record)
    assert (row["signal"], row["final_text"]) == ("demonstration", "7")


def test_a_ranking_of_argilla_may_be_names_in_order() -> None:
    (row,) = read(argilla(PAIR, {"best": [{"value": ["response_b", "response_a"], "user_id": "ann"}]}))
    assert (row["final_text"], row["original_output"]) == ("9", "7")
