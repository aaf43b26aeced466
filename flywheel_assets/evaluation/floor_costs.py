"""Measures what a sampling floor costs and saves: average precision on the last matured week, and seconds of fitting.

A floor's model is fitted on the older matured days as the floor would draw them, and tested on the last matured week,
unsampled, against the model of the largest floor that is tried: the same test rows, entities drawn together. The fits
also give the cost of a row, as overhead + seconds per row: a small training is nearly all overhead, and scaled up it
said 152.7 s where 2 s were true.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.score_contract import ScoreContract, unpack_features
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.whatif.levers import FLOORS, FloorRows, read_floor_rows
from flywheel_assets.measures.classifiers import bootstrap_average_precision_gain, score_rows
from flywheel_assets.measures.texts import Interval
from flywheel_assets.models.boosting import ClassifierRecipe, TrainedClassifier, fit_classifier
from flywheel_assets.models.trainer_recipe import TrainerRecipe

MAX_ROWS = 300_000
"""Of training, and of the test's negatives."""
MAX_SECONDS = 60.0
"""CPU time after which no further floor is fitted."""
_WARM_UP_ROWS = 200


@dataclass(frozen=True)
class FloorCost:
    """Holds what one floor's model does on the last matured week."""

    floor: float
    rows: int
    fit_seconds: float
    """CPU time."""
    average_precision: float | None
    cost: Interval
    """AP of the largest floor's model minus this one's, with a 95 % interval by a bootstrap over entities."""


@dataclass(frozen=True)
class FloorCosts:
    """Compares the floors that could be fitted."""

    test_from: date
    last_day: date
    test_rows: int
    test_positives: int
    floors: tuple[FloorCost, ...]
    """Ascending; the last one is what the others are compared with. Empty where no floor fits the row limit."""
    overhead_seconds: float
    """CPU time of a fit without rows."""
    seconds_per_row: float
    remark: str
    """Why a floor is missing; empty where none is."""

    def estimate_fit_seconds(self, rows: int) -> float:
        """Estimate the CPU time of fitting so many rows."""
        return self.overhead_seconds + rows * self.seconds_per_row

    def describe(self) -> str:
        """Write what was found in a few sentences."""
        per_million = 1e6 * self.seconds_per_row
        sentences = [f"A fit takes {self.overhead_seconds:.2f} s + {per_million:.1f} s per million rows."]
        if len(self.floors) > 1:
            least, most, lost = self.floors[0], self.floors[-1], self.floors[0].cost
            if lost.mean is not None and lost.low is not None and lost.high is not None:
                sentences.append(
                    f"From {self.test_from} to {self.last_day} a floor of {least.floor:g} instead of {most.floor:g} "
                    f"loses {lost.mean:.4f} of average precision [{lost.low:.4f}, {lost.high:.4f}] and saves "
                    f"{most.fit_seconds - least.fit_seconds:.1f} s of {most.fit_seconds:.1f} s."
                )
        if self.remark:
            sentences.append(f"{self.remark[0].upper()}{self.remark[1:]}.")
        return " ".join(sentences)


def try_floors(
    lake: Lake,
    contract: ScoreContract,
    rules: MiningRules,
    recipe: TrainerRecipe,
    days: int,
    floors: Sequence[float] = FLOORS,
) -> FloorCosts | None:
    """Measure the floors on the last `days` matured days of an application.

    At most `MAX_ROWS` rows are fitted, and as many tested, in about `MAX_SECONDS` of CPU time.

    Returns:
        None where fewer than 14 days have matured, where the older days or the last week lack a class, and where the
        trainer is none of boosted trees, whose fits may cost hours.

    Raises:
        TrainingError: a feature cannot be used.
    """
    if not isinstance(recipe, ClassifierRecipe):
        return None
    rows = read_floor_rows(lake, contract, rules, days, MAX_ROWS, floors)
    if rows is None or any(len(pc.unique(part["is_positive"])) < 2 for part in (rows.train, rows.test)):
        return None
    return measure_floor_costs(rows, recipe)


