"""Scores by row lose a person's rows, and whatever a killed run left beside them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.lake.export_revisions import erase_scored_rows
from flywheel_assets.lake.versions import Versions
from flywheel_assets_tests.builders import APPLICATION
from flywheel_assets_tests.lake.workbench import Workbench


def test_scores_that_a_killed_erasure_was_writing_go_with_the_next(tmp_path: Path) -> None:
    folder = Versions(tmp_path / "versions", APPLICATION).folder("dpo_gold_v1")
    folder.evaluation.mkdir(parents=True)
    scores = folder.evaluation / "deltas.parquet"
    pq.write_table(pa.table({"pair_id": ["a", "b", "c"]}), scores)
    (folder.evaluation / ".deltas.parquet.4711").write_bytes(scores.read_bytes())
    assert erase_scored_rows(Workbench(tmp_path).lake, folder, {"b"}, "mallory") == 1
    assert pq.read_table(scores)["pair_id"].to_pylist() == ["a", "c"]
    assert list(folder.evaluation.iterdir()) == [scores]
