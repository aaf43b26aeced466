"""16,000 real human post-edits from a file to a gold version."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import RunStamp, audit_accounts
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, GROUND_TRUTH, JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.capture.imports import import_into
from flywheel_assets_tests.real_data import needs_real_data, write_real_edits

DAY = date(2026, 9, 1)
STAMP = RunStamp("test", "1", datetime(2026, 9, 2, 1, tzinfo=UTC))


@pytest.mark.long
@pytest.mark.realdata
@needs_real_data("mlqe_pe")
def test_import_to_gold_to_version(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    assert write_real_edits(file) == 16_000
    landing = tmp_path / "landing"
    imported = import_into(landing, file, clock=lambda: datetime(2026, 9, 1, 12, tzinfo=UTC))
    assert (imported.accepted, imported.refused) == (16_000, 0)

    lake = Lake("assistant", f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/warehouse", tmp_path / "scratch")
    for kind in EventKind:
        assert ingest_days(lake, DiskLanding(landing), kind, [DAY], STAMP)[DAY].rows_kept == 16_000
    assert join_days(lake, [DAY], DAY, JoinWindow(), STAMP)[DAY].rows_kept == 16_000
    curated = curate_days(lake, [DAY], DAY, GateRules(), BreakerLimits(), STAMP)[DAY]

    # Measured on 2026-11-21: 13,017 kept, 2,121 unchanged, 841 trivial; a policy that refuses prose would show here.
    assert 0.10 < curated.rows_by_reason["unchanged"] / 16_000 < 0.17
    assert 0.75 < curated.rows_kept / 16_000 < 0.85
    for spec in (RAW_PREDICTIONS, GROUND_TRUTH, JOINED_FEEDBACK, CURATED_DPO_PAIRS):
        assert audit_accounts(lake, spec).discrepancies == ()

    versions = Versions(tmp_path / "versions", "assistant")
    manifest = cut_pair_version(lake, versions, "dpo_gold_v1", ResolutionRules(), "1")
    exported = sum(file.rows for file in manifest.files.values())
    assert exported + sum(manifest.dropped.values()) == curated.rows_in_partition
    assert 0.05 < manifest.files["holdout"].rows / exported < 0.15