def measure_floor_costs(rows: FloorRows, recipe: ClassifierRecipe, max_seconds: float = MAX_SECONDS) -> FloorCosts:
    """Fit and test each floor, the largest first, while the time lasts.

    Args:
        rows: as `read_floor_rows` returns them.
        recipe: of the application.
        max_seconds: CPU time of the fits; the largest and the smallest floor are fitted in any case.

    Raises:
        TrainingError: the rows lack a class, or a feature cannot be used.
    """
    features, labels = unpack_features(rows.train), rows.train["is_positive"].to_numpy(zero_copy_only=False)
    draws = rows.train["draw"].to_numpy()

    def fit(place: int) -> tuple[TrainedClassifier, int, float]:
        shares = rows.train[f"share_{place}"].to_numpy()
        chosen = draws < shares
        some, weights = features.filter(pa.array(chosen)), 1 / shares[chosen]
        started = time.process_time()
        model = fit_classifier(some, labels[chosen], weights, recipe)
        return model, int(chosen.sum()), time.process_time() - started

    _load_library(recipe)
    truth, entities = rows.test["is_positive"].to_numpy(zero_copy_only=False), values_of(rows.test["subject"])
    test_weights, test_features = rows.test["weight"].to_numpy(), unpack_features(rows.test)
    largest = len(rows.floors) - 1
    model, fitted, spent = fit(largest)
    points, costs, late = [(fitted, spent)], [], []
    if rows.thinned_to == 1:
        best = model.predict(test_features)
        # The smallest floor comes second: with the largest it gives the cost of a row.
        for place in dict.fromkeys([largest, 0, *range(largest - 1, 0, -1)]):
            if place != largest:
                if place and spent + points[-1][1] > max_seconds:
                    late.append(rows.floors[place])
                    continue
                model, fitted, seconds = fit(place)
                spent += seconds
                points.append((fitted, seconds))
            scores = model.predict(test_features)
            gain = bootstrap_average_precision_gain(truth, best, scores, entities, weights=test_weights)
            cost = Interval(_negate(gain.mean), _negate(gain.high), _negate(gain.low), gain.rows, gain.clusters)
            found = score_rows(truth, scores, test_weights).average_precision
            costs.append(FloorCost(rows.floors[place], *points[-1], found, cost))
    if len({size for size, _ in points}) < 2:
        points.append(_time_tenth(features, labels, recipe))
    overhead, per_row = _divide_seconds(points)
    return FloorCosts(
        test_from=rows.test_from,
        last_day=rows.last_day,
        test_rows=len(truth),
        test_positives=int(truth.sum()),
        floors=tuple(sorted(costs, key=lambda each: each.floor)),
        overhead_seconds=overhead,
        seconds_per_row=per_row,
        remark=_write_remark(rows, late, max_seconds),
    )


def _load_library(recipe: ClassifierRecipe) -> None:
    """Fit a few made-up rows, so that no measured fit pays for loading LightGBM."""
    labels = np.arange(_WARM_UP_ROWS) % 2
    fit_classifier(pa.table({"x": pa.array(labels.astype(np.float64))}), labels, None, recipe)


def _time_tenth(features: pa.Table, labels: npt.NDArray[np.bool_], recipe: ClassifierRecipe) -> tuple[int, float]:
    """Time the fit of every tenth row of each class."""
    order = np.concatenate([np.flatnonzero(labels)[::10], np.flatnonzero(~labels)[::10]])
    started = time.process_time()
    fit_classifier(features.take(order), labels[order], None, recipe)
    return len(order), time.process_time() - started


def _divide_seconds(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Divide seconds into overhead and a part per row, by the smallest and the largest fit; neither is negative."""
    (few, least), (many, most) = min(points), max(points)
    per_row = max(0.0, (most - least) / (many - few)) if many > few else 0.0
    return max(0.0, least - few * per_row), per_row


def _write_remark(rows: FloorRows, late: list[float], max_seconds: float) -> str:
    remarks = []
    if rows.thinned_to < 1:
        remarks.append("every floor has more rows than are fitted here: only the cost of a row was measured")
    elif rows.floors_too_large:
        names = ", ".join(f"{each:g}" for each in rows.floors_too_large)
        remarks.append(f"floor {names}: more rows than are fitted here")
    if late:
        remarks.append(f"floor {', '.join(f'{each:g}' for each in sorted(late))}: left out after {max_seconds:g} s")
    return "; ".join(remarks)


def _negate(value: float | None) -> float | None:
    return None if value is None else -value
