"""What a preference version consists of: the pairs of its closed days, resolved, as four JSON-lines files."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.resolution import Resolution, ResolutionRules, resolve
from flywheel_assets.lake.exclusions import in_force, not_excluded, pinned
from flywheel_assets.lake.exports import (
    ExportedFile,
    ExportedRow,
    ExportSet,
    Manifest,
    json_lines,
    read_manifest,
    read_rows,
)
from flywheel_assets.lake.small_edits import RecurringDelta, ranked_deltas
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, Lake
from flywheel_assets.lake.versions import Pin, VersionFolder, Versions, cut_version

MOST_DELTAS = 10
"""Small edits that a version's manifest lists."""
_TEXTS = ("prompt", "chosen", "rejected")
"""What no decision of resolution looks at, and nearly all of gold's bytes."""


def cut_pair_version(
    lake: Lake, versions: Versions, version: str, rules: ResolutionRules, code_version: str
) -> Manifest:
    """Pin, resolve and export the closed days of `curated_dpo_pairs`; raises what `cut_version` raises."""

    @contextmanager
    def resolve_pairs(lake: Lake, pin: Pin) -> Iterator[_ResolvedPairs]:
        kept = not_excluded(CURATED_DPO_PAIRS, pinned(lake, pin.exclusions))
        gold = lake.read(CURATED_DPO_PAIRS, pin.dates, snapshot_id=pin.snapshot_id, where=kept)
        yield _ResolvedPairs(version, resolve(gold, rules), ranked_deltas(gold, MOST_DELTAS))

    return cut_version(lake, versions, version, CURATED_DPO_PAIRS, resolve_pairs, asdict(rules), code_version)


@dataclass(frozen=True)
class _ResolvedPairs:
    version: str
    resolution: Resolution
    small_edits: list[RecurringDelta]

    @property
    def training_rows(self) -> int:
        return int(self.resolution.train.num_rows)

    @property
    def dropped(self) -> dict[str, int]:
        return self.resolution.dropped

    @property
    def details(self) -> Mapping[str, Any]:
        """Training pairs by why they are in, how many of them several subjects sent, and the small edits that recur."""
        train = self.resolution.train
        return {
            "admitted_as": dict(sorted(Counter(train["admitted_as"].to_pylist()).items())),
            "supported_by_several": int((train["support_users"].to_numpy() > 1).sum()),
            # By key: `flywheel policy deltas` shows what they replace, which is user text.
            "small_edits": [
                {"key": each.key, "subjects": each.subjects, "rows": each.rows, "days": each.days}
                for each in self.small_edits
            ],
        }

    def write_files(self, folder: Path) -> dict[ExportSet, ExportedFile]:
        rows = {
            ExportSet.TRAIN: exported_rows(self.resolution.train),
            ExportSet.ACCEPTED: exported_rows(self.resolution.accepted),
            ExportSet.HOLDOUT: exported_rows(self.resolution.holdout),
            ExportSet.REGRESSION: exported_rows(self.resolution.regression),
        }
        return json_lines(self.version, rows)(folder)


def pair_ids_to_train_now(lake: Lake, rules: ResolutionRules, days: Iterable[date]) -> set[str]:
    """The pairs that a version cut now over the closed days `days` would train on; reads no text."""
    narrow = [name for name in records.CURATED_DPO_PAIRS.names if name not in _TEXTS]
    gold = lake.read(CURATED_DPO_PAIRS, days, narrow, where=not_excluded(CURATED_DPO_PAIRS, in_force(lake)))
    for name in _TEXTS:
        gold = gold.append_column(name, pa.repeat("", len(gold)))
    return set(resolve(gold, rules).train["pair_id"].to_pylist())


def trained_pair_ids(folder: VersionFolder) -> set[str]:
    """The pairs that a version's training file holds."""
    manifest = read_manifest(folder.export)
    return {row.pair_id for row in read_rows(folder.export, manifest, ExportSet.TRAIN)}


def exported_rows(rows: pa.Table) -> list[ExportedRow]:
    """Gold rows as an export writes them, in the table's order."""
    columns = [name for name in ExportedRow.__struct_fields__ if name != "completed_date"]
    dates = (day.isoformat() for day in rows["completed_date"].to_pylist())
    values = rows.select(columns).to_pylist()
    return [ExportedRow(completed_date=day, **row) for day, row in zip(dates, values, strict=True)]
