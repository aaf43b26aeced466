"""Formats are found by name and by what most records have; doubt is an error that helps."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError, UnknownNameError
from flywheel_assets.formats.catalog import describe_unknown, detect_format, find_format, find_nearest
from flywheel_assets.formats.record import Record

HH = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
ANSWER = [{"role": "assistant", "content": "b"}]
ALPACA = {"instruction": "a", "output": "b"}


def detect(*records: dict[str, Any]) -> str | None:
    found = detect_format([Record(record) for record in records])
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([HH], "hh-rlhf"),
        ([HH, ALPACA, HH], "hh-rlhf"),
        ([ALPACA, HH, ALPACA], "alpaca"),
        ([{}, {"x": 1}, HH], "hh-rlhf"),
        ([{"x": 1}], None),
        ([], None),
    ],
)
def test_most_records_decide(records: list[dict[str, Any]], expected: str | None) -> None:
    assert detect(*records) == expected


def test_doubt_names_both_formats_and_the_options() -> None:
    with pytest.raises(InvalidEventError, match=r"hh-rlhf and alpaca.*--format hh-rlhf .* or --format alpaca"):
        detect(HH, ALPACA)


def test_unknown_records_are_described_with_the_nearest_formats() -> None:
    said = describe_unknown([Record({"instruction": "a", "answer": "b"})], "x.json")
    assert said.startswith("no format has the fields of x.json: answer, instruction; nearest: ultrafeedback (")
    assert "--map" in said
    assert "--format" in said


def test_nothing_is_near_to_strange_fields() -> None:
    assert find_nearest(["zzz"]) == []


def test_an_unknown_name_lists_the_known() -> None:
    assert find_format("argilla").name == "argilla"
    with pytest.raises(UnknownNameError, match=r"known: alpaca, .*trl-unpaired"):
        find_format("csv")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": ANSWER, "rejected": ANSWER},
        {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_model": "m"},
        {"prompt": "a", "original_llm_output": "b", "final_user_edit": "c"},
        {"specversion": "1.0", "type": "flywheel.feedback", "id": "1", "source": "s", "data": {}},
    ],
)  # fmt: skip
def test_our_own_records_are_left_to_our_own_format(record: dict[str, Any]) -> None:
    assert detect(record) is None


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "completion": "b", "model": "m", "timestamp": 1},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "user_id": "u"},
        {"eventName": "editOutcome", "prompt": "a", "completion": "b", "accepted": True},
        {"instruction": "a", "output": "b", "rating": 1},
    ],
)
def test_what_a_model_said_in_a_log_is_no_demonstration(record: dict[str, Any]) -> None:
    assert detect(record) not in ("sft-messages", "alpaca", "prompt-completion")
