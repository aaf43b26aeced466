"""Halves by entity: all rows of one on one side, about as many on both, the same in every process."""

import numpy as np

from flywheel_assets.measures.folds import FOLDS, assign_folds


def test_an_entity_is_on_one_side_and_the_sides_are_about_equal() -> None:
    entities = [f"card-{number % 500}" for number in range(2000)]
    folds = assign_folds(entities)
    assert all(len(set(folds[number::500])) == 1 for number in range(500))
    assert 0.4 < np.mean(folds) < 0.6
    assert set(folds) == set(range(FOLDS))
    # Training and evaluation are two processes: the side may not depend on the order, nor on a seed.
    assert (assign_folds(reversed(entities)) == folds[::-1]).all()
