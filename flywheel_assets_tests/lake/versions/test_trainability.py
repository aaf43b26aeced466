"""Rows that the base model's tokenizer cannot encode leave a version, counted and named."""

from collections.abc import Iterable, Iterator

import msgspec
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import EmptyVersionError, ProcessDiedError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, QUARANTINE
from flywheel_assets.lake.versions.exports import (
    ExportedRow,
    ExportSet,
    Manifest,
    encode_manifest,
    read_manifest,
    read_rows,
)
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import NetNew, count_net_new
from flywheel_assets.lake.versions.pair_versions import cut_pair_version, read_untrainable_pair_ids
from flywheel_assets.lake.versions.trainability import TRAINABLE_STAGE, FindUntrainable, Untrainable
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.models.rendering import Rendering
from flywheel_assets.models.trainability import TrainabilityCheck
from flywheel_assets.training.adapter import train_adapter
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.training import small_world as world

RULES = ResolutionRules(holdout_share=0.0)


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", APPLICATION)


def refuse(*prompts: str) -> FindUntrainable:
    """What refuses the rows with these prompts."""

    def find(rows: Iterable[tuple[ExportSet, ExportedRow]]) -> Iterator[Untrainable]:
        for which, row in rows:
            if row.prompt in prompts:
                yield Untrainable(which, row.pair_id, "template_refused", "roles must alternate")

    return find


def cut(bench: Workbench, versions: Versions, find: FindUntrainable | None, version: str = "dpo_gold_v1") -> Manifest:
    return cut_pair_version(bench.lake, versions, version, RULES, "1", find)


def quarantined(bench: Workbench) -> list[tuple[str, str, str, str]]:
    rows = bench.lake.read(QUARANTINE, None, ["day", "stage", "row_id", "reason"]).to_pylist()
    return sorted((str(row["day"]), row["stage"], row["row_id"], row["reason"]) for row in rows)


def test_a_refused_row_is_counted_named_and_in_quarantine(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 2)
    manifest = cut(bench, versions, refuse(f"prompt {day(0)} 1", f"prompt {day(1)} 0"))
    assert (manifest.files[ExportSet.TRAIN].rows, manifest.dropped) == (3, {"template_refused": 2})
    folder = versions.folder("dpo_gold_v1")
    exported = {row.prompt for row in read_rows(folder.export, manifest, ExportSet.TRAIN)}
    assert exported == {f"prompt {day(0)} 0", f"prompt {day(0)} 2", f"prompt {day(1)} 1"}
    named = (folder.export / manifest.files[ExportSet.UNTRAINABLE].name).read_text()
    assert named.count("template_refused") == 2
    assert "prompt 2026" not in named
    assert quarantined(bench) == [
        (str(day(0)), TRAINABLE_STAGE, f"{day(0)} 1", "template_refused"),
        (str(day(1)), TRAINABLE_STAGE, f"{day(1)} 0", "template_refused"),
    ]
    assert verify_versions(bench.lake, versions, CURATED_DPO_PAIRS).differences == ()


def test_a_version_without_refused_rows_has_no_file_of_them(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)
    manifest = cut(bench, versions, refuse())
    assert ExportSet.UNTRAINABLE not in manifest.files
    assert read_untrainable_pair_ids(versions.folder("dpo_gold_v1")) == set()


def test_a_later_version_for_another_base_model_takes_the_rows_back(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)
    cut(bench, versions, refuse(f"prompt {DAY} 1"))
    manifest = cut(bench, versions, refuse(), "dpo_gold_v2")
    assert manifest.files[ExportSet.TRAIN].rows == 3
    assert quarantined(bench) == []


def test_a_refused_row_is_not_new_for_ever(bench: Workbench, versions: Versions) -> None:
    """Without their names the trigger would count such rows as new each time, and start a training for them alone."""
    write_gold(bench, DAY, 3)
    cut(bench, versions, refuse(f"prompt {DAY} 1"))
    folder = versions.folder("dpo_gold_v1").training
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    assert count_net_new(bench.lake, versions, RULES, 1).pairs == 0
    write_gold(bench, day(1), 2)
    assert count_net_new(bench.lake, versions, RULES, 1).pairs == 2


