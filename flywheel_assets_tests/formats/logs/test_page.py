"""The page of these formats: each shape on it is read, and each format has its part."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.formats.logs import FORMATS
from flywheel_assets_tests.formats.logs.readings import read

PAGE = Path(__file__).parents[3] / "docs" / "formats_logs.md"
HEADING = re.compile(r"^## .*\(`--format ([\w-]+)`\)$", re.MULTILINE)
BLOCK = re.compile(r"^```json\n(.*?)^```", re.DOTALL | re.MULTILINE)


def list_shapes() -> Iterator[tuple[str, dict[str, Any]]]:
    _, *parts = HEADING.split(PAGE.read_text())
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        for block in BLOCK.findall(text):
            yield name, json.loads(block)


SHAPES = list(list_shapes())


@pytest.mark.parametrize(("name", "record"), SHAPES, ids=[f"{name}-{place}" for place, (name, _) in enumerate(SHAPES)])
def test_each_shape_on_the_page_is_read(name: str, record: dict[str, Any]) -> None:
    assert read(name, record)


def test_each_format_is_on_the_page() -> None:
    assert {name for name, _ in SHAPES} == {each.name for each in FORMATS}
