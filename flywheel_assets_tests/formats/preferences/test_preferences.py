"""Comparison sets become the right prompts, answers, people and times, or are refused for a stated reason."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.conversations import Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.catalog import detect_format, find_format
from flywheel_assets.formats.own import OWN
from flywheel_assets.formats.preferences import hh_rlhf
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.landings import land


def read(record: dict[str, Any], name: str | None = None) -> list[dict[str, Any]]:
    """Land the events of a record by its detected format, which must be `name`."""
    found = detect_format([Record(record)])
    assert found is not None
    assert name in (None, found.name)
    return land(found.convert(Record(record)))


def say(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pairs(rows: list[dict[str, Any]]) -> list[tuple[Any, str, str]]:
    """Return prompt, chosen and rejected of every choice; a prompt of messages as (role, content)."""
    return [(read_prompt(row), row["final_text"], row["original_output"]) for row in rows if row["signal"] == "choice"]


def read_prompt(row: dict[str, Any]) -> Any:
    if row["prompt_format"] == "text":
        return row["prompt"]
    return [(each["role"], each["content"]) for each in json.loads(row["prompt"])]


CASES: list[tuple[str, dict[str, Any], Any]] = [
    (
        "hh-rlhf",
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good one\n\nwith: more",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad one",
        },
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "good one\n\nwith: more", "bad one"),
    ),
    (
        "hh-rlhf",  # what follows the first different answers is left out
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "rejected": "\n\nHuman: a\n\nAssistant: x\n\nHuman: y\n\nAssistant: z",
        },
        ([("user", "a")], "b", "x"),
    ),
    (
        "hh-rlhf",
        {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant:"},
        ([("user", "a")], "b", ""),
    ),
    (
        "ultrafeedback-binarized",
        {"prompt": "a", "chosen": say("a", "b"), "rejected": say("a", "c"), "messages": [], "score_chosen": 9.0},
        ([("user", "a")], "b", "c"),
    ),
    (
        "ultrafeedback-binarized",  # a table holds the conversations as JSON
        {"prompt": "a", "chosen": json.dumps(say("a", "b")), "rejected": json.dumps(say("a", "c")), "messages": "[]"},
        ([("user", "a")], "b", "c"),
    ),
    (
        "distilabel",
        {"instruction": "a", "generations": ["b", "c", None], "ratings": [2, 5, None]},
        ("a", "c", "b"),
    ),
    (
        "distilabel",
        {"system": "s", "input": "a", "chosen": "b", "rejected": "c", "generations": ["b", "c"], "rating": [5, 1]},
        ([("system", "s"), ("user", "a")], "b", "c"),
    ),
    (
        "distilabel",
        {"prompt": "a", "system_prompt": "s", "chosen": say("a", "b"), "rejected": say("a", "c"), "chosen_rating": 5},
        ([("system", "s"), ("user", "a")], "b", "c"),
    ),
    (
        "sharegpt-dpo",
        {
            "conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "b"},
            "rejected": {"from": "gpt", "value": "c"},
        },
        ([("user", "a")], "b", "c"),
    ),
    (
        "sharegpt-dpo",
        {"conversations": say("a"), "chosen": say("x", "b")[1], "rejected": say("x", "c")[1], "system": "s"},
        ([("system", "s"), ("user", "a")], "b", "c"),
    ),
    ("alpaca-preference", {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}, ("a", "b", "c")),
    ("alpaca-preference", {"instruction": "a", "input": "i", "chosen": "b", "rejected": "c"}, ("a\ni", "b", "c")),
    (
        "alpaca-preference",
        {"system": "s", "question": "a", "chosen": "b", "rejected": "c"},
        ([("system", "s"), ("user", "a")], "b", "c"),
    ),
    (
        "chosen-messages",
        {"id": 7, "prompt": "a", "chosen_messages": say("a", "b"), "rejected_messages": say("a", "c")},
        ([("user", "a")], "b", "c"),
    ),
    (
        "openai-preference",
        {"input": {"messages": say("a")}, "preferred_output": answer("b"), "non_preferred_output": answer("c")},
        ([("user", "a")], "b", "c"),
    ),
    (
        "openai-preference",
        {"input": {"messages": say("a")}, "preferred_completion": answer("b"), "non_preferred_completion": "c"},
        ([("user", "a")], "b", "c"),
    ),
    ("trl-preference", {"chosen": "It is blue.", "rejected": "It is green."}, ("It is", " blue.", " green.")),
    (
        "trl-preference",
        {"chosen": say("a", "b", "c", "d"), "rejected": say("a", "b", "c", "x")},
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "d", "x"),
    ),
    (
        "trl-preference",  # an explicit prompt, and answers of several messages
        {"prompt": say("a"), "chosen": say("", "b", "c", "d")[1:], "rejected": say("", "b", "c", "x")[1:]},
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "d", "x"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "expected"), CASES)
def test_a_pair_becomes_its_choice(name: str, record: dict[str, Any], expected: Any) -> None:
    assert pairs(read(record, name)) == [expected]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Human:", "Assistant:", "\n", "\n\n", " ", "\t", "\r", "a", "Human"])).map("".join))
def test_a_transcript_is_parted_at_the_turns_of_its_beginning_and_after_empty_lines(text: str) -> None:
    """The faster pattern parts as the one did that also looked for the beginning: `(?:^|\\n\\n)` took 28 µs a text."""
    text = f"Human: a{text}"
    plain = re.split(r"(?:^|\n\n)[ \t]*(Human|Assistant):", text)
    expected = [(name, said.strip()) for name, said in zip(plain[1::2], plain[2::2], strict=True)]
    roles = {Role.USER: "Human", Role.ASSISTANT: "Assistant"}
    assert [(roles[turn.role], turn.content) for turn in hh_rlhf.read_transcript(f"\n\n{text}")] == expected


def test_cells_of_conversations_are_no_choice_of_our_own() -> None:
    """UltraFeedback as CSV has `prompt`, and whole conversations as JSON in `chosen` and `rejected`."""
    record = {
        "prompt": "Why?",
        "chosen": json.dumps([*say("Why?"), *answer("Because of the rain.")]),
        "rejected": json.dumps([*say("Why?"), *answer("I do not know.")]),
    }
    assert not OWN.matches(Record(record))
    assert pairs(read(record)) == [([("user", "Why?")], "Because of the rain.", "I do not know.")]


def test_the_best_completion_is_chosen_over_each_that_is_worse() -> None:
    scores = (("b", 3), ("c", 9), ("d", 9), ("e", 1))
    completions = [{"response": text, "overall_score": score} for text, score in scores]
    rows = read({"instruction": "a", "completions": completions}, "ultrafeedback")
    assert pairs(rows) == [("a", "c", "b"), ("a", "c", "e")]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "chosen": say("a", "b"), "rejected": say("a", "c"), "score_chosen": 8.0, "score_rejected": 8},
        {"input": "a", "chosen": "b", "rejected": "c", "generations": ["b", "c"], "status": "tie"},
        {"prompt": "a", "chosen": say("a", "b"), "rejected": say("a", "c"), "rating_chosen": 4, "rating_rejected": 4},
        {"instruction": "a", "completions": []},
        {"instruction": "a", "generations": ["b", "c"], "ratings": [4, 4]},
        {"model_a": "m", "model_b": "n", "winner": "tie", "conversation_a": [], "conversation_b": []},
    ],
)
def test_a_tie_is_no_choice(record: dict[str, Any]) -> None:
    assert read(record) == []


def test_tools_and_calls_are_kept() -> None:
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    [row] = read({"chosen": [*say("a"), call], "rejected": say("a", "no"), "tools": tools}, "trl-preference")
    assert json.loads(row["tools"]) == tools
    assert json.loads(row["final_message"])["tool_calls"][0]["function"]["name"] == "f"
    given = {"messages": say("a"), "tools": tools, "parallel_tool_calls": True}
    [row] = read({"input": given, "preferred_output": [call], "non_preferred_output": answer("no")})
    assert json.loads(row["tools"]) == tools


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "completion": "b", "label": True},
        {"prompt": say("a"), "completion": answer("b"), "label": 1},
        {"conversations": say("a", "b"), "kto_tag": "true"},
        {"messages": say("a", "b"), "kto_tag": True},
        {"instruction": "a", "output": "b", "kto_tag": True},
    ],
)
def test_an_answer_with_a_label_becomes_a_prediction_and_a_thumb(record: dict[str, Any]) -> None:
    [prediction, thumb] = read(record)
    assert (prediction["output"], thumb["signal"], thumb["value"]) == ("b", "thumb", 1.0)
    assert prediction["prediction_id"] == thumb["prediction_id"]


def test_two_answers_to_one_prompt_are_two_predictions() -> None:
    """The case of TRL's own example: both answers of one prompt stand in the file, one good, one bad."""
    good, bad = ({"prompt": "The sky is", "completion": each, "label": each == " blue."} for each in (" blue.", " x."))
    rows = [*read(good), *read(bad)]
    assert len({row["prediction_id"] for row in rows}) == 2
    assert [row["value"] for row in rows if "signal" in row] == [1.0, -1.0]


