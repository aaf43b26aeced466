"""What a classifier of four classes costs and sees that one of two does not.

Claim: on the same rows a model of four classes ranks frauds as well as a model of two, within .02 AP; a challenger that
says the same of all kinds of fraud has the same AP and is refused by the promotion gate.
Data: the Fraud Detection Handbook's published split (train 25 to 31 July 2018, test 8 to 14 August), its simulated
transactions labelled by fraud scenario: large amount, compromised terminal, leaked card number. By hand, never shipped.
Peer: a model of two classes with the shipped recipe, and the same with its score spread over the kinds by their shares.
Command: python -m benchmarks.multi_class [--draws 1000]
"""

import argparse
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.models.boosting import fit_classifier
from flywheel_assets.promotion.classifier_evidence import ClassColumns, EvaluationRows, measure_evidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, decide_classifier
from flywheel_assets_tests.handbook import FEATURES, decisions, published_split

Floats = npt.NDArray[np.float64]
NAMES = ("legit", "large_amount", "compromised_terminal", "leaked_card")


def main() -> None:
    """Fit, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    train, test = published_split(decisions())
    labels = [NAMES[number] for number in train["scenario"].to_pylist()]
    started = time.process_time()
    several = fit_classifier(train.select(FEATURES), labels, None, None, NAMES, "legit")
    fitted = time.process_time()
    two = fit_classifier(train.select(FEATURES), train["is_fraud"].to_numpy().astype(np.float64))
    print(f"CPU s of the fits: four classes {fitted - started:.1f}, two {time.process_time() - fitted:.1f}")
    found = several.predict_classes(test.select(FEATURES))
    kinds = np.bincount(train["scenario"].to_numpy(), minlength=len(NAMES))[1:]
    score = two.predict(test.select(FEATURES))
    spread = np.column_stack([1 - score, *(score * share for share in kinds / kinds.sum())])
    half = np.column_stack([found[:, 0], *((1 - found[:, 0]) * share for share in kinds / kinds.sum())])
    compare(test, "two classes, spread, against four classes", spread, found, options.draws)
    compare(test, "four classes against one that confuses the kinds", found, half, options.draws)


def compare(test: pa.Table, title: str, incumbent: Floats, challenger: Floats, draws: int) -> None:
    """Print the evidence and the decision about one challenger."""
    labels = test["scenario"].to_numpy().astype(np.int64)
    started = time.process_time()
    evidence = measure_evidence(
        EvaluationRows(
            labels=labels > 0,
            incumbent_scores=np.clip(1 - incumbent[:, 0], 0, 1),
            challenger_scores=np.clip(1 - challenger[:, 0], 0, 1),
            weeks=[str(day.isocalendar().week) for day in test["day"].to_pylist()],
            entities=test["customer"].to_pylist(),
            classes=ClassColumns(names=NAMES, labels=labels, incumbent=incumbent, challenger=challenger),
        ),
        incumbent="incumbent",
        threshold=0.5,
        draws=draws,
    )
    seconds = time.process_time() - started
    classes = evidence.classes
    assert classes is not None
    print(f"\n{title}: {len(labels):,} rows, evidence in {seconds:.1f} CPU s")
    print(f"AP {evidence.incumbent_average_precision:.3f} → {evidence.average_precision:.3f}")
    print(f"macro AP {classes.incumbent_macro_average_precision:.3f} → {classes.macro_average_precision:.3f}")
    for part in classes.by_class:
        print(f"  {part.segment}: {part.positives} rows, {part.incumbent_average_precision:.3f} → ", end="")
        print(f"{part.average_precision:.3f}")
    for name, counts in zip(NAMES, classes.confusion, strict=True):
        print(f"  {name:>22}", *(f"{count:8,.0f}" for count in counts))
    decision = decide_classifier(evidence, ClassifierLimits())
    print("failed:", [check.name for check in decision.checks if not check.ok])
    print(decision.sentence)


if __name__ == "__main__":
    main()
