"""Rows for people who look at them: a version's or a day's, with what gold knows, and no text unless asked for."""

from pathlib import Path

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, CURATED_DPO_PAIRS, HARD_EXAMPLES
from flywheel_assets.lake.versions.example_versions import ExampleRules, cut_example_version
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.whatif.gold_rows import read_day_rows, read_version_rows
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench


def test_a_pair_is_shown_with_what_admitted_it_and_a_waiting_row_with_its_reason(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    write_gold(bench, DAY, 1)
    named = {"prediction_id": "p", "admitted_by": "numbers", "chosen": "words"}
    waiting = make_gold(held_reason="trivial_edit", support_key="k")
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(**named), waiting])
    versions = Versions(bench.root / "versions", APPLICATION)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", ResolutionRules(holdout_share=0.0), "1")
    [row] = read_version_rows(bench.lake, CURATED_DPO_PAIRS, versions.folder("dpo_gold_v1"), "train", 20)
    assert (row["admitted_by"], row["example_kind"], row["support_users"]) == ("numbers", "preference_pair", 1)
    assert "chosen" not in row
    assert len(read_day_rows(bench.lake, CURATED_DPO_PAIRS, DAY, 1)) == 1
    rows = read_day_rows(bench.lake, CURATED_DPO_PAIRS, DAY, 20, with_texts=True)
    assert {(row["held_reason"], row["chosen"] == "words") for row in rows} == {(None, True), ("trivial_edit", False)}
    assert read_day_rows(bench.lake, CURATED_DPO_PAIRS, day(1), 20) == []


def test_rows_of_a_classifier_have_no_features_unless_asked_for(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    run(bench, [event for at in (0, 16) for event in (score(day(at), f"n{at}"), label(day(at), f"n{at}"))], day(29))
    versions = Versions(bench.root / "versions", APPLICATION)
    rules = ExampleRules(contract=CONTRACT, mining=RULES, evaluation_weeks=1)
    cut_example_version(bench.lake, versions, "fraud_gold_v1", rules, "1")
    folder = versions.folder("fraud_gold_v1")
    for which, name in (("train", "n0"), ("evaluation", "n16")):
        [row] = read_version_rows(bench.lake, HARD_EXAMPLES, folder, which, 20)
        assert row["prediction_id"] == name
        assert "features" not in row
    [row] = read_version_rows(bench.lake, HARD_EXAMPLES, folder, "train", 20, with_texts=True)
    assert row["features"]["country"] == "NL"
    assert [row["is_positive"] for row in read_day_rows(bench.lake, HARD_EXAMPLES, DAY, 20)] == [True]
    with pytest.raises(
        UnknownNameError, match="unknown set of fraud_gold_v1 'holdout'; known: evaluation, refit, train"
    ):
        read_version_rows(bench.lake, HARD_EXAMPLES, folder, "holdout", 20)
