"""Compares another policy with the stored outcomes of days that were curated already; writes nothing.

A day's stored rows carry the policy version that judged them. The same joined rows are curated again, in memory, under
the given rules: this shows, row by row and before its start, the changes of an ordinary backfill.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import ChunkedArray, values_of
from flywheel_assets.curation.texts.gate import Curated, GateRules, curate
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.records import CURATION_STAGE, Reason

KEPT = "kept"
_BY_BREAKER = ((Reason.BREAKER_TRIPPED.value, KEPT), (Reason.SENDER_HELD.value, KEPT))
"""The outcome of a row that is in gold and waits for nothing."""
MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Move:
    """Counts the rows whose outcome would change in one way; an outcome is `kept` or a reason code."""

    before: str
    after: str
    rows: int
    examples: tuple[str, ...]
    """Feedback event ids of the first few, by which quarantine and the review queue know them; never texts."""


@dataclass(frozen=True)
class PolicyDiff:
    """Compares the stored outcomes of some days with those under other rules."""

    days: int
    stored_versions: tuple[str, ...]
    new_version: str
    rows: int
    moves: tuple[Move, ...]
    """Most rows first."""

    @property
    def moved(self) -> int:
        """Rows whose outcome would change."""
        return sum(move.rows for move in self.moves)


def diff_policy(lake: Lake, days: Sequence[date], rules: GateRules) -> PolicyDiff:
    """Compare the stored outcomes of `days` with those of `rules` on the same joined rows.

    Raises:
        MissingInputError: a day was never joined or never curated.
    """
    ledger.require_entries(lake, JOINED_FEEDBACK.name, days)
    ledger.require_entries(lake, CURATED_DPO_PAIRS.name, days)
    moved: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    versions: set[str] = set()
    rows = 0
    for day in sorted(days):
        before, judged_by = _read_stored_outcomes(lake, day)
        after = _list_outcomes(curate(lake.read(JOINED_FEEDBACK, [day]), lake.application, rules))
        versions |= judged_by
        rows += len(after)
        for row in sorted(after):
            change = (before.get(row, "not curated"), after[row])
            # The breaker alone refused the rows of a tripped day, or of a sender: they count as kept by the policy.
            if change[0] != change[1] and change not in _BY_BREAKER:
                moved[change] += 1
                examples.setdefault(change, []).append(row)
    return PolicyDiff(
        days=len(days),
        stored_versions=tuple(sorted(versions)),
        new_version=rules.policy.version,
        rows=rows,
        moves=tuple(
            Move(*change, count, tuple(examples[change][:MOST_EXAMPLES]))
            for change, count in sorted(moved.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def _read_stored_outcomes(lake: Lake, day: date) -> tuple[dict[str, str], set[str]]:
    gold = lake.read(CURATED_DPO_PAIRS, [day], ["feedback_event_id", "held_reason", "policy_version"])
    gold = gold.filter(pc.is_null(gold["held_reason"]))
    refused = lake.read(QUARANTINE, [day], ["row_id", "stage", "reason", "policy_version"])
    refused = refused.filter(pc.equal(refused["stage"], pa.scalar(CURATION_STAGE)))
    outcomes = _map_ids(gold["feedback_event_id"], KEPT) | dict(
        zip(values_of(refused["row_id"]), values_of(refused["reason"]), strict=True)
    )
    return outcomes, {*values_of(gold["policy_version"]), *values_of(refused["policy_version"])}


def _list_outcomes(curated: Curated) -> dict[str, str]:
    refused = zip(values_of(curated.refused["row_id"]), values_of(curated.refused["reason"]), strict=True)
    return _map_ids(curated.kept["feedback_event_id"], KEPT) | dict(refused)


def _map_ids(ids: ChunkedArray, outcome: str) -> dict[str, str]:
    return dict.fromkeys(values_of(ids), outcome)
