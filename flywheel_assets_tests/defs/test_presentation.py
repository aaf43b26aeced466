"""Small plots: Dagster shows them without a click only below its limit of characters."""

import base64
import re
from xml.etree import ElementTree

import pytest

from flywheel_assets.defs.presentation import INLINE_CHARACTERS, embed_small_plot


@pytest.mark.parametrize("points", [0, 1, 2, 200, 5_000])
def test_a_small_plot_stays_below_the_limit_however_many_points_there_are(points: int) -> None:
    line = [(number / max(1, points - 1), 1 / 3) for number in range(points)]
    text = str(embed_small_plot("champion orange", {"#E69F00": line}, {"#009E73": line}, {"#E69F00": line}).md_str)
    assert len(text) < INLINE_CHARACTERS
    found = re.search(r"base64,([^)]+)\)\n\nchampion orange$", text)
    assert found is not None
    drawn = ElementTree.fromstring(base64.b64decode(found[1]))
    strokes = [each.get("stroke") for each in drawn]
    assert strokes == ["#999", "#E69F00", "#009E73"]


def test_a_long_line_keeps_its_ends() -> None:
    line = [(number / 999, number / 999) for number in range(1_000)]
    found = re.search(r"base64,([^)]+)", str(embed_small_plot("x", {"#999999": line}).md_str))
    assert found is not None
    svg = base64.b64decode(found[1]).decode()
    assert "M2 98 " in svg
    assert " 100 2" in svg
