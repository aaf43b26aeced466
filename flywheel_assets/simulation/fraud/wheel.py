"""What the fraud demo's flywheel reports about its days and turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class MinedDays:
    """What a range of days brought into gold."""

    rows: int
    """Labelled predictions, and predictions whose silence became old enough to count as honest."""
    kept: int
    """Rows that were drawn for training."""
    dropped: Mapping[str, int]
    """Reason → rows; with `kept` they make up `rows`."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTurn:
    """One gold version, from its export to the decision about its classifier."""

    version: str
    reason: str
    """Why it was cut, in the trigger's words."""
    train_rows: int
    train_positives: int
    test_rows: int
    """Later, matured, unsampled rows that both models were scored on."""
    test_positives: int
    ap_incumbent: float | None
    """Average precision of what serves, on the test rows; None without a positive among them, like the next one."""
    ap_challenger: float | None
    promoted: bool
    sentence: str
    seconds: float
    """Wall time from the trigger to the decision."""
    champion: Path | None
    """The folder of the model that serves after the decision; None: still the static one."""
