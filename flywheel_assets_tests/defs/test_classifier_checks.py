"""The checks of a wheel that fails quietly: each is green and red for what it counts, and says what to do."""

from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.fraud import APPLICATION
from flywheel_assets.defs.assets.classification import Deployed, add_deployed
from flywheel_assets.defs.classifier_checks import build_classifier_checks, describe_refusals, list_refusals
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.lake.versions.folders import Promotion, Versions, record_promotion
from flywheel_assets.promotion.text_limits import Check, Decision
from flywheel_assets_tests.builders import DAY, day
from flywheel_assets_tests.lake.labelled import label, run, score
from flywheel_assets_tests.lake.workbench import Workbench


def check(stores: Stores, name: str) -> dg.AssetCheckResult:
    [found] = [each for each in build_classifier_checks(APPLICATION) if next(iter(each.check_keys)).name == name]
    result = found(stores)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.severity is dg.AssetCheckSeverity.WARN
    return result


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fields_have_not_drifted", "nothing can be compared: no champion, and at most 28 days with predictions"),
        ("served_scores_are_calibrated", "no positive among the last 28 matured days"),
        ("labels_find_their_predictions", "0 of 0 labels"),
        ("labels_come_within_the_window", "0 labels of the last 0 closed days"),
        ("labels_agree", "no day is closed yet"),
        ("versions_get_promoted", "0 versions in a row were refused"),
    ],
)
def test_an_empty_lake_says_that_nothing_is_known(tmp_path: Path, name: str, sentence: str) -> None:
    result = check(Stores(home=str(tmp_path)), name)
    assert result.passed
    assert str(result.description).startswith(sentence)


def test_labels_without_predictions_and_disputes_are_counted(tmp_path: Path) -> None:
    bench, stores = Workbench(tmp_path, tables=CLASSIFICATION_TABLES, application="fraud"), Stores(home=str(tmp_path))
    bench.lake = stores.lake("fraud")
    known = [f"p{number}" for number in range(24)]
    events = [score(DAY, name) for name in known]
    events += [label(day(1), name, label="true", labeling_source="analyst") for name in known]
    events += [label(day(1), f"unknown{number}", label="true", labeling_source="analyst") for number in range(6)]
    for name in known[:3]:
        events.append(label(day(1), name, event_id=f"no-{name}", label="false", labeling_source="chargeback"))
    run(bench, events, day(2))

    match = check(stores, "labels_find_their_predictions")
    assert not match.passed
    assert str(match.description).startswith("6 of 33 labels of the last 3 closed days found no prediction; 6 wait")
    assert "flywheel trace" in str(match.description)
    agree = check(stores, "labels_agree")
    assert not agree.passed
    assert str(agree.description).startswith("3 of 24 labelled predictions are disputed; rank the sources")


@pytest.mark.long
def test_labels_later_than_the_window_are_counted_with_the_window_that_takes_them(tmp_path: Path) -> None:
    """A label 195 days after its prediction waited for 30 days and was refused, and no check was red."""
    bench, stores = Workbench(tmp_path, tables=CLASSIFICATION_TABLES, application="fraud"), Stores(home=str(tmp_path))
    bench.lake, bench.window = stores.lake("fraud"), APPLICATION.window
    run(bench, [score(DAY, "m1"), score(day(150), "m2"), label(day(195), "m1"), label(day(195), "m2")], day(196))
    result = check(stores, "labels_come_within_the_window")
    assert not result.passed
    assert result.description == (
        "1 labels of the last 28 closed days came later than the window of 180 days, at most 195 days after their "
        f"predictions; 1 of them on {day(195)}, the newest day. window=JoinWindow(join_days=195) takes them in time"
    )
    assert check(stores, "labels_find_their_predictions").passed


def decide(versions: Versions, number: int, *failed: str) -> None:
    folder = versions.folder(f"fraud_gold_v{number}")
    folder.path.mkdir(parents=True)
    checks = [
        {"name": name, "value": 1.38, "limit": 1.25, "ok": name not in failed, "detail": f"{name} in words"}
        for name in ("ap_gain", "calibration")
    ]
    promotion = Promotion(version=folder.version, promoted=not failed, sentence="", champion_before=None, checks=checks)
    record_promotion(folder.promotion, promotion)


def test_the_rule_that_refuses_most_versions_is_named(tmp_path: Path) -> None:
    """Ten versions were refused in ten weeks, most by one limit, and no check was red."""
    stores = Stores(home=str(tmp_path))
    versions = stores.versions("fraud")
    decide(versions, 1)
    decide(versions, 2, "calibration", "ap_gain")
    decide(versions, 3, "calibration")
    assert check(stores, "versions_get_promoted").passed
    decide(versions, 10, "calibration")
    result = check(stores, "versions_get_promoted")
    assert not result.passed
    assert result.description == (
        "3 versions in a row were refused, 3 of them by calibration; in fraud_gold_v10 it was 1.38, 0.13 from the "
        "limit 1.25: calibration in words. Change what it measures, or its limit in ClassifierLimits"
    )
    decide(versions, 11)
    assert list_refusals(versions) == []


def test_a_refusal_without_a_failed_check_is_described() -> None:
    refused = Promotion(version="v", promoted=False, sentence="", champion_before=None, checks=[])
    assert "without a failed check" in describe_refusals([refused] * 3)


def test_a_refits_failed_check_is_no_reason_for_a_refusal() -> None:
    """It was recorded with the refused version, and could have been named as the rule that refuses."""
    refit = Check("refit_ap", -0.1, 0.0, False, "worse out of sample")
    sentence = "The judged model is deployed, not its refit: worse out of sample."
    deployed = Deployed(Path("judged"), 0.4, sentence, (refit,))
    gain = Check("ap_gain", -0.02, 0.0, False, "not better")
    refused = Decision(False, "Not promoted: not better.", (gain,))
    assert add_deployed(refused, deployed) == refused
    promoted = add_deployed(Decision(True, "Promoted: better.", ()), deployed)
    assert (promoted.promote, promoted.checks) == (True, (refit,))
    assert promoted.sentence == f"Promoted: better. {sentence}"
