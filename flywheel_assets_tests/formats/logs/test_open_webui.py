"""Feedback and chats of Open WebUI."""

import copy
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import open_webui
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read, thumb

MESSAGES: dict[str, Any] = {
    "u1": {"id": "u1", "parentId": None, "role": "user", "content": "how are you", "timestamp": 1760362655,
           "models": ["m"]},
    "a1": {"id": "a1", "parentId": "u1", "role": "assistant", "content": "I have no feelings.", "model": "m",
           "timestamp": 1760362655},
}  # fmt: skip
FEEDBACK: dict[str, Any] = {
    "id": "f1", "user_id": "person-1", "version": 0, "type": "rating",
    "data": {"rating": 1, "model_id": "m", "sibling_model_ids": None, "reason": "accurate_information", "comment": "",
             "tags": [], "details": {"rating": 10}},
    "meta": {"model_id": "m", "message_id": "a1", "message_index": 1, "chat_id": "c1", "base_models": {"m": "m"}},
    "snapshot": {"chat": {"id": "c1", "user_id": "person-1", "chat": {"history": {"messages": MESSAGES}}}},
    "created_at": 1760434499, "updated_at": 1760434499,
}  # fmt: skip
ANSWER = {
    "prompt": [("user", "how are you")], "output": "I have no feelings.", "prediction_id": "a1", "model_version": "m",
    "user_id": "person-1", "thread_id": "c1", "time": "2025-10-13T13:37:35",
}  # fmt: skip
WHO = {"user_id": "person-1", "thread_id": "c1", "time": "2025-10-14T09:34:59"}


def test_feedback_with_its_snapshot() -> None:
    assert read("open-webui", FEEDBACK) == [
        ANSWER,
        thumb("a1", 1.0, comment="accurate_information", **WHO),
        {"signal": "rating", "prediction_id": "a1", "value": 1.0, **WHO},
    ]


def test_scale_of_ten_becomes_a_share() -> None:
    record = {**FEEDBACK, "data": {"rating": -1, "reason": "other", "comment": "rude", "details": {"rating": 1}}}
    _, down, rating = read("open-webui", record)
    assert (down["value"], down["comment"], rating["value"]) == (-1.0, "rude", 0.0)


def test_feedback_without_a_snapshot_meets_the_chat_export() -> None:
    record = {**FEEDBACK, "snapshot": None, "data": {"rating": -1}}
    assert read("open-webui", record) == [thumb("a1", -1.0, **WHO)]


def test_arena_winner_was_chosen_over_its_sibling() -> None:
    record = copy.deepcopy(FEEDBACK)
    record["data"] |= {"sibling_model_ids": ["n"], "details": None}
    record["meta"]["arena"] = True
    tree = record["snapshot"]["chat"]["chat"]["history"]["messages"]
    tree["a2"] = {**tree["a1"], "id": "a2", "model": "n", "content": "Fine!"}
    first, second, _, choice = read("open-webui", record)
    assert (first["prediction_id"], second["prediction_id"]) == ("a1", "a2")
    assert choice["signal"] == "choice"
    assert (choice["final_text"], choice["original_output"]) == ("I have no feelings.", "Fine!")
    record["data"]["rating"] = -1
    assert "choice" not in [each.get("signal") for each in read("open-webui", record)]


