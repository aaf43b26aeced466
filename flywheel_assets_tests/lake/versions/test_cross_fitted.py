"""A cross-fitted version wherever its files are read: verified, shared, traced, inspected, and without a person."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules, find_folds
from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.erasure.erase import Place, Receipt, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.fsck.findings import Report, Sample
from flywheel_assets.lake.fsck.versions import check_versions
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, PREFERENCE_TABLES, QUARANTINE
from flywheel_assets.lake.versions.exports import (
    FOLDS,
    ExportSet,
    build_json_lines_writer,
    encode_manifest,
    read_manifest,
    read_rows,
)
from flywheel_assets.lake.versions.folders import VersionFolder, Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.sharing import SharedFormat, SharedSet, share_version
from flywheel_assets.lake.versions.trainability import TRAINABLE_STAGE, Untrainable
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.lake.whatif._exported_keys import find_sets
from flywheel_assets.lake.whatif.trace import _name_sets
from flywheel_assets_tests.builders import APPLICATION, DAY
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench

VERSION = "dpo_gold_v1"
RULES = ResolutionRules(cross_fit_folds=3)
PERSON = f"user {DAY} 0"
[OWN] = find_folds([PERSON], 3)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    """A version of twelve people, of whom PERSON is in fold OWN."""
    versions = Versions(bench.root / "versions", APPLICATION)
    write_gold(bench, DAY, 12)
    cut_pair_version(bench.lake, versions, VERSION, RULES, "1")
    return versions


def differences(bench: Workbench, versions: Versions) -> str:
    return "\n".join(verify_versions(bench.lake, versions, CURATED_DPO_PAIRS).differences)


def test_a_user_in_the_rows_of_their_own_fold_is_found(bench: Workbench, versions: Versions) -> None:
    assert differences(bench, versions) == ""
    folder = versions.folder(VERSION).export
    manifest = read_manifest(folder)
    rows = {which: read_rows(folder, manifest, which) for which in manifest.files}
    [hers] = [row for row in rows[ExportSet.HOLDOUT] if row.subject == PERSON]
    rows[FOLDS[OWN - 1]].append(hers)
    files = build_json_lines_writer(VERSION, [(which, row) for which in rows for row in rows[which]])(folder)
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))
    assert f"1 subjects of fold_{OWN} are in the rows that its model learns from" in differences(bench, versions)


def test_a_row_that_the_tokenizer_refuses_counts_once(bench: Workbench, versions: Versions) -> None:
    def find(rows):  # type: ignore[no-untyped-def]
        for which, row in rows:
            if row.subject == PERSON:
                yield Untrainable(which, row.pair_id, "too_many_tokens", "too long")

    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v2", RULES, "1", find)
    assert manifest.dropped == {"too_many_tokens": 1}
    assert manifest.files[ExportSet.UNTRAINABLE].rows == 1
    assert manifest.files[ExportSet.HOLDOUT].rows == manifest.files[ExportSet.TRAIN].rows == 11
    refused = [row for row in bench.lake.read(QUARANTINE).to_pylist() if row["stage"] == TRAINABLE_STAGE]
    assert [row["subject"] for row in refused] == [PERSON]
    assert differences(bench, versions) == ""


def test_others_get_the_training_rows_and_no_holdout_that_was_trained_on(versions: Versions, tmp_path: Path) -> None:
    folder = versions.folder(VERSION)
    shared = share_version(folder, tmp_path / "shared", SharedFormat.PARQUET)
    assert set(shared.files) == {"train.parquet"}
    with pytest.raises(InvalidRuleError, match="has no set 'holdout'; valid: train, all"):
        share_version(folder, tmp_path / "other", SharedFormat.TRL, SharedSet.HOLDOUT)


def test_a_trace_tells_what_learns_from_a_row_and_what_it_judges(versions: Versions) -> None:
    folder = versions.folder(VERSION).export
    manifest = read_manifest(folder)
    [pair] = [row.pair_id for row in read_rows(folder, manifest, ExportSet.TRAIN) if row.subject == PERSON]
    others = [str(fold) for fold in (1, 2, 3) if fold != OWN]
    assert _name_sets(find_sets(folder, manifest, pair, "")) == (
        "pairs that the model of their user's fold, which has not seen them, is judged by and training rows and rows "
        f"that the models of the folds {', '.join(others)} learn from"
    )


def train(folder: VersionFolder, *, folds_only: bool = False) -> None:
    """Leave what the trainer leaves, with the name of the weights as their hash."""
    pairs = [row.pair_id for row in read_rows(folder.export, read_manifest(folder.export), ExportSet.TRAIN)]
    for place in [*(folder.fold(fold) for fold in (1, 2, 3)), *([] if folds_only else [folder.training])]:
        (place / "adapter").mkdir(parents=True)
        pq.write_table(pa.table({"pair_id": pairs}), place / "deltas.parquet")
        (place / "training.json").write_text('{"adapter_sha256": "adapter"}')


def test_a_lost_or_changed_adapter_of_a_fold_is_found(bench: Workbench, versions: Versions) -> None:
    folder = versions.folder(VERSION)

    def hash_weights(path: Path) -> str:
        return "other" if (path / "altered").exists() else path.name

    def inspect() -> list[str]:
        report = Report()
        sample = Sample(1.0, date(2027, 1, 1))
        check_versions(bench.lake, versions, CURATED_DPO_PAIRS, sample, hash_weights, report, is_gold_broken=False)
        return [f"{Path(each.file).relative_to(folder.path)} {each.problem}" for each in report.findings]

    train(folder)
    assert inspect() == []
    (folder.fold(1) / "adapter" / "altered").touch()
    (folder.fold(2) / "training.json").unlink()
    assert inspect() == [
        "folds/fold_1/adapter has another sha256 than its report",
        "folds/fold_2/training.json is missing",
    ]


def forget(bench: Workbench, versions: Versions) -> Receipt:
    landing = ErasableLanding(bench.application, bench.landing, bench.root / "scratch" / "landing")
    place = Place(bench.lake, PREFERENCE_TABLES, versions, landing, bench.start, {})
    return erase_person(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=timedelta(0))


@pytest.mark.long
def test_an_erasure_reaches_every_file_of_the_folds_and_tells_of_every_adapter(
    bench: Workbench, versions: Versions
) -> None:
    folder = versions.folder(VERSION)
    train(folder)
    folder.promotion.write_text("{}")
    [erased] = forget(bench, versions).versions
    # In the training rows, in the held-out rows, and in the rows of the two folds that are not theirs.
    assert (erased.exported_rows_removed, erased.trained, erased.fold_models) == (4, True, 2)
    manifest = read_manifest(folder.export)
    assert not [
        row for which in manifest.files for row in read_rows(folder.export, manifest, which) if row.subject == PERSON
    ]
    for place in (folder.training, *(folder.fold(fold) for fold in (1, 2, 3))):
        assert pq.read_metadata(place / "deltas.parquet").num_rows == 11
    assert differences(bench, versions) == ""


@pytest.mark.long
def test_what_of_a_cross_fit_was_trained_before_an_erasure_and_never_judged_is_trained_again(
    bench: Workbench, versions: Versions
) -> None:
    """Of a killed run only the folds were there: their trainer would have refused to begin for another export."""
    folder = versions.folder(VERSION)
    train(folder, folds_only=True)
    [erased] = forget(bench, versions).versions
    assert (erased.trained, erased.fold_models) == (False, 0)
    assert not folder.folds.exists()
