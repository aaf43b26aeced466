"""What the training trigger counts: the lake's truth, whatever was materialized how often."""

from typing import Any

import pyarrow as pa
import pytest

from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.lake import net_new
from flywheel_assets.lake.net_new import NetNew, count_net_new, lake_state
from flywheel_assets.lake.pair_versions import cut_pair_version
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, Lake, TableSpec
from flywheel_assets.lake.versions import Versions
from flywheel_assets_tests.builders import APPLICATION, DAY, day
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench

RULES = ResolutionRules(holdout_share=0.0)


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", APPLICATION)


def count(bench: Workbench, versions: Versions, enough_pairs: int = 1) -> NetNew:
    return count_net_new(bench.lake, versions, RULES, enough_pairs)


def train(bench: Workbench, versions: Versions, version: str = "dpo_gold_v1", *, succeeds: bool = True) -> None:
    cut_pair_version(bench.lake, versions, version, RULES, "1")
    if succeeds:
        folder = versions.folder(version).training
        folder.mkdir()
        (folder / "training.json").write_text("{}")


def test_an_empty_lake_has_nothing_new(bench: Workbench, versions: Versions) -> None:
    assert count(bench, versions) == NetNew(0, 0, None, is_exact=False)


def test_everything_is_new_before_the_first_training(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 0)
    assert count(bench, versions) == NetNew(3, 1, None, is_exact=True)


def test_open_days_do_not_count(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 5, is_closed=False)
    assert count(bench, versions) == NetNew(3, 1, None, is_exact=True)


def test_only_a_successful_training_makes_pairs_old(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    train(bench, versions, succeeds=False)
    assert count(bench, versions) == NetNew(3, 1, None, is_exact=True)
    train(bench, versions, "dpo_gold_v2")
    assert count(bench, versions) == NetNew(0, 0, "dpo_gold_v2", is_exact=True)
    write_gold(bench, day(1), 4)
    assert count(bench, versions) == NetNew(4, 1, "dpo_gold_v2", is_exact=True)


@pytest.mark.parametrize("text", ["", "another policy"], ids=["same content", "changed content"])
def test_a_day_written_again_is_not_new(bench: Workbench, versions: Versions, text: str) -> None:
    write_gold(bench, day(0), 3)
    train(bench, versions)
    for _ in range(2):
        write_gold(bench, day(0), 3, text=text)
    assert count(bench, versions) == NetNew(0, 0, "dpo_gold_v1", is_exact=True)


def test_a_backfilled_past_day_is_counted_once(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(9), 3)
    train(bench, versions)
    for _ in range(2):
        write_gold(bench, day(-5), 2)
        assert count(bench, versions) == NetNew(2, 1, "dpo_gold_v1", is_exact=True)


def test_pairs_that_would_not_be_trained_are_not_counted(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 30)
    all_held_out = count_net_new(bench.lake, versions, ResolutionRules(holdout_share=1.0), 1)
    assert all_held_out == NetNew(0, 1, None, is_exact=True)


def test_below_the_threshold_metadata_alone_is_asked(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 1, is_closed=False)

    def refuse(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(net_new, "pair_ids_to_train_now", refuse)
    assert count(bench, versions, enough_pairs=5) == NetNew(4, 1, None, is_exact=False)
    with pytest.raises(AssertionError, match="rows were read"):
        count(bench, versions, enough_pairs=4)


def test_counting_reads_no_text(bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trigger counts in the code server, whose memory must not grow with what users write."""
    write_gold(bench, day(0), 3)
    columns_read: list[str] = []
    read = Lake.read

    def watched(self: Lake, spec: TableSpec, *arguments: Any, **more: Any) -> pa.Table:
        found = read(self, spec, *arguments, **more)
        columns_read.extend(found.column_names if spec is CURATED_DPO_PAIRS else [])
        return found

    monkeypatch.setattr(Lake, "read", watched)
    assert count(bench, versions).pairs == 3
    assert columns_read
    assert not {"prompt", "chosen", "rejected"} & set(columns_read)


def test_the_state_changes_with_everything_the_count_depends_on(bench: Workbench, versions: Versions) -> None:
    states = [lake_state(bench.lake, versions, CURATED_DPO_PAIRS)]
    assert lake_state(bench.lake, versions, CURATED_DPO_PAIRS) == states[0]
    write_gold(bench, day(0), 3, is_closed=False)
    states.append(lake_state(bench.lake, versions, CURATED_DPO_PAIRS))
    write_gold(bench, day(0), 3)
    states.append(lake_state(bench.lake, versions, CURATED_DPO_PAIRS))
    train(bench, versions)
    states.append(lake_state(bench.lake, versions, CURATED_DPO_PAIRS))
    assert len(set(states)) == len(states)