def test_chat_tree_with_branches_edits_and_ratings() -> None:
    tree = {
        **MESSAGES,
        "a2": {"id": "a2", "parentId": "u1", "role": "assistant", "content": "Well, thank you.", "model": "m",
               "timestamp": 1760362700, "originalContent": "Well.",
               "annotation": {"rating": 1, "details": {"rating": 5.5}}, "feedbackId": "f2"},
        "u2": {"id": "u2", "parentId": "a2", "role": "user", "content": "Good.", "timestamp": 1760362800},
        "a3": {"id": "a3", "parentId": "u2", "role": "assistant", "content": "", "error": {"content": "503"},
               "timestamp": 1760362900},
    }  # fmt: skip
    chat = {
        "id": "c1", "user_id": "person-1", "title": "New Chat",
        "chat": {"title": "New Chat", "params": {"system": "Be kind."}, "history": {"messages": tree}},
    }  # fmt: skip
    found = read("open-webui", chat)
    signals = [(each.get("signal"), each["prediction_id"], each.get("value")) for each in found]
    assert signals == [
        (None, "a1", None), (None, "a2", None), ("edit", "a2", None), ("thumb", "a2", 1.0), ("rating", "a2", 0.5),
        ("regenerate", "a1", None),
    ]  # fmt: skip
    assert found[1]["prompt"] == [("system", "Be kind."), ("user", "how are you")]
    assert (found[1]["output"], found[2]["final_text"]) == ("Well.", "Well, thank you.")
    assert (found[-1]["sibling_id"], found[-1]["final_text"]) == ("a2", "Well.")


def test_an_edited_copy_is_an_edit_and_no_regeneration() -> None:
    """It was taken for a second answer of the model, and the rating that it copies for a second rating."""
    tree = copy.deepcopy(MESSAGES)
    tree["a1"] |= {"usage": {"total_tokens": 9}, "annotation": {"rating": -1}, "feedbackId": "f1"}
    tree["a2"] = {**tree["a1"], "id": "a2", "content": "Well, thank you.", "timestamp": 1760362700}
    found = read("open-webui", {"id": "c1", "user_id": "p", "chat": {"history": {"messages": tree}}})
    assert [(each.get("signal"), each["prediction_id"]) for each in found] == [
        (None, "a1"), ("thumb", "a1"), ("edit", "a1"),
    ]  # fmt: skip
    assert found[-1]["final_text"] == "Well, thank you."


def test_one_bad_rating_costs_only_its_message() -> None:
    tree = copy.deepcopy(MESSAGES)
    tree["a1"]["annotation"] = {"rating": 7}
    tree["a2"] = {**MESSAGES["a1"], "id": "a2", "rating": 1, "model": "n"}
    found = read("open-webui", {"id": "c1", "user_id": "p", "chat": {"history": {"messages": tree}}})
    assert [(each.get("signal"), each["prediction_id"]) for each in found] == [(None, "a2"), ("thumb", "a2")]


def test_answers_of_several_models_are_no_regeneration() -> None:
    tree = copy.deepcopy(MESSAGES)
    tree["u1"]["models"] = ["m", "n"]
    tree["a2"] = {**tree["a1"], "id": "a2", "content": "Fine!", "timestamp": 1760362656}
    found = read("open-webui", {"id": "c1", "user_id": "p", "chat": {"history": {"messages": tree}}})
    assert [each.get("signal") for each in found] == [None, None]


def test_folded_reasoning_is_no_part_of_the_answer() -> None:
    tree = copy.deepcopy(MESSAGES)
    tree["a1"]["content"] = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
        "&gt; They greet me.\n&gt; I answer.\n</details>\nFine!"
    )
    [event] = open_webui.convert(Record({"id": "c1", "user_id": "p", "chat": {"history": {"messages": tree}}}))
    assert event.data.output.content == "Fine!"  # type: ignore[union-attr]
    assert event.data.output.reasoning_content == "They greet me.\nI answer."  # type: ignore[union-attr]


def test_a_circle_of_parents_ends() -> None:
    tree = copy.deepcopy(MESSAGES)
    tree["u1"]["parentId"] = "a1"
    assert [each["prediction_id"] for each in read("open-webui", {"id": "c", "chat": {"history": {"messages": tree}}})]


def test_feedback_that_says_nothing_gives_a_reason() -> None:
    with pytest.raises(InvalidEventError, match="no rating and no comment"):
        open_webui.convert(Record({**FEEDBACK, "snapshot": None, "data": {"rating": None}}))


def test_a_rating_may_be_a_text() -> None:
    """Only numbers were read: the rating was lost, the thumb next to it was not."""
    said = copy.deepcopy(FEEDBACK)
    said["data"] |= {"rating": "1", "details": {"rating": "10"}}
    assert read("open-webui", said) == read("open-webui", FEEDBACK)
