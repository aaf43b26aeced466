"""Every shape that the page of formats shows is detected as its format, by no other, and becomes what the page says."""

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.formats import annotations, preferences
from flywheel_assets.formats.catalog import FORMATS, detect_format, find_format
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.landings import land
from flywheel_assets_tests.formats.pages import Shape, name_kind, read_records, read_shapes

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
PAGES = sorted(PAGE.parent.glob("formats*.md"))
SHAPES = read_shapes(PAGE)
SHOWN = [shown for page in PAGES for shown in read_records(page)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.format)
def test_shown_records_become_what_the_page_says(shape: Shape) -> None:
    events = [event for record in shape.records for event in find_format(shape.format).convert(Record(record))]
    assert [name_kind(event) for event in events] == list(shape.kinds)
    assert land(events)
    assert shape.is_named


@pytest.mark.parametrize(("name", "record"), SHOWN, ids=[f"{name}-{place}" for place, (name, _) in enumerate(SHOWN)])
def test_shown_records_are_of_their_format_and_of_no_other(name: str, record: dict[str, Any]) -> None:
    assert [each.name for each in FORMATS if each.matches(Record(record))] == [name]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.format)
def test_shown_records_are_detected(shape: Shape) -> None:
    found = detect_format([Record(record) for record in shape.records])
    assert found is not None
    assert found.name == shape.format


def test_every_format_shows_a_record() -> None:
    assert {name for name, _ in SHOWN} == {each.name for each in FORMATS}


def test_the_page_shows_every_format_of_its_rooms() -> None:
    named = [each.name for each in (*preferences.FORMATS, *annotations.FORMATS)]
    assert [shape.format for shape in SHAPES] == named
    assert all(f"[`{name}`](#{name})" in PAGE.read_text() for name in named)


def test_names_are_unique_and_fields_are_given() -> None:
    names = [each.name for each in FORMATS]
    assert len(names) == len(set(names))
    assert all(each.fields for each in (*preferences.FORMATS, *annotations.FORMATS))
