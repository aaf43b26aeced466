"""No record makes a format fail: it gives events that capture lands, or the reason why not."""

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats import annotations, preferences
from flywheel_assets.formats.catalog import FORMATS
from flywheel_assets.formats.format import Format
from flywheel_assets.formats.mapping import read_mapping
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.landings import land
from flywheel_assets_tests.formats.pages import read_shapes

SHOWN = {shape.format: shape.records for shape in read_shapes(Path(__file__).parents[2] / "docs" / "formats.md")}
WORDS = st.sampled_from(["", "good", "response_a", "1", "[", "{}", '[{"role": "user"}]', "\n\nHuman: a", "2021-03-09"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5) | WORDS
NAMES = st.sampled_from(
    ["role", "content", "from", "value", "rank", "selected", "choices", "text", "rating", "user_id", "result", "type"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
OURS = [*preferences.FORMATS, *annotations.FORMATS]


@st.composite
def draw_damaged(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draw a shown record in which one to three places, at any depth, are replaced or removed."""
    record: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(SHOWN[name])))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = record
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(VALUES)
            else:
                del place[key]
            break
    return record


def check(convert: Callable[[Record], Any], record: dict[str, Any]) -> None:
    for each in FORMATS:
        assert each.matches(Record(record)) in (True, False)
    with suppress(InvalidEventError):
        land(convert(Record(record)))


@pytest.mark.parametrize("chosen", OURS, ids=lambda each: each.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_records_give_events_or_a_reason(chosen: Format, data: st.DataObject) -> None:
    check(chosen.convert, data.draw(draw_damaged(chosen.name)))


@pytest.mark.parametrize("chosen", OURS, ids=lambda each: each.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_strange_records_give_events_or_a_reason(chosen: Format, data: st.DataObject) -> None:
    names = st.sampled_from(sorted({*chosen.fields, "prompt", "id", "system", "tools"}))
    check(chosen.convert, data.draw(st.dictionaries(names, VALUES, max_size=6)))


@settings(max_examples=40, deadline=None)
@given(row=st.dictionaries(st.sampled_from("pofcrtxkiu"), VALUES))
def test_strange_rows_give_events_or_a_reason(row: dict[str, Any]) -> None:
    mapping = read_mapping(
        ["prompt=p,output=o,final_text=f,chosen=c,rejected=r,thumb=t,rating=x,occurred_at=k,prediction_id=i,user_id=u"]
    )
    check(mapping.convert, row)
