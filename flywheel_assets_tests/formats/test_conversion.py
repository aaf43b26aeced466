"""How the records of a source come to be converted: by name, by detection, by a mapping of fields."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError, InvalidRuleError, UnknownNameError
from flywheel_assets.formats.conversion import choose_conversion, is_record, list_formats, list_unread
from flywheel_assets.formats.reading.entries import Entry
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import Edit

EDIT = {"prompt": "How?", "original_llm_output": "Thus.", "final_user_edit": "Like this."}


def entries(*values: dict[str, Any] | bytes) -> list[Entry]:
    encoded = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in values]
    return [Entry(number, each) for number, each in enumerate(encoded, 1)]


def test_our_own_records_are_found_among_broken_ones() -> None:
    found = choose_conversion(entries(b"{broken", {"prompt": 1}, EDIT), "x")
    assert found.name == "edits"
    assert found.convert(json.dumps(EDIT).encode()) == [Edit("How?", "Thus.", "Like this.")]


def test_what_nothing_knows_is_refused_with_its_fields_and_what_helps() -> None:
    with pytest.raises(InvalidEventError) as raised:
        choose_conversion(entries({"colour": 1, "shape": 2}), "x.csv")
    sentence = str(raised.value)
    assert sentence.startswith("no format has the fields of x.csv: colour, shape")
    assert "--map prompt=question,final_text=answer_sent" in sentence


def test_a_name_is_taken_or_the_names_are_listed() -> None:
    assert choose_conversion(entries({"colour": 1}), "x", "edits").name == "edits"
    with pytest.raises(UnknownNameError, match=r"unknown format 'edit'; known: .*edits"):
        choose_conversion([], "x", "edit")


class Questions:
    """A mapping of three fields."""

    def check_columns(self, sample: Iterable[Record], /) -> None:
        if any("question" not in each.values for each in sample):
            raise InvalidRuleError("no column 'question'")

    def convert(self, record: Record, /) -> list[Edit]:
        return [Edit(*(str(record.get(name)) for name in ("question", "draft", "sent")))]


def test_a_mapping_converts_and_its_other_fields_are_listed() -> None:
    row = {"question": "How?", "draft": "Thus.", "sent": "Like this.", "agent": 3}
    sample = [Entry(2, row)]
    found = choose_conversion(sample, "x", mapping=Questions())
    assert found.convert(row) == [Edit("How?", "Thus.", "Like this.")]
    assert list_unread(sample, found) == ["agent"]
    with pytest.raises(InvalidRuleError, match="no column 'question'"):
        choose_conversion([Entry(2, {"q": "How?"})], "x", mapping=Questions())


def test_a_fault_of_a_format_costs_only_the_record() -> None:
    """One annotation without answers ended the import of all others with a traceback."""

    class Faulty(Questions):
        def convert(self, record: Record, /) -> list[Edit]:
            return [record.values["answers"][0]]

    found = choose_conversion([], "x", mapping=Faulty())
    with pytest.raises(InvalidEventError, match=r"the format map cannot read this shape .*IndexError"):
        found.convert({"answers": []})
    assert list_unread([Entry(1, {"answers": []})], found) == ["answers"]


def test_names_are_said_once_and_no_record_has_two_formats() -> None:
    names = [each.name for each in list_formats()]
    assert names[0] == "edits"
    assert len(set(names)) == len(names)
    assert is_record(EDIT)
    assert not is_record({"data": [EDIT]})
