"""The sentence about what the promotion gate could decide, against real lakes of small teams."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from flywheel_assets.application import ClassificationApplication, PreferenceApplication
from flywheel_assets.applications import fraud
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.automation.feasibility import Outlook, foresee_decision
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets.promotion.text_limits import PromotionLimits
from flywheel_assets_tests.builders import DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench, stamp, write_day

APPLICATION = PreferenceApplication(name="assistant", description="test", start_date=DAY, base_model="base")
CLASSIFIER = ClassificationApplication(
    name="fraud", description="test", start_date=DAY, contract=CONTRACT, mining=RULES, recipe=fraud.APPLICATION.recipe
)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(home=str(tmp_path))


def foresee(stores: Stores, application: PreferenceApplication = APPLICATION) -> Outlook:
    return foresee_decision(application, stores.lake("assistant"), stores.versions("assistant"))


def write_team(lake: Lake, people: int, days: Sequence[date]) -> None:
    """The same people every day, each with a pair of its own prompt."""
    for on in days:
        rows = [
            make_gold(
                completed_date=on,
                prediction_id=f"{on} {number}",
                feedback_event_id=f"{on} {number}",
                subject=f"colleague {number}",
                prompt=f"prompt {on} {number}",
            )
            for number in range(people)
        ]
        write_day(lake, CURATED_DPO_PAIRS, on, rows)
        entry = LedgerEntry(CURATED_DPO_PAIRS.name, on, True, f"{on}", {}, people, people, {})
        ledger.record_entries(lake, [entry], stamp())


def test_an_empty_lake_says_how_many_people_it_takes(stores: Stores) -> None:
    assert str(foresee(stores)) == (
        "gold has no closed day; the promotion gate needs 20 users among the 10% that are held out (about 200 people)"
    )


@pytest.mark.long
def test_a_team_of_sixty_never_has_twenty_at_a_tenth(stores: Stores) -> None:
    """It trained, was "not enough evidence", and trained again: no number of trainings would have changed that."""
    write_team(stores.lake("assistant"), 60, [day(number) for number in range(28)])
    found = foresee(stores)
    assert not found.can_decide
    assert found.sentence == (
        "6 held-out users of 60 with new rows would judge a version cut now, and the promotion gate needs 20 to decide"
    )
    assert found.remedy == (
        "no new user came in the last 14 days: at that rate 20 are never reached; ResolutionRules(holdout_share=0.40) "
        "would have 21 judge now and leave 1,092 of 1,512 pairs to train on; ResolutionRules(cross_fit_folds=5) would "
        "have 60 judge now and leave all 1,680 pairs, for 5 more trainings"
    )
    # What it proposes is enough.
    larger = replace(APPLICATION, resolution=ResolutionRules(holdout_share=0.40))
    assert foresee(stores, larger).can_decide
    folds = foresee(stores, replace(APPLICATION, resolution=ResolutionRules(cross_fit_folds=5)))
    assert folds.can_decide
    assert folds.sentence.startswith("60 users of 60 with new rows would judge a version cut now (20 are needed)")


@pytest.mark.long
def test_a_growing_service_hears_when(stores: Stores) -> None:
    write_gold_days(stores.lake("assistant"), {day(number): 4 for number in range(28)})
    found = foresee(stores)
    assert not found.can_decide
    assert "at 2.8 new held-out users a week 20 are reached in about" in found.remedy


def test_enough_people_and_what_they_can_prove(stores: Stores) -> None:
    write_gold_days(stores.lake("assistant"), {DAY: 300})
    found = foresee(stores)
    assert found.can_decide
    assert found.remedy == ""
    assert "(20 are needed): wins less losses of +0.1" in found.sentence
    assert "can be proven at level 0.025 (test 1 since the last proven gain), if every user gains alike" in (
        found.sentence
    )


def test_three_people_are_enough_for_the_limit_and_prove_nothing(stores: Stores) -> None:
    write_team(stores.lake("assistant"), 9, [DAY])
    few = replace(APPLICATION, resolution=ResolutionRules(holdout_share=0.3), limits=PromotionLimits(min_subjects=1))
    found = foresee(stores, few)
    assert not found.can_decide
    assert "who could prove no gain at level 0.025 (test 1 since the last proven gain), whatever the model does" in (
        found.sentence
    )
    assert "gold holds too few days to tell how many new users come" in found.remedy


def test_later_tests_ask_for_more_people_and_newer_data_for_fewer(stores: Stores) -> None:
    """The level of the next test comes from the decisions on disk."""
    lake, versions = stores.lake("assistant"), stores.versions("assistant")
    half = replace(APPLICATION, resolution=ResolutionRules(holdout_share=0.5), limits=PromotionLimits(min_subjects=1))
    write_gold_days(lake, {DAY: 30})
    cut_pair_version(lake, versions, "dpo_gold_v1", half.resolution, "1")
    folder = versions.folder("dpo_gold_v1")
    folder.training.mkdir()
    folder.training_report.write_text("{}")
    decision = Promotion(
        version="dpo_gold_v1", promoted=True, sentence="", champion_before=None, checks=[], route="proven_gain", look=1
    )
    record_promotion(folder.promotion, decision)
    again = foresee(stores, half)
    assert not again.can_decide
    assert again.sentence.startswith("0 held-out users of 0 with new rows"), "the champion was judged by the others"

    write_gold_days(lake, {day(1): 30})
    found = foresee(stores, half)
    assert found.can_decide
    assert "(test 1 since the last proven gain)" in found.sentence
    assert "; by newer data +0." in found.sentence

    for number in range(2, 50):
        name = f"dpo_gold_v{number}"
        (versions.folder(name).path).mkdir()
        refused = Promotion(
            version=name, promoted=False, sentence="", champion_before="dpo_gold_v1", checks=[], look=number - 1
        )
        record_promotion(versions.folder(name).promotion, refused)
    late = foresee(stores, half)
    assert late.can_decide, "by newer data"
    assert "no gain can be proven at level 2e-05 (test 49); by newer data" in late.sentence
    only_gains = replace(half, limits=PromotionLimits(min_subjects=1, newer_data_margin=None))
    assert foresee(stores, only_gains).remedy == "no number of users could: raise limits.alpha"


def test_people_whose_prompts_are_trained_on_judge_nothing(stores: Stores) -> None:
    lake = stores.lake("assistant")
    rows = [
        make_gold(
            completed_date=DAY, prediction_id=str(number), feedback_event_id=str(number), prompt=f"prompt {number % 3}"
        )
        for number in range(60)
    ]
    write_day(lake, CURATED_DPO_PAIRS, DAY, rows)
    ledger.record_entries(lake, [LedgerEntry(CURATED_DPO_PAIRS.name, DAY, True, "c", {}, 60, 60, {})], stamp())
    found = foresee(stores, replace(APPLICATION, resolution=ResolutionRules(holdout_share=0.5)))
    assert found.sentence.startswith("0 held-out users of ")
    assert "more only with prompts that are trained on" in found.sentence
    assert found.remedy.endswith("no holdout share up to 50% is enough")


def make_stream(positives_a_week: int, weeks: int) -> list[dict[str, object]]:
    """Every day a negative, and so many frauds a week that are known two days later."""
    events = [score(day(number), f"fine {number}") for number in range(7 * weeks)]
    for week in range(weeks):
        for number in range(positives_a_week):
            on = day(7 * week + number % 7)
            events.append(score(on, f"fraud {week} {number}"))
            events.append(label(on + timedelta(days=2), f"fraud {week} {number}"))
    return events


@pytest.mark.long
@pytest.mark.parametrize(
    ("limits", "sentence", "remedy"),
    [
        (ClassifierLimits(min_positives=12), "(12 positives in 2 weeks are needed)", ""),
        (
            ClassifierLimits(min_positives=30),
            "the promotion gate needs 30 positives in 2 weeks to decide",
            "at 7.0 positives a week it can in about",
        ),
        (
            ClassifierLimits(),
            "the promotion gate needs 100 positives in 2 weeks to decide",
            "at 7.0 positives a week the 6 weeks that are judged at most hold about 42, so it never can",
        ),
    ],
)
def test_a_classifier_is_foreseen_by_its_matured_positives(
    tmp_path: Path, stores: Stores, limits: ClassifierLimits, sentence: str, remedy: str
) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    run(bench, make_stream(7, 6), day(41))
    found = foresee_decision(replace(CLASSIFIER, limits=limits), bench.lake, stores.versions("fraud"))
    assert found.sentence.startswith("14 known positives in 2 matured weeks would judge a version cut now")
    assert sentence in found.sentence
    assert found.remedy.startswith(remedy)
    assert found.can_decide == (not remedy)


@pytest.mark.long
def test_a_young_classifier_waits_for_its_weeks(tmp_path: Path, stores: Stores) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    empty = foresee_decision(CLASSIFIER, bench.lake, stores.versions("fraud"))
    assert str(empty) == (
        "gold has no closed day; the promotion gate needs 100 positives in 2 weeks after the training data"
    )
    run(bench, make_stream(7, 1), day(8))
    young = foresee_decision(CLASSIFIER, bench.lake, stores.versions("fraud"))
    assert young.remedy == "no whole week of predictions has matured yet"