def battle(winner: str, **fields: Any) -> dict[str, Any]:
    return {
        "question_id": "q1", "model_a": "m", "model_b": "n", "winner": winner, "judge": "arena_user_1",
        "conversation_a": say("a", "b", "c", "d"), "conversation_b": say("a", "x", "c", "y"), "tstamp": 1682351448.12,
        **fields,
    }  # fmt: skip


@pytest.mark.parametrize(("winner", "chosen", "rejected"), [("model_a", "b", "x"), ("model_b", "x", "b")])
def test_a_battle_is_a_choice_of_its_judge_at_its_time(winner: str, chosen: str, rejected: str) -> None:
    rows = read(battle(winner), "lmsys-arena")
    assert pairs(rows) == [([("user", "a")], chosen, rejected)]
    assert (rows[0]["user_id"], rows[0]["occurred_at"]) == ("arena_user_1", "2023-04-24T15:50:48.120000Z")


@pytest.mark.parametrize("winner", ["tie (bothbad)", "both_bad"])
def test_two_bad_answers_are_two_thumbs_down(winner: str) -> None:
    rows = read(battle(winner))
    assert [row["output"] for row in rows if "output" in row] == ["b", "x"]
    assert [row["model_version"] for row in rows if "output" in row] == ["m", "n"]
    thumbs = [row for row in rows if "signal" in row]
    assert [(row["value"], row["prediction_id"], row["user_id"]) for row in thumbs] == [
        (-1.0, "q1/a", "arena_user_1"),
        (-1.0, "q1/b", "arena_user_1"),
    ]


