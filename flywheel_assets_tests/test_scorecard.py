"""The scorecard of curation runs: every part, on twenty rows, so that it cannot rot between two measurements."""

import re

import pytest

from benchmarks.curation_scorecard import PARTS
from flywheel_assets_tests.real_data import needs_real_data

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.slow,
    needs_real_data("mlqe_pe"),
    # The peers warn when they are imported; what they warn about is theirs.
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_scorecard_prints_a_whole_table(part: str) -> None:
    rows = [line for line in PARTS[part](20) if line.startswith("|")]
    assert len(rows) >= 3
    assert any(re.search(r"\d", row) for row in rows[2:])


def test_operator_prompts_cost_no_edit_and_opposites_are_never_merged() -> None:
    [*lengths] = [line.split("|") for line in PARTS["system_prompts"](20) if re.match(r"\| \d", line)]
    assert {line[3].strip() for line in lengths} == {"100.0%"}
    [flywheel] = [line for line in PARTS["near_duplicates"](20) if line.startswith("| flywheel")]
    assert "0 of 20 (none)" in flywheel
