"""The exact interval of a share, against SciPy's."""

import pytest

from flywheel_assets.measures.shares import bound_share


@pytest.mark.parametrize(("hits", "drawn"), [(0, 20), (1, 40), (20, 20), (3, 1000), (7, 5000), (1, 1)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_interval_is_clopper_and_pearsons(hits: int, drawn: int, alpha: float) -> None:
    from scipy.stats import binomtest

    exact = binomtest(hits, drawn).proportion_ci(1 - alpha, method="exact")
    assert bound_share(hits, drawn, alpha=alpha) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_without_a_draw_everything_is_possible() -> None:
    assert bound_share(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "drawn"), [(2, 1), (-1, 4)])
def test_hits_that_cannot_be_are_refused(hits: int, drawn: int) -> None:
    with pytest.raises(ValueError, match=f"received {hits} hits of {drawn} draws; valid: 0 to {drawn}"):
        bound_share(hits, drawn)