def test_a_battle_of_the_55k_set_is_read_from_its_cells() -> None:
    record = {
        "id": "30192", "model_a": "m", "model_b": "n", "prompt": '["a", "c"]', "response_a": '["b", "d"]',
        "response_b": '["b", "y"]', "winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0",
    }  # fmt: skip
    assert pairs(read(record)) == [([("user", "a"), ("assistant", "b"), ("user", "c")], "y", "d")]


def test_parts_of_content_of_the_140k_set_are_texts() -> None:
    one, other = (
        [
            {"role": "user", "content": [{"type": "text", "text": "a", "image": None, "mimeType": None}]},
            {"role": "assistant", "content": [{"type": "text", "text": text, "image": None, "mimeType": None}]},
        ]
        for text in "bc"
    )
    rows = read(battle("model_b", conversation_a=one, conversation_b=other, timestamp="2025-06-01 10:00:00"))
    assert pairs(rows) == [([("user", "a")], "c", "b")]


@pytest.mark.parametrize(
    ("record", "prompt", "answer"),
    [
        ({"messages": say("a", "b", "c", "d")}, [("user", "a"), ("assistant", "b"), ("user", "c")], "d"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, [("user", "a")], "b"),
        ({"instruction": "a", "input": "i", "output": "b"}, "a\ni", "b"),
        ({"instruction": "a", "context": "i", "response": "b", "category": "qa"}, "a\ni", "b"),
        ({"prompt": "a", "completion": "b"}, "a", "b"),
        ({"prompt": say("a"), "completion": answer("b")}, [("user", "a")], "b"),
    ],
)
def test_a_good_answer_alone_is_a_demonstration(record: dict[str, Any], prompt: Any, answer: str) -> None:
    [row] = read(record)
    assert (row["signal"], read_prompt(row), row["final_text"]) == ("demonstration", prompt, answer)


