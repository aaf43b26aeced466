"""Development data of Continue."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs import continue_dev
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.logs.readings import read

BASE = {"schema": "0.2.0", "timestamp": "2025-06-01T10:00:00.000Z", "userId": "u1", "userAgent": "vscode",
        "selectedProfileId": "local", "modelProvider": "ollama", "modelName": "m", "modelTitle": "m"}  # fmt: skip
CHAT: dict[str, Any] = {**BASE, "eventName": "chatFeedback", "prompt": "<user>\nhi", "completion": "Hello!",
                        "feedback": False, "sessionId": "s1"}  # fmt: skip
EDIT: dict[str, Any] = {**BASE, "eventName": "editOutcome", "prompt": "rename variable", "completion": "let total = 1",
                        "accepted": True, "previousCode": "let x = 1", "newCode": "let total = 1",
                        "filepath": "file:///a.ts"}  # fmt: skip
TAB: dict[str, Any] = {**BASE, "eventName": "autocomplete", "accepted": True, "prefix": "def f(", "suffix": "",
                       "prompt": "<PRE>def f(", "completion": "x):\n  return x", "completionId": "c1"}  # fmt: skip


def test_chat_feedback() -> None:
    answer, said = read("continue", CHAT)
    assert (answer["prompt"], answer["output"], answer["thread_id"]) == ([("user", "hi")], "Hello!", "s1")
    assert (said["signal"], said["value"], said["prediction_id"]) == ("thumb", -1.0, answer["prediction_id"])


def test_chat_of_several_turns_meets_its_interaction() -> None:
    prompt = "<system>\nBe kind.\n\n<user>\nhi\n\n<assistant>\nHello!\n\n<user>\nwhy?\n\n"
    answer, _ = read("continue", {**CHAT, "prompt": prompt, "completion": "So."})
    assert [role for role, _ in answer["prompt"]] == ["system", "user", "assistant", "user"]
    [seen] = read("continue", {**CHAT, "eventName": "chatInteraction", "prompt": prompt, "completion": "So.",
                               "timestamp": "2025-06-01T09:59:00.000Z"})  # fmt: skip
    assert seen["prediction_id"] == answer["prediction_id"]


def test_edit_that_was_kept_or_rejected() -> None:
    answer, said = read("continue", EDIT)
    assert (answer["prompt"], answer["output"]) == ("rename variable\n\nlet x = 1", "let total = 1")
    assert said["signal"] == "accept"
    _, said = read("continue", {**EDIT, "accepted": False})
    assert (said["signal"], said["value"]) == ("thumb", -1.0)


def test_completion_that_was_taken_or_not() -> None:
    answer, said = read("continue", TAB)
    assert (answer["prompt"], answer["output"], answer["prediction_id"]) == ("<PRE>def f(", "x):\n  return x", "c1")
    assert (said["signal"], said["prediction_id"]) == ("accept", "c1")
    assert len(read("continue", {**TAB, "accepted": False})) == 1


def test_older_schema_without_event_names() -> None:
    older = {name: value for name, value in CHAT.items() if name not in ("eventName", "schema", "timestamp", "userId")}
    _, said = read("continue", {**older, "feedback": True})
    assert said["value"] == 1.0


def test_events_without_code_give_a_reason() -> None:
    with pytest.raises(InvalidEventError, match="level: all"):
        continue_dev.convert(Record({name: EDIT[name] for name in (*BASE, "eventName", "accepted")}))
    assert read("continue", {**BASE, "eventName": "tokensGenerated", "promptTokens": 3}) == []


def test_what_a_destination_on_the_web_receives() -> None:
    """Continue posts {"name", "schema", "data"}, which was no event of it."""
    posted = {"name": "chatFeedback", "schema": "0.2.0", "level": "all", "data": CHAT}
    assert read("continue", posted) == read("continue", CHAT)
