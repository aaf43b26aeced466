"""Decisions about classifiers of several classes: what two classes cannot see is refused."""

import numpy as np
import numpy.typing as npt
import pytest

from flywheel_assets.measures.classifiers import (
    bootstrap_average_precision_gain,
    bootstrap_class_gains,
    count_confusions,
)
from flywheel_assets.promotion.classifier_evidence import (
    ClassColumns,
    ClassifierEvidence,
    EvaluationRows,
    measure_evidence,
)
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, StatedReason, decide_classifier

Floats = npt.NDArray[np.float64]
NAMES = ("legit", "stolen", "friendly")
ROWS = 4000


def make_world(seed: int = 0) -> tuple[npt.NDArray[np.int64], Floats]:
    """Labels drawn from probabilities: a quarter is no legitimate payment, and mostly one sees which kind it is."""
    rng = np.random.default_rng(seed)
    positive = rng.beta(0.5, 1.5, ROWS)
    stolen = rng.beta(0.3, 0.3, ROWS)
    probabilities = np.column_stack([1 - positive, positive * stolen, positive * (1 - stolen)])
    draws = rng.random(ROWS)
    return (draws[:, None] > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2), probabilities


def confuse(probabilities: Floats) -> Floats:
    """Say of both classes that are no legitimate payment the same; the score stays what it was."""
    half = (1 - probabilities[:, 0]) / 2
    return np.column_stack([probabilities[:, 0], half, half])


def measure(labels: npt.NDArray[np.int64], incumbent: Floats, challenger: Floats) -> ClassifierEvidence:
    rows = EvaluationRows(
        labels=labels != 0,
        incumbent_scores=1 - incumbent[:, 0],
        challenger_scores=1 - challenger[:, 0],
        weeks=[f"week {number % 2}" for number in range(ROWS)],
        entities=[f"card {number % 700}" for number in range(ROWS)],
        classes=ClassColumns(names=NAMES, labels=labels, incumbent=incumbent, challenger=challenger),
    )
    return measure_evidence(rows, incumbent="champion", threshold=0.5, draws=200)


def failed(evidence: ClassifierEvidence, reason: StatedReason) -> set[str]:
    return {check.name for check in decide_classifier(evidence, ClassifierLimits(), reason).checks if not check.ok}


@pytest.mark.parametrize("reason", list(StatedReason))
def test_a_challenger_that_confuses_two_classes_is_refused_though_its_ap_is_equal(reason: StatedReason) -> None:
    labels, probabilities = make_world()
    evidence = measure(labels, probabilities, confuse(probabilities))
    assert (evidence.ap_gain.low, evidence.ap_gain.high) == (0.0, 0.0)
    assert failed(evidence, reason) == {"macro_ap_gain", "classes"}
    sentence = decide_classifier(evidence, ClassifierLimits(), reason).sentence
    assert "macro average precision" in sentence
    assert "of class '" in sentence


def test_a_challenger_that_tells_two_classes_apart_is_promoted_though_its_ap_is_equal() -> None:
    labels, probabilities = make_world()
    evidence = measure(labels, confuse(probabilities), probabilities)
    assert decide_classifier(evidence, ClassifierLimits()).promote
    assert evidence.classes is not None
    assert np.sum(evidence.classes.confusion) == ROWS
    assert np.trace(evidence.classes.confusion) > np.trace(evidence.classes.incumbent_confusion)


def test_a_class_with_few_rows_is_shown_and_decides_nothing() -> None:
    labels, probabilities = make_world()
    rare = np.where((labels == 2) & (np.cumsum(labels == 2) > 30), 1, labels)
    found = measure(rare, probabilities, confuse(probabilities)).classes
    assert found is not None
    assert [part.ap_gain is None for part in found.by_class] == [False, False, True]
    assert found.by_class[2].average_precision is not None
    assert found.macro_average_precision == pytest.approx(
        np.mean([part.average_precision for part in found.by_class[:2]])
    )


def test_one_class_has_the_interval_that_it_has_among_two() -> None:
    """The same draws, entity by entity: a mean over one class is the gain of two classes."""
    labels, probabilities = make_world()
    entities = [f"card {number % 700}" for number in range(ROWS)]
    weights = np.ones(ROWS)
    gains = bootstrap_class_gains(
        labels,
        probabilities,
        confuse(probabilities),
        entities,
        [1],
        weights=weights,
        positive_weights=weights,
        draws=50,
    )
    alone = bootstrap_average_precision_gain(
        labels == 1, probabilities[:, 1], confuse(probabilities)[:, 1], entities, weights=weights, draws=50
    )
    assert gains.macro == alone
    assert gains.by_class == (alone,)


def test_without_a_large_class_nothing_is_compared() -> None:
    labels, probabilities = make_world()
    nothing = bootstrap_class_gains(
        labels, probabilities, probabilities, ["a"] * ROWS, [], weights=np.ones(ROWS), positive_weights=np.ones(ROWS)
    )
    assert (nothing.macro.mean, nothing.by_class) == (None, ())


def test_confusions_add_up_what_rows_stand_for() -> None:
    probabilities = np.array([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    assert count_confusions([0, 1, 1], probabilities, [1, 2, 4]) == [[1, 0, 0], [4, 0, 2], [0, 0, 0]]
