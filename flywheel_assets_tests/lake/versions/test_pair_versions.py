"""The people who would judge a version, counted before it is cut, against the version itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules, find_folds, hash_for_holdout
from flywheel_assets.errors import EmptyVersionError
from flywheel_assets.evaluation._scoring import stratify
from flywheel_assets.evaluation.requests import Stratum
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exports import FOLDS, ExportSet, count_folds, read_manifest, read_rows
from flywheel_assets.lake.versions.folders import VersionFolder, Versions
from flywheel_assets.lake.versions.pair_versions import CrossFit, Judges, count_judges, cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.builders import day, make_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp, write_day

HALF = ResolutionRules(holdout_share=0.5)
FOLDED = ResolutionRules(cross_fit_folds=4)
_LEARNT = (ExportSet.TRAIN, ExportSet.ACCEPTED, ExportSet.DEMONSTRATIONS, ExportSet.OBJECTIONS)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", bench.application)


def write(
    bench: Workbench, on: date, users: range, *, prompts: int = 1_000_000, objections: Sequence[dict[str, Any]] = ()
) -> None:
    """One pair of each user on that day; only so many prompts are different."""
    rows = [
        *objections,
        *(
            make_gold(
                completed_date=on,
                prediction_id=f"{on} {user}",
                feedback_event_id=f"{on} {user}",
                subject=f"user {user}",
                prompt=f"the prompt {on if prompts > 1000 else 'of all days'} {user % prompts}",
                chosen=f"chosen {on} {user}",
            )
            for user in users
        ),
    ]
    write_day(bench.lake, CURATED_DPO_PAIRS, on, rows)
    entry = LedgerEntry(CURATED_DPO_PAIRS.name, on, True, f"{on} {users}", {}, len(rows), len(rows), {})
    ledger.record_entries(bench.lake, [entry], stamp())


def count(bench: Workbench, rules: ResolutionRules, *opponents: VersionFolder, enough: int = 0, **more: int) -> Judges:
    days = list(ledger.read_closed_days(bench.lake, CURATED_DPO_PAIRS.name))
    return count_judges(bench.lake, rules, days, opponents, enough, **more)


def find_learnt_prompts(folder: VersionFolder, subject: str) -> set[str]:
    """Find the prompts that the model that judges this person learnt from."""
    manifest = read_manifest(folder.export)
    folds = count_folds(manifest)
    sets = _LEARNT if folds is None else [FOLDS[find_folds([subject], folds)[0] - 1]]
    return {row.prompt_hash for which in sets for row in read_rows(folder.export, manifest, which)}


def count_judges_of_export(folder: VersionFolder, champion: VersionFolder | None = None) -> int:
    """Count the subjects of the primary stratum as the evaluation does."""
    folders = [folder] if champion is None else [folder, champion]
    held_out = read_rows(folder.export, read_manifest(folder.export), ExportSet.HOLDOUT)
    is_trained = [
        any(row.prompt_hash in find_learnt_prompts(each, row.subject) for each in folders) for row in held_out
    ]
    known = set()
    if champion is not None:
        before = read_rows(champion.export, read_manifest(champion.export), ExportSet.HOLDOUT)
        known = {row.pair_id for row in before}
    rows = stratify(held_out, known, is_trained)
    return len({row.subject for stratum, row in rows if stratum is Stratum.PRIMARY})


@pytest.mark.parametrize("prompts", [5, 1_000_000])
@pytest.mark.parametrize("rules", [HALF, FOLDED], ids=["holdout", "folds"])
def test_as_many_people_judge_as_were_foreseen(
    bench: Workbench, versions: Versions, prompts: int, rules: ResolutionRules
) -> None:
    write(bench, day(0), range(40), prompts=prompts)
    first = count(bench, rules)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", rules, "1")
    champion = versions.folder("dpo_gold_v1")
    assert first.judges == count_judges_of_export(champion)
    assert bool(first.judges) == (prompts > 5), "where everyone is asked the same, every prompt was trained on"

    # The champion has judged the old rows and was trained on the others: only new ones count.
    assert count(bench, rules, champion).judges == 0
    write(bench, day(1), range(30, 60), prompts=prompts)
    second = count(bench, rules, champion)
    cut_pair_version(bench.lake, versions, "dpo_gold_v2", rules, "1")
    assert second.judges == count_judges_of_export(versions.folder("dpo_gold_v2"), champion)
    assert second.judges == (0 if prompts == 5 else second.held_out)
    assert second.people <= 30


def test_a_prompt_of_an_objection_was_trained_on(bench: Workbench, versions: Versions) -> None:
    """A held-out prompt judges only what no loss has seen, and an objection is learnt from."""
    people = [f"user {number}" for number in range(40)]
    trained = [name for name, fraction in zip(people, hash_for_holdout(people), strict=True) if fraction >= 0.5]
    objections = [
        make_gold(
            completed_date=day(0),
            prediction_id=f"objected {number}",
            feedback_event_id=f"objected {number}",
            subject=trained[number % len(trained)],
            prompt=f"the prompt of all days {number}",
            chosen="",
            rejected=f"wrong {number}",
            example_kind="objection",
            stance="objects",
            signal="thumb",
            source="reviewer",
            content_hash=f"objection {number}",
        )
        for number in range(40)
    ]
    write(bench, day(0), range(40), prompts=40, objections=objections)
    rules = replace(HALF, confirmed_objections=True)
    assert count(bench, HALF).judges > 10
    assert count(bench, rules).judges == 0
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", rules, "1")
    champion = versions.folder("dpo_gold_v1")
    assert count_judges_of_export(champion) == 0
    # Also where the next version exports none.
    write(bench, day(1), range(40), prompts=40)
    assert count(bench, HALF, champion).judges == 0


def test_a_larger_share_only_moves_people_to_the_holdout_and_is_the_least_that_is_enough(bench: Workbench) -> None:
    write(bench, day(0), range(60))
    tenth = count(bench, ResolutionRules(), enough=20)
    assert tenth.judges < 20
    assert tenth.larger is not None
    larger = tenth.larger
    assert count(bench, ResolutionRules(holdout_share=larger.share)).judges == larger.judges >= 20
    assert count(bench, ResolutionRules(holdout_share=larger.share - 0.01)).judges < 20
    assert larger.train + larger.judges == 60
    fractions = hash_for_holdout([f"user {number}" for number in range(60)])
    assert (fractions < larger.share).sum() == larger.judges
    assert ((fractions < 0.1) <= (fractions < larger.share)).all()
    assert count(bench, ResolutionRules(), enough=45).larger is None, "more than half of them"
    assert count(bench, ResolutionRules(), enough=61).larger is None


def test_in_folds_everyone_judges_a_model_that_learnt_from_the_others_and_all_teach_the_deployed_one(
    bench: Workbench, versions: Versions
) -> None:
    """A team of 40 has 20 judges only at a holdout of one half: then half of its pairs taught nothing."""
    write(bench, day(0), range(40))
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", FOLDED, "1")
    export = versions.folder("dpo_gold_v1").export
    people = {f"user {number}" for number in range(40)}
    subjects = {which: {row.subject for row in read_rows(export, manifest, which)} for which in manifest.files}
    assert subjects[ExportSet.TRAIN] == subjects[ExportSet.HOLDOUT] == people
    assert count_folds(manifest) == 4
    for number, which in enumerate(FOLDS[:4], start=1):
        of_fold = {person for person in people if find_folds([person], 4)[0] == number}
        assert of_fold
        assert subjects[which] == people - of_fold
    assert manifest.rules["cross_fit_folds"] == 4
    assert "holdout_share" not in manifest.rules
    assert verify_versions(bench.lake, versions, CURATED_DPO_PAIRS).differences == ()


def test_a_version_with_a_holdout_says_nothing_of_folds(bench: Workbench, versions: Versions) -> None:
    """Its manifest is the one that the release before wrote: another one would be another version."""
    write(bench, day(0), range(20))
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", HALF, "1")
    assert "cross_fit_folds" not in manifest.rules
    assert set(manifest.files).isdisjoint(FOLDS)


def test_folds_are_proposed_where_a_share_would_cost_many_pairs(bench: Workbench) -> None:
    write(bench, day(0), range(60))
    found = count(bench, ResolutionRules(), enough=20, enough_in_folds=30)
    assert found.larger is not None
    assert found.cross_fit == CrossFit(folds=5, judges=60, train=60)
    assert count(bench, ResolutionRules(), enough=20, enough_in_folds=61).cross_fit is None
    assert count(bench, ResolutionRules(cross_fit_folds=5)).judges == 60


def test_where_all_pairs_are_of_one_fold_nothing_is_cut(bench: Workbench, versions: Versions) -> None:
    """The model of that fold would have nothing to learn from, and its training would fail for ever."""
    write(bench, day(0), range(1))
    with pytest.raises(EmptyVersionError, match="no training row"):
        cut_pair_version(bench.lake, versions, "dpo_gold_v1", FOLDED, "1")


def test_people_who_were_trained_on_do_not_judge_their_old_prompts(bench: Workbench, versions: Versions) -> None:
    """A larger share after the first turn moves people whose rows the champion has learnt."""
    write(bench, day(0), range(60))
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", ResolutionRules(), "1")
    champion = versions.folder("dpo_gold_v1")
    assert count(bench, HALF, champion).judges == 0
    write(bench, day(1), range(10))
    moved = count(bench, HALF, champion)
    assert moved.people == 10
    assert 0 < moved.judges < 10


@pytest.mark.long
def test_the_rate_of_new_people_is_that_of_the_newer_half(bench: Workbench) -> None:
    for number in range(28):
        write(bench, day(number), range(3 * number, 3 * number + 3))
    steady = count(bench, HALF)
    assert (steady.people, steady.new_per_week, steady.rate_days) == (84, 21.0, 14)


@pytest.mark.long
def test_a_team_that_has_all_come_grows_no_more(bench: Workbench) -> None:
    """Over all days its 20 people are five new ones a week, and 40 would be "reached in four weeks"."""
    for number in range(28):
        write(bench, day(number), range(20))
    found = count(bench, HALF)
    assert (found.people, found.new_per_week) == (20, 0.0)


def test_a_few_days_tell_no_rate(bench: Workbench) -> None:
    write(bench, day(0), range(20))
    write(bench, day(0) + timedelta(days=12), range(20, 40))
    assert count(bench, HALF).new_per_week is None