def test_an_answer_of_weight_zero_is_nothing_to_learn_from() -> None:
    turns = [*say("a"), {"role": "assistant", "content": "b", "weight": 0}]
    assert read({"messages": turns}) == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: b"},
            r"differ first in turn 0 \(user, user\)",
        ),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "are the same"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"},
            "one of chosen and rejected ends",
        ),
        ({"chosen": "blue", "rejected": "green"}, "share no beginning"),
        ({"prompt": "a", "completion": None, "label": True}, "`completion` is missing"),
        ({"prompt": None, "completion": "b", "label": True}, "`prompt` is empty"),
        ({"prompt": "a", "completion": "b", "label": "maybe"}, "`label` is 'maybe'; valid: true or false"),
        ({"messages": say("a")}, "ends with role 'user'"),
        ({"messages": say("a", "b"), "tools": "no"}, "`tools` is no list of tools"),
        ({"conversations": [], "chosen": {}, "rejected": {}}, "`conversations` has no message"),
        ({"instruction": "a", "history": [["b"]], "output": "c"}, "`history` is no list of pairs"),
        ({"instruction": "a", "completions": ["b"]}, "completion 0 is no object"),
        ({"instruction": "a", "generations": ["b"], "ratings": [1, 2]}, "no two lists of one length"),
        (battle("me"), "`winner` is 'me'; valid: model_a, model_b, tie"),
        (battle("model_a", conversation_a=[{"role": "king", "content": "a"}]), "message 0 has the role 'king'"),
        (battle("model_a", judge={"a": 1}), "`judge` is a object"),
        ({"chosen_messages": None, "rejected_messages": say("a", "b")}, "the messages are a NoneType"),
        ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "`input.messages` is empty"),
    ],
)  # fmt: skip
def test_messy_records_are_refused_with_a_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        read(record)


def test_cells_that_hold_half_a_character_are_refused() -> None:
    r"""The 55k set of the Arena holds `\ud83d` without its other half, which no file in UTF-8 can."""
    found = find_format("lmsys-arena")
    record = {"winner_model_a": 1, "prompt": '["\\ud83d"]', "response_a": '["b"]', "response_b": '["c"]'}
    with pytest.raises(InvalidEventError, match="`prompt` begins as JSON and is none"):
        found.convert(Record(record))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("chosen-messages", {"messages": say("q", "good"), "rejected_response": "bad"}),
        ("chosen-messages", {"messages": say("q", "good"), "rejected_messages": say("q", "bad")}),
        ("sharegpt-dpo", {"messages": say("q"), "chosen": answer("good")[0], "rejected": answer("bad")[0]}),
        (
            "sharegpt-dpo",
            {
                "conversation": [{"sender": "user", "text": "q"}],
                "chosen": {"sender": "assistant", "text": "good"},
                "rejected": {"sender": "assistant", "text": "bad"},
            },
        ),
        (
            "gemini-preference",
            {
                "contents": [{"role": "user", "parts": [{"text": "q"}]}],
                "completions": [
                    {"score": 0, "completion": {"role": "model", "parts": [{"text": "bad"}]}},
                    {"score": 1, "completion": {"role": "model", "parts": [{"text": "good"}]}},
                ],
            },
        ),
    ],
)
def test_pairs_behind_a_conversation_of_other_trainers(name: str, record: dict[str, Any]) -> None:
    """Sets of ms-swift had become demonstrations without their rejected answers; the others had been refused."""
    assert pairs(read(record, name)) == [([("user", "q")], "good", "bad")]


def test_ms_swift_marks_one_answer_with_a_label() -> None:
    rows = read({"messages": say("q", "r"), "label": False}, "llama-factory-kto")
    assert [row.get("value") for row in rows if row.get("signal") == "thumb"] == [-1.0]


@pytest.mark.parametrize(
    "record",
    [
        {
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
                              {"from": "gpt", "value": "r", "weight": None}],
            "model_name": None, "views": None, "source": "x",
        },
        {
            "schemaVersion": "bedrock-conversation-2024", "system": [{"text": "s"}],
            "messages": [{"role": "user", "content": [{"text": "q"}]},
                         {"role": "assistant", "content": [{"text": "r"}]}],
        },
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
            "contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "r"}]}],
        },
    ],
)  # fmt: skip
def test_sets_for_tuning_of_other_vendors(record: dict[str, Any]) -> None:
    """OpenHermes has null columns named like those of logs; Bedrock and Gemini write system prompts as parts."""
    (row,) = read(record, "sft-messages")
    assert read_prompt(row) == [("system", "s"), ("user", "q")]


def test_a_battle_is_cut_where_a_turn_is_lost() -> None:
    """The 55,000 battles of Kaggle have null turns; one had refused the whole battle."""
    battle = {"id": 1, "prompt": '["q", null]', "response_a": '["bad", null]', "response_b": '["good", "x"]',
              "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}  # fmt: skip
    assert pairs(read(battle, "lmsys-arena")) == [([("user", "q")], "good", "bad")]
    with pytest.raises(InvalidEventError, match="first turn"):
        read({**battle, "response_a": "[null, null]"})
