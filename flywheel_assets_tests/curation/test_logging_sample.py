import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.curation.logging_sample import compute_sampling_position, is_sampled


@given(st.text())
def test_every_id_has_a_place_that_does_not_change(prediction_id: str) -> None:
    assert 0.0 <= compute_sampling_position(prediction_id) < 1.0
    assert compute_sampling_position(prediction_id) == compute_sampling_position(prediction_id)
    assert is_sampled(prediction_id, 1.0)
    assert not is_sampled(prediction_id, 0.0)


@pytest.mark.parametrize(
    ("prediction_id", "position"),
    [("", 0.6689221884589642), ("prediction-1", 0.5699061814229935), ("Übung-🙂", 0.18792763235978782)],
)
def test_the_places_never_change(prediction_id: str, position: float) -> None:
    """Another hash would put other predictions into the sample than those that lie in the lake already."""
    assert compute_sampling_position(prediction_id) == position


def test_a_higher_probability_only_adds() -> None:
    ids = [f"prediction-{number}" for number in range(20_000)]
    one = {name for name in ids if is_sampled(name, 0.01)}
    five = {name for name in ids if is_sampled(name, 0.05)}
    assert one < five


@pytest.mark.parametrize("template", ["{}", "prediction-{}", "2026-03-02T12:00:00Z-{}", "{:032x}"])
def test_consecutive_ids_are_sampled_at_the_stated_rate(template: str) -> None:
    kept = sum(is_sampled(template.format(number), 0.01) for number in range(100_000))
    assert 870 <= kept <= 1130  # ± 4 standard deviations
