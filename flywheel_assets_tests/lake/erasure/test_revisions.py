"""Scores by row lose a person's rows, and whatever a killed run left beside them."""

import itertools
import os
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.lake.erasure._revisions import erase_scored_rows
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets_tests.builders import APPLICATION
from flywheel_assets_tests.lake.workbench import Workbench


def test_scores_that_a_killed_erasure_was_writing_go_with_the_next(tmp_path: Path) -> None:
    folder = Versions(tmp_path / "versions", APPLICATION).folder("dpo_gold_v1")
    folder.evaluation.mkdir(parents=True)
    scores = folder.evaluation / "deltas.parquet"
    pq.write_table(pa.table({"pair_id": ["a", "b", "c"]}), scores)
    (folder.evaluation / ".deltas.parquet.4711").write_bytes(scores.read_bytes())
    told: list[tuple[str, int]] = []
    before = hash_file(scores)
    erase_scored_rows(Workbench(tmp_path).lake, folder, {"b"}, "mallory", lambda *each: told.append(each))
    assert told == [(before, 1)]
    assert pq.read_table(scores)["pair_id"].to_pylist() == ["a", "c"]
    assert list(folder.evaluation.iterdir()) == [scores]


@pytest.mark.parametrize("at_call", [1, 2, 3])
def test_a_report_seals_its_scores_after_a_kill_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    """Killed between the file and the report that seals it, the report was never right again."""
    folder = Versions(tmp_path / "versions", APPLICATION).folder("dpo_gold_v1")
    folder.evaluation.mkdir(parents=True)
    scores, report = folder.evaluation / "deltas.parquet", folder.evaluation / "evaluation.json"
    pq.write_table(pa.table({"pair_id": ["a", "b", "c"]}), scores)
    before = hash_file(scores)
    report.write_text(f'{{"sha256": "{before}"}}')
    replaces = itertools.count(1)
    real = os.replace

    def die(*arguments: Path) -> None:
        if next(replaces) == at_call:
            raise KeyboardInterrupt
        real(*arguments)

    told: dict[str, int] = {}

    def erase() -> None:
        erase_scored_rows(Workbench(tmp_path).lake, folder, {"b"}, "mallory", told.__setitem__)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt) if at_call < 3 else nullcontext():
            erase()
    erase()
    assert pq.read_table(scores)["pair_id"].to_pylist() == ["a", "c"]
    assert report.read_text() == f'{{"sha256": "{hash_file(scores)}"}}'
    assert told == {before: 1}
    assert sorted(folder.evaluation.iterdir()) == [scores, report]
