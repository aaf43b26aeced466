"""The people who would judge a version, counted before it is cut, against the version itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules, hash_for_holdout
from flywheel_assets.evaluation._scoring import stratify
from flywheel_assets.evaluation.requests import Stratum
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest, read_rows
from flywheel_assets.lake.versions.folders import VersionFolder, Versions
from flywheel_assets.lake.versions.pair_versions import Judges, count_judges, cut_pair_version
from flywheel_assets_tests.builders import day, make_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp, write_day

HALF = ResolutionRules(holdout_share=0.5)
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


def count(bench: Workbench, rules: ResolutionRules, *opponents: VersionFolder, enough: int = 0) -> Judges:
    days = list(ledger.read_closed_days(bench.lake, CURATED_DPO_PAIRS.name))
    return count_judges(bench.lake, rules, days, opponents, enough)


def count_judges_of_export(folder: VersionFolder, champion: VersionFolder | None = None) -> int:
    """Count the subjects of the primary stratum as the evaluation does."""
    folders = [folder] if champion is None else [folder, champion]
    prompts = {
        row.prompt_hash
        for each in folders
        for which in _LEARNT
        for row in read_rows(each.export, read_manifest(each.export), which)
    }
    known = set()
    if champion is not None:
        held_out = read_rows(champion.export, read_manifest(champion.export), ExportSet.HOLDOUT)
        known = {row.pair_id for row in held_out}
    rows = stratify(read_rows(folder.export, read_manifest(folder.export), ExportSet.HOLDOUT), known, prompts)
    return len({row.subject for stratum, row in rows if stratum is Stratum.PRIMARY})


@pytest.mark.parametrize("prompts", [5, 1_000_000])
def test_as_many_people_judge_as_were_foreseen(bench: Workbench, versions: Versions, prompts: int) -> None:
    write(bench, day(0), range(40), prompts=prompts)
    first = count(bench, HALF)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", HALF, "1")
    champion = versions.folder("dpo_gold_v1")
    assert first.judges == count_judges_of_export(champion)
    assert bool(first.judges) == (prompts > 5), "where everyone is asked the same, every prompt was trained on"

    # The champion has judged the old rows and was trained on the others: only new ones count.
    assert count(bench, HALF, champion).judges == 0
    write(bench, day(1), range(30, 60), prompts=prompts)
    second = count(bench, HALF, champion)
    cut_pair_version(bench.lake, versions, "dpo_gold_v2", HALF, "1")
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
