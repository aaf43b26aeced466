"""The pages of a classifier's assets: what the first view shows, and of whom a figure holds."""

from datetime import date, timedelta

import pytest

from flywheel_assets.defs.assets._classifier_plots import draw_small_drift
from flywheel_assets.defs.assets.classification import describe_population
from flywheel_assets.defs.presentation import INLINE_CHARACTERS
from flywheel_assets.lake.versions.exports import Manifest
from flywheel_assets.measures.drift import DriftLimits


@pytest.mark.parametrize("days", [1, 2, 60])
def test_drift_is_drawn_in_the_first_view(days: int) -> None:
    """The plot of the PSI lay behind a link; the others of a classifier are seen without a click."""
    fields = {
        f"a_rather_long_feature_name_{number}": {
            date(2026, 3, 1) + timedelta(days=offset): 0.01 * number * offset for offset in range(days)
        }
        for number in range(6)
    }
    text = str(draw_small_drift(fields, DriftLimits()).md_str)
    assert text.startswith("![plot](data:image/svg+xml")
    assert len(text) < INLINE_CHARACTERS
    assert "a_rather_long_feature_name_0 blue" in text


def test_an_evaluation_of_labelled_rows_alone_says_so() -> None:
    facts = {"version": "v1", "application": "moderation", "snapshot_id": 1, "files": {}, "dropped": {}, "days": {}}
    manifest = Manifest(**facts, rules={}, code_version="1", details={"label_propensity_known": 0.25})
    assert describe_population(manifest) == {
        "evaluation_holds": "for labelled predictions only: silence is unknown, and 25% of the training rows have the "
        "`label_propensity` that lets a row stand for those without a label"
    }
    for details in ({}, {"label_propensity_known": 1.0}):
        assert describe_population(Manifest(**facts, rules={}, code_version="1", details=details)) == {}
