"""What is written goes in again: the reading formats give the same pairs back."""

import json
from typing import Any

import pytest

from flywheel_assets.conversations import Message, Role, encode_tools, read_answer_text
from flywheel_assets.formats import own
from flywheel_assets.formats.catalog import detect_format, find_format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.writing import openai, trl
from flywheel_assets.formats.writing.examples import Example, Shape
from flywheel_assets.wire import Choice
from flywheel_assets_tests.formats.writing import samples

PAIRS = ["TEXT_PAIR", "CHAT_PAIR", "CALL_PAIR", "RESULT_PAIR", "REASONED"]


def read(name: str, row: dict[str, Any]) -> list[Any]:
    """The events of a row, read by the format of this name, which it is also recognised as."""
    format_ = find_format(name)
    record = Record(json.loads(json.dumps(row)))
    assert detect_format([record]) is format_
    return list(format_.convert(record))


def texts(prompt: Any) -> list[tuple[Role, str]]:
    messages = [Message(Role.USER, prompt)] if isinstance(prompt, str) else prompt
    return [(message.role, read_answer_text(message)) for message in messages]


def answer(value: Any) -> str:
    if isinstance(value, list):
        [value] = value
    return value if isinstance(value, str) else read_answer_text(value)


def is_same(choice: Any, example: Example) -> bool:
    assert isinstance(choice, Choice)
    assert example.chosen is not None
    assert example.rejected is not None
    found = (texts(choice.prompt), answer(choice.chosen), answer(choice.rejected), encode_tools(choice.tools))
    chosen, rejected = read_answer_text(example.chosen), read_answer_text(example.rejected)
    return found == (texts(example.prompt), chosen, rejected, encode_tools(example.tools))


@pytest.mark.parametrize("name", PAIRS)
def test_trl_pairs_come_back(name: str) -> None:
    """With its prompt apart, TRL's row is a choice in our own fields."""
    example: Example = getattr(samples, name)
    row = trl.write_preference(example, Shape.find([example]))
    [choice] = own.convert_entry(json.dumps(row).encode())
    assert is_same(choice, example)


@pytest.mark.parametrize("name", PAIRS)
def test_openai_pairs_come_back(name: str) -> None:
    example: Example = getattr(samples, name)
    written = openai.write_preference(example)
    assert isinstance(written, openai.Written)
    [choice] = read("openai-preference", written.row)
    assert is_same(choice, example)


@pytest.mark.parametrize("name", ["TEXT_PAIR", "CHAT_PAIR", "CALL_PAIR"])
def test_judged_answers_come_back(name: str) -> None:
    example: Example = getattr(samples, name)
    rows = trl.write_judgements(example, Shape.find([example]))
    for row, said, thumb in zip(rows, example.answers, (1.0, -1.0), strict=True):
        predicted, judged = read("trl-unpaired", row)
        assert texts(predicted.data.prompt) == texts(example.prompt)
        assert answer(predicted.data.output) == read_answer_text(said)
        assert (judged.data.value, judged.data.prediction_id) == (thumb, predicted.data.prediction_id)
