"""The page of these formats: each shape on it is read, and each format has its part."""

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.formats.logs import FORMATS
from flywheel_assets_tests.formats.logs.readings import read
from flywheel_assets_tests.formats.pages import read_records

PAGE = Path(__file__).parents[3] / "docs" / "formats_logs.md"
SHAPES = read_records(PAGE)


@pytest.mark.parametrize(("name", "record"), SHAPES, ids=[f"{name}-{place}" for place, (name, _) in enumerate(SHAPES)])
def test_each_shape_on_the_page_is_read(name: str, record: dict[str, Any]) -> None:
    assert read(name, record)


def test_each_format_is_on_the_page() -> None:
    assert {name for name, _ in SHAPES} == {each.name for each in FORMATS}
