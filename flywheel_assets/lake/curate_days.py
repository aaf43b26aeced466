"""`joined_feedback` → `curated_dpo_pairs` (gold) and `quarantine`: each day by itself, in any order.

A day's result is a function of that day's joined rows and of the policy, of nothing else: duplicates of other days,
caps, holdout and supersession are decided when a version is resolved.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa

from flywheel_assets.curation.pairs import GateRules, curate
from flywheel_assets.lake import ledger
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE, Lake

# Shorter than the table's name on purpose: a partition value of more than 16 characters is dropped by rewriting files.
CURATION_STAGE = "curation"


def curate_days(lake: Lake, days: Sequence[date], rules: GateRules, stamp: RunStamp) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of gold by what passes the gate; everything else goes to quarantine with its reason.

    A row that only waits for others to say the same is in both: held in gold, where a later version can pin it.

    Raises:
        MissingInputError: a day was never joined.
    """
    joined = ledger.require(lake, JOINED_FEEDBACK.name, days)
    files: dict[date, Path] = {}
    refused: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    with lake.connect() as connection:
        for day in sorted(days):
            curated = curate(lake.read(JOINED_FEEDBACK, [day]), lake.application, rules)
            gold = pa.concat_tables([curated.kept, curated.held])
            connection.register("gold", gold)
            if file := lake.write_day(connection, CURATED_DPO_PAIRS, day, "SELECT * FROM gold"):
                files[day] = file
            connection.register("refused", _as_stage(curated.refused))
            if file := lake.write_day(connection, QUARANTINE, day, "SELECT * FROM refused"):
                refused[day] = file
            entries.append(
                LedgerEntry(
                    asset=CURATED_DPO_PAIRS.name,
                    day=day,
                    is_closed=joined[day].is_closed,
                    content_hash=ledger.content_hash(gold),
                    input_hashes={JOINED_FEEDBACK.name: ledger.window_hash(joined, [day])},
                    rows_in=joined[day].rows_kept,
                    rows_kept=curated.kept.num_rows,
                    rows_by_reason=curated.counts,
                    rows_held=curated.held.num_rows,
                )
            )
    properties = {**stamp.properties(), "flywheel.policy-version": rules.policy.version}
    lake.replace_days(CURATED_DPO_PAIRS, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=CURATION_STAGE)
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _as_stage(refused: pa.Table) -> pa.Table:
    position = refused.schema.get_field_index("stage")
    return refused.set_column(position, "stage", pa.array([CURATION_STAGE] * refused.num_rows, pa.string()))
