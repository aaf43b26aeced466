from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flywheel_assets.errors import SettingsError
from flywheel_assets.measures.drift import (
    MAX_CATEGORIES,
    DriftLimits,
    DriftReference,
    FieldDrift,
    build_drift_reference,
    find_breaches,
    jensen_shannon,
    measure_drift,
    psi,
)

Array = npt.NDArray[Any]
LIMITS = DriftLimits()


def world(rows: int, seed: int) -> dict[str, Array]:
    """Fields as a fraud model has them: skewed amounts, counts with many zeros, flags, a score near 0, a country."""
    generator = np.random.default_rng(seed)
    return {
        "amount": generator.lognormal(3.5, 1.0, rows),
        "risk": np.where(generator.random(rows) < 0.9, 0.0, generator.beta(1, 3, rows)),
        "count": generator.poisson(2.0, rows).astype(float),
        "weekend": generator.random(rows) < 2 / 7,
        "score": generator.random(rows) ** 8,
        "country": generator.choice(["AT", "DE", "FR", "PL"], rows, p=[0.5, 0.3, 0.15, 0.05]),
    }


def drifted(before: dict[str, Array], after: dict[str, Array]) -> dict[str, FieldDrift]:
    return measure_drift(build_drift_reference(pa.table(before)), pa.table(after))


@pytest.fixture(scope="module")
def trained_on() -> dict[str, Array]:
    return world(50_000, 0)


@pytest.mark.parametrize("rows", [1000, 5000, 50_000])
def test_what_did_not_drift_is_hardly_ever_named(trained_on: dict[str, Array], rows: int) -> None:
    """40 days of each of 6 fields; the PSI of honest noise is about (bins − 1) · (1/n + 1/m)."""
    reference = build_drift_reference(pa.table(trained_on))
    days = [measure_drift(reference, pa.table(world(rows, seed))) for seed in range(1, 41)]
    assert sum(len(find_breaches(day, LIMITS)) for day in days) == 0
    psis = [drift.psi for day in days for drift in day.values() if drift.psi is not None]
    assert len(psis) == 240
    assert np.quantile(psis, 0.95) < 25 * (1 / rows + 1 / 50_000)


@pytest.mark.parametrize(
    ("what", "field", "change", "named"),
    [
        ("all amounts half as much again", "amount", lambda v: v * 1.5, "PSI"),
        ("cents instead of euros", "amount", lambda v: v * 100, "PSI"),
        ("zeros no longer zero", "risk", lambda v: v + 0.05, "PSI"),
        ("all zero", "risk", lambda v: v * 0, "PSI"),
        ("one more of each", "count", lambda v: v + 1, "PSI"),
        ("always weekend", "weekend", lambda v: v | True, "PSI"),
        ("scores inflated", "score", lambda v: v**0.5, "PSI"),
        ("another country", "country", lambda v: np.where(v == "DE", "XX", v), "PSI"),
        ("a fifth missing", "amount", lambda v: np.where(np.arange(len(v)) % 5 == 0, np.nan, v), "missing in 20.0%"),
    ],
)
def test_what_was_moved_is_named_and_nothing_else(
    trained_on: dict[str, Array], what: str, field: str, change: Any, named: str
) -> None:
    after = world(5000, 1)
    after[field] = change(after[field])
    found = find_breaches(drifted(trained_on, after), LIMITS)
    assert list(found) == [field]
    assert named in found[field]


def test_neither_psi_nor_wasserstein_alone_names_a_number(trained_on: dict[str, Array]) -> None:
    after = world(5000, 1)
    after["amount"] = np.where(np.arange(5000) < 25, 1e5, after["amount"])  # few values, very far
    far = drifted(trained_on, after)["amount"]
    assert far.psi is not None
    assert far.wasserstein is not None
    assert far.psi < LIMITS.max_psi
    assert far.wasserstein > 1
    after = world(5000, 1)
    after["risk"] = np.where(after["risk"] == 0, 1e-6, after["risk"])  # all values, very near
    near = drifted(trained_on, after)["risk"]
    assert near.psi is not None
    assert near.psi > 1
    assert near.wasserstein is not None
    assert near.wasserstein < LIMITS.max_wasserstein
    assert find_breaches({"far": far, "near": near}, LIMITS) == {}


def test_a_shift_by_a_standard_deviation_is_a_wasserstein_of_one() -> None:
    values = np.random.default_rng(0).normal(10, 3, 20_000)
    found = drifted({"x": values}, {"x": values + 3})["x"]
    assert found.wasserstein == pytest.approx(1, rel=0.01)


def test_scipy_says_the_same() -> None:
    stats = pytest.importorskip("scipy.stats")
    distance = pytest.importorskip("scipy.spatial.distance")
    generator = np.random.default_rng(0)
    before, after = generator.gamma(2, 10, 20_000), generator.gamma(2.5, 9, 20_000)
    found = drifted({"x": before}, {"x": after})["x"]
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(before, after) / before.std(), rel=0.05)
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.3, 0.4, 0.2])
    assert jensen_shannon(p, q) == pytest.approx(distance.jensenshannon(p, q, base=2))
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    assert psi(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))


shares = (
    st.lists(st.floats(0, 1), min_size=4, max_size=4)
    .filter(lambda s: sum(s) > 0.01)
    .map(lambda s: np.array(s) / sum(s))
)


