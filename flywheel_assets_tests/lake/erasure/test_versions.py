"""A classifier's version of which only evaluation rows are the person's: revised, told, and told after any kill."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules, draw_uniform
from flywheel_assets.lake.erasure import _revisions as export_revisions
from flywheel_assets.lake.erasure import versions as erased_versions
from flywheel_assets.lake.erasure._accounts import Journal
from flywheel_assets.lake.erasure._revisions import PreparedRevision
from flywheel_assets.lake.erasure.erase import Place, Receipt, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.erasure.versions import ErasedVersion
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, HARD_EXAMPLES
from flywheel_assets.lake.versions.example_versions import ExampleRules, cut_example_version
from flywheel_assets.lake.versions.exports import ExportSet, hash_manifest, read_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.lake.labelled import CONTRACT, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench

VERSION = "fraud_gold_v1"
PERSON = "mallory"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
# Of silence one in a hundred is kept as an example; all of it is judged on.
MINING = MiningRules(maturity_days=1, sampling=SamplingRules(surprise_factor=0.0, floor=0.01))
RULES = ExampleRules(contract=CONTRACT, mining=MINING, evaluation_weeks=1)
HERS = [name for name in map("quiet-{}".format, range(8)) if draw_uniform(APPLICATION, name) > 0.01][:3]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Ten days: frauds of others, and in the evaluation week three payments of the person that nobody complained of."""
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    frauds = [score(day(each), f"fraud-{each}", score=0.3, user_id=f"card {each}") for each in range(10)]
    labels = [label(day(each), f"fraud-{each}", user_id=f"card {each}") for each in range(10)]
    hers = [score(day(4), name, score=0.01, user_id=PERSON) for name in HERS]
    run(bench, [*frauds, *labels, *hers], day(9), MINING)
    versions = Versions(bench.root / "versions", APPLICATION)
    cut_example_version(bench.lake, versions, VERSION, RULES, "1")
    folder = versions.folder(VERSION)
    for step in (folder.training, folder.evaluation):
        step.mkdir()
    (folder.training / "training.json").write_text("{}")
    pq.write_table(pa.table({"prediction_id": [*HERS, "fraud-4"]}), folder.evaluation / "scores.parquet")
    landing = ErasableLanding(bench.application, bench.landing, bench.root / "scratch" / "landing")
    return Place(bench.lake, CLASSIFICATION_TABLES, versions, landing, bench.start, {})


def forget(place: Place) -> Receipt:
    return erase_person(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=timedelta(0))


KILLS: dict[str, tuple[Any, str]] = {
    "scores noted": (export_revisions.os, "replace"),
    "revision not prepared": (erased_versions, "prepare_revision"),
    "version not noted": (Journal, "note_version"),
    "version noted": (erased_versions, "_drop_work"),
    "work dropped": (PreparedRevision, "publish"),
    "revision visible, the one before not deleted": (export_revisions.shutil, "rmtree"),
    "revision visible": (erased_versions, "_move_pin"),
    "version done": (erased_versions, "_move_tag"),
    "all versions done": (Journal, "touch"),
}


@pytest.fixture(params=[None, *KILLS])
def kill(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Lets the first attempt die at a point; None: it does not."""
    if request.param is not None:
        owner, name = KILLS[request.param]
        real = getattr(owner, name)
        calls = itertools.count()

        def die(*arguments: Any, **keywords: Any) -> Any:
            of_export = name != "rmtree" or str(arguments[0]).endswith("export")
            of_scores = name != "replace" or "parquet" in str(arguments[0])
            if of_export and of_scores and next(calls) == 0:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, die)
    return request.param


@pytest.mark.long
def test_the_receipt_names_the_version_whatever_the_erasure_was_killed_at(place: Place, kill: str | None) -> None:
    """Once the export was revised nothing was left to find: the next attempt passed the version by."""
    folder = place.versions.folder(VERSION)
    before = read_manifest(folder.export)
    sha256_before = hash_manifest(folder.export)
    gold = place.lake.read(HARD_EXAMPLES, where=f"subject = '{PERSON}'")
    assert (len(HERS), gold.num_rows) == (3, 0)
    if kill is not None:
        with pytest.raises(KeyboardInterrupt):
            forget(place)
    receipt = forget(place)
    after = read_manifest(folder.export)
    assert after.files[ExportSet.EVALUATION].rows == before.files[ExportSet.EVALUATION].rows - 3
    assert receipt.versions == [
        ErasedVersion(
            tag=VERSION,
            snapshot_before=before.snapshot_id,
            snapshot_after=before.snapshot_id,
            gold_rows_removed=0,
            exported_rows_removed=3,
            manifest_sha256_before=sha256_before,
            manifest_sha256_after=hash_manifest(folder.export),
        )
    ]
    assert receipt.scored_rows == 3
    assert receipt.rows == {
        "quarantine": 0,
        "hard_examples": 0,
        "joined_feedback": 0,
        "raw_predictions": 3,
        "ground_truth": 0,
    }
    assert pq.read_table(folder.evaluation / "scores.parquet")["prediction_id"].to_pylist() == ["fraud-4"]
    assert verify_versions(place.lake, place.versions, HARD_EXAMPLES).differences == ()


def test_what_two_attempts_take_out_of_one_version_adds_up() -> None:
    """A second revision by the same erasure: its events had come to landing in between."""
    first = ErasedVersion(
        tag=VERSION,
        snapshot_before=1,
        snapshot_after=2,
        gold_rows_removed=3,
        exported_rows_removed=4,
        manifest_sha256_before="a",
        manifest_sha256_after="b",
        training_dropped=True,
    )
    again = ErasedVersion(
        tag=VERSION,
        snapshot_before=2,
        snapshot_after=5,
        gold_rows_removed=1,
        exported_rows_removed=1,
        manifest_sha256_before="b",
        manifest_sha256_after="c",
    )
    assert again.merge_earlier(first) == ErasedVersion(
        tag=VERSION,
        snapshot_before=1,
        snapshot_after=5,
        gold_rows_removed=4,
        exported_rows_removed=5,
        manifest_sha256_before="a",
        manifest_sha256_after="c",
        training_dropped=True,
    )
    assert first.merge_earlier(first).exported_rows_removed == 4, "noted, but never visible"
    assert again.merge_earlier(None) == again
