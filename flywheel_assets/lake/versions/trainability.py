"""Takes the rows that the base model's tokenizer cannot encode out of a version that is being cut.

What finds them needs a tokenizer and comes from outside (see `models.trainability`); here they leave the sets, are
counted, and go to quarantine under the stage `trainable` of their own day. One refused row costs itself: before, one
prompt that the chat template raised for stopped every training of every later version.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.arrow import values_of
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import QUARANTINE
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet
from flywheel_assets.lake.versions.folders import Pin
from flywheel_assets.records import Reason

TRAINABLE_STAGE = "trainable"
"""Of quarantine; a later cut replaces what an earlier one wrote for the same days."""
UNTRAINABLE_REASONS = (
    Reason.TEMPLATE_REFUSED.value,
    Reason.TEMPLATE_MISMATCH.value,
    Reason.CONTROL_TOKEN.value,
    Reason.UNFINISHED_TURN.value,
    Reason.UNSUPPORTED_CONTENT.value,
    Reason.TOO_MANY_TOKENS.value,
)


@dataclass(frozen=True)
class Untrainable:
    """Names a row of one set that cannot be encoded."""

    which: ExportSet
    pair_id: str
    reason: str
    detail: str
    """One sentence without the row's text."""


FindUntrainable = Callable[[Iterable[tuple[ExportSet, ExportedRow]]], Iterable[Untrainable]]
"""Finds the rows that cannot be encoded, of all rows that would be exported, in their order."""


def take_out(
    lake: Lake, pin: Pin, sets: Mapping[ExportSet, pa.Table], found: Sequence[Untrainable]
) -> dict[ExportSet, pa.Table]:
    """Return the sets without the rows that cannot be encoded, which go to quarantine.

    Args:
        lake: the application's tables.
        pin: of the version; quarantine is replaced on its days only.
        sets: need `pair_id`, `feedback_event_id`, `completed_date` and `subject`.
        found: rows of the sets.
    """
    kept: dict[ExportSet, pa.Table] = {}
    refused: dict[date, list[dict[str, object]]] = {}
    refused_rows: set[str] = set()
    for which, rows in sets.items():
        of_set = {each.pair_id: each for each in found if each.which is which}
        is_out = np.fromiter((key in of_set for key in values_of(rows["pair_id"])), bool, len(rows))
        kept[which] = rows.filter(pa.array(~is_out))
        for row in rows.filter(pa.array(is_out)).to_pylist():
            # The folds of a cross-fit share rows; quarantine has each of them once.
            if row["feedback_event_id"] in refused_rows:
                continue
            refused_rows.add(row["feedback_event_id"])
            why = of_set[row["pair_id"]]
            refused.setdefault(row["completed_date"], []).append(
                {
                    "day": row["completed_date"],
                    "stage": TRAINABLE_STAGE,
                    "row_id": row["feedback_event_id"],
                    "reason": why.reason,
                    "detail": why.detail,
                    "subject": row["subject"],
                }
            )
    _replace_quarantine(lake, pin, refused)
    return kept


def _replace_quarantine(lake: Lake, pin: Pin, refused: Mapping[date, list[dict[str, object]]]) -> None:
    # A day whose rows an earlier version refused, and this one does not, becomes empty.
    earlier = set(lake.count_rows_per_day(QUARANTINE, TRAINABLE_STAGE)) & set(pin.dates)
    days = sorted(earlier | set(refused))
    if not days:
        return
    files: dict[date, Path] = {}
    with lake.connect() as connection:
        for day, rows in refused.items():
            table = pa.Table.from_pylist(rows, schema=records.QUARANTINE)
            if file := lake.write_rows(connection, QUARANTINE, day, table):
                files[day] = file
    lake.replace_days(QUARANTINE, days, files, {"flywheel.version": pin.version}, stage=TRAINABLE_STAGE)
