"""Rows for TRL: what its own functions say of them is in `lake/versions/test_sharing.py`."""

import json
from typing import Any

import msgspec
import pytest

from flywheel_assets.conversations import encode_answer, encode_prompt
from flywheel_assets.formats.writing.examples import Example, Shape
from flywheel_assets.formats.writing.trl import write_judgements, write_preference
from flywheel_assets.wire import Choice
from flywheel_assets_tests.formats.writing import samples


def test_a_file_of_texts_is_texts() -> None:
    shape = Shape.find([samples.TEXT_PAIR])
    assert write_preference(samples.TEXT_PAIR, shape) == {
        "prompt": "Why?", "chosen": "Because of the rain.", "rejected": "I do not know."
    }  # fmt: skip


def test_one_conversation_makes_the_file_conversations() -> None:
    """Readers give a column one type: a text among lists would end their loading."""
    shape = Shape.find([samples.TEXT_PAIR, samples.CHAT_PAIR])
    assert write_preference(samples.TEXT_PAIR, shape)["prompt"] == [{"role": "user", "content": "Why?"}]
    assert write_preference(samples.TEXT_PAIR, shape)["chosen"] == [
        {"role": "assistant", "content": "Because of the rain."}
    ]


@pytest.mark.parametrize("example", [samples.CALL_PAIR, samples.RESULT_PAIR, samples.REASONED, samples.SHOWN])
def test_messages_keep_calls_reasoning_and_parts(example: Example) -> None:
    row = json.loads(json.dumps(write_preference(example, Shape.find([example]))))
    assert json.loads(row.get("tools", "null")) == example.tools
    for name, answer in (("chosen", example.chosen), ("rejected", example.rejected)):
        assert same(row[name][0], answer)
    assert all(same(found, message) for found, message in zip(row["prompt"], example.messages, strict=True))


def same(found: dict[str, Any], message: Any) -> bool:
    """Whether the fields are those of the message; `content` is always there."""
    return found == {"role": str(message.role), "content": "", **msgspec.to_builtins(message)}


def test_both_answers_are_judged_and_an_objection_alone() -> None:
    shape = Shape.find([samples.CHAT_PAIR, samples.OBJECTION])
    assert [row["label"] for row in write_judgements(samples.CHAT_PAIR, shape)] == [True, False]
    [row] = write_judgements(samples.OBJECTION, shape)
    assert (row["label"], row["completion"]) == (False, [{"role": "assistant", "content": "Go away."}])
    [row] = write_judgements(samples.ACCEPTED, shape)
    assert row["label"] is True


@pytest.mark.parametrize("example", [samples.TEXT_PAIR, samples.CHAT_PAIR, samples.REASONED, samples.SHOWN])
def test_a_written_pair_is_read_again_as_the_same(example: Example) -> None:
    """Round trip through the choice of the wire, as a file of pairs is imported."""
    row = write_preference(example, Shape.find([example]))
    tools = json.loads(row.pop("tools", "null"))
    choice = msgspec.json.decode(json.dumps({**row, **({"tools": tools} if tools else {})}), type=Choice)
    assert encode_prompt(choice.prompt) == encode_prompt(example.prompt)
    assert encode_answer(choice.chosen) == encode_answer(example.chosen)
    assert encode_answer(choice.rejected) == encode_answer(example.rejected)