def test_a_refused_row_is_new_again_for_another_tokenizer(bench: Workbench, versions: Versions) -> None:
    """A base model with a mended template takes it: it counted as known for ever, and no training came for it."""
    write_gold(bench, DAY, 3)
    judge = {"tokenizer_sha256": "a", "rendering": {"max_length": 64, "chat_template_kwargs": {}}}
    find = refuse(f"prompt {DAY} 1")
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1", find, judge)
    assert manifest.details["judged_by"] == judge
    folder = versions.folder("dpo_gold_v1").training
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    assert count_net_new(bench.lake, versions, RULES, 1, judge) == NetNew(0, 0, "dpo_gold_v1", is_exact=False)
    for changed in ({"tokenizer_sha256": "b"}, {"rendering": {"max_length": 128, "chat_template_kwargs": {}}}):
        count = count_net_new(bench.lake, versions, RULES, 1, judge | changed)
        assert count == NetNew(1, 0, "dpo_gold_v1", is_exact=True)


def test_a_version_that_loses_every_row_is_empty(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 1)
    with pytest.raises(EmptyVersionError):
        cut(bench, versions, refuse(f"prompt {DAY} 0"))
    assert len(quarantined(bench)) == 1


def test_a_check_that_fails_admits_nothing(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)

    def die(rows: Iterable[tuple[ExportSet, ExportedRow]]) -> Iterator[Untrainable]:
        yield from refuse(f"prompt {DAY} 0")(rows)
        raise ProcessDiedError("the tokenizer's process ended")

    with pytest.raises(ProcessDiedError):
        cut(bench, versions, die)
    assert not versions.folder("dpo_gold_v1").export.exists()
    assert quarantined(bench) == []
    assert cut(bench, versions, refuse()).files[ExportSet.TRAIN].rows == 3


def test_verification_finds_a_refused_row_without_a_name(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)
    cut(bench, versions, refuse(f"prompt {DAY} 1"))
    folder = versions.folder("dpo_gold_v1").export
    manifest = read_manifest(folder)
    files = {which: file for which, file in manifest.files.items() if which is not ExportSet.UNTRAINABLE}
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))
    (difference,) = verify_versions(bench.lake, versions, CURATED_DPO_PAIRS).differences
    assert difference == "dpo_gold_v1: 1 rows were refused by the tokenizer, 0 are named"


@pytest.mark.long
def test_one_poisonous_prompt_no_longer_stops_every_training(bench: Workbench, versions: Versions) -> None:
    """A prompt with a system message only: the chat template raised for it in each later version, naming no row."""
    base = world.give_template(world.blank_base(), bench.root / "base")
    write_gold(bench, DAY, 0)
    asked = [
        make_gold(
            prompt=f'[{{"role":"user","content":"wait {number}"}}]',
            prompt_format="messages",
            chosen=f"time.sleep({number})",
            rejected="wait()",
            subject=f"user {number}",
        )
        for number in range(4)
    ]
    poison = make_gold(prompt='[{"role":"system","content":"x"}]', prompt_format="messages", chosen="a", rejected="b")
    bench.write(CURATED_DPO_PAIRS, DAY, [*asked, poison])
    recipe = {"sft_epochs": 1.0, "preference_epochs": 0.0}
    check = TrainabilityCheck(base_model=str(base), rendering=Rendering(max_length=64))
    manifest = cut(bench, versions, check)
    assert manifest.dropped == {"template_refused": 1}
    (refused,) = bench.lake.read(QUARANTINE, [DAY], ["detail"]).to_pylist()
    assert refused["detail"] == "the chat template refuses it: only users ask, not system"
    report = train_adapter(world.request(versions.folder("dpo_gold_v1").export, base, bench.root, **recipe))
    assert report.rows.pairs_used == 4