@example(before=np.array([0.0, 0.0, 0.0, 1.0]), after=np.array([0.0, 0.0, 5e-324, 1.0]))
@given(before=shares, after=shares)
def test_distances_are_symmetric_and_zero_only_at_home(before: Array, after: Array) -> None:
    assert psi(before, before) == jensen_shannon(before, before) == 0
    assert psi(before, after) >= 0
    assert psi(before, after) == pytest.approx(psi(after, before))
    assert 0 <= jensen_shannon(before, after) <= 1 + 1e-12
    assert jensen_shannon(before, after) == pytest.approx(jensen_shannon(after, before), abs=1e-7)


def test_the_reference_is_of_the_world_not_of_what_was_kept(trained_on: dict[str, Array]) -> None:
    """A surprise sample looks drifted by itself; with its weights it is the world it was drawn from."""
    kept_share = np.clip(10 * trained_on["score"], 0.05, 1)
    kept = np.random.default_rng(3).random(50_000) < kept_share
    sample = pa.table({name: values[kept] for name, values in trained_on.items()})
    now = pa.table(world(5000, 1))
    assert find_breaches(measure_drift(build_drift_reference(sample, 1 / kept_share[kept]), now), LIMITS) == {}
    assert "score" in find_breaches(measure_drift(build_drift_reference(sample), now), LIMITS)


def test_too_few_rows_give_no_distances(trained_on: dict[str, Array]) -> None:
    few = drifted(trained_on, world(999, 1))
    assert {(drift.psi, drift.wasserstein, drift.jensen_shannon) for drift in few.values()} == {(None, None, None)}
    thin = build_drift_reference(pa.table(trained_on), np.where(np.arange(50_000) < 900, 1.0, 1e-6))
    assert thin.fields["amount"].rows < 1000  # weights leave 900 of 50,000 rows as evidence
    assert measure_drift(thin, pa.table(world(5000, 1)))["amount"].psi is None
    nothing = drifted(trained_on, world(0, 1))
    assert nothing["amount"].missing_share is None
    assert find_breaches(nothing, LIMITS) == {}


def test_missing_values_are_compared_by_their_share_only(trained_on: dict[str, Array]) -> None:
    after = pa.table(world(5000, 1)).drop_columns(["amount", "country"])
    found = measure_drift(build_drift_reference(pa.table(trained_on)), after)
    assert found["amount"] == FieldDrift(0, 1.0, 0.0, None, None, None)
    assert found["country"].missing_share == 1.0
    assert set(find_breaches(found, LIMITS)) == {"amount", "country"}
    null = measure_drift(
        build_drift_reference(pa.table({"x": [None, None, 1.0, float("nan")]})), pa.table({"x": [1.0, 2.0]})
    )
    assert null["x"].reference_missing_share == 0.75
    assert null["x"].missing_share == 0


@pytest.mark.parametrize("constant", [0.0, 5.0, -2.0])
def test_a_constant_that_moves_is_seen(constant: float) -> None:
    stays, moves = np.full(2000, constant), np.full(2000, constant + 1)
    assert find_breaches(drifted({"x": stays}, {"x": stays}), LIMITS) == {}
    assert list(find_breaches(drifted({"x": stays}, {"x": moves}), LIMITS)) == ["x"]


def test_rare_categories_share_a_bin() -> None:
    names = [f"c{number:03}" for number in range(200)]
    before = {"x": np.array(names * 20 + ["c000"] * 3000)}
    reference = build_drift_reference(pa.table(before)).fields["x"]
    assert reference.categories is not None
    assert reference.categories[0] == "c000"
    assert len(reference.categories) == MAX_CATEGORIES
    assert sum(reference.shares) == pytest.approx(1)
    assert drifted(before, before)["x"].psi == pytest.approx(0, abs=1e-12)


def test_a_reference_survives_json_bit_for_bit(trained_on: dict[str, Array]) -> None:
    reference = build_drift_reference(pa.table(trained_on))
    stored = msgspec.json.decode(msgspec.json.encode(reference), type=DriftReference)
    assert stored == reference
    assert measure_drift(stored, pa.table(world(5000, 1))) == measure_drift(reference, pa.table(world(5000, 1)))


def test_a_field_that_changed_its_kind_is_refused(trained_on: dict[str, Array]) -> None:
    with pytest.raises(ValueError, match="type string is compared with a reference of numbers"):
        drifted({"x": np.ones(5)}, {"x": np.array(["a", "b"])})
    with pytest.raises(ValueError, match="50000 rows and 3 weights"):
        build_drift_reference(pa.table(trained_on), [1, 2, 3])


@pytest.mark.parametrize("limits", [{"min_rows": 0}, {"max_psi": 0.0}, {"max_wasserstein": float("nan")}])
def test_limits_that_limit_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(limits))):
        DriftLimits(**limits)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(
        st.one_of(st.just(0.0), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)), min_size=1, max_size=60
    ),
    weights=st.data(),
)
def test_shares_sum_to_one_and_nothing_differs_from_itself(values: list[float], weights: st.DataObject) -> None:
    w = weights.draw(st.lists(st.floats(0.1, 100), min_size=len(values), max_size=len(values)))
    reference = build_drift_reference(pa.table({"x": values}), w)
    assert sum(reference.fields["x"].shares) == pytest.approx(1)
    unweighted = build_drift_reference(pa.table({"x": values}))
    found = measure_drift(unweighted, pa.table({"x": values}), DriftLimits(min_rows=1))["x"]
    assert (found.psi, found.wasserstein, found.jensen_shannon) == pytest.approx((0, 0, 0), abs=1e-6)
