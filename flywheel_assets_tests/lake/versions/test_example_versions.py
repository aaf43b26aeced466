"""A classification version: who is trained on, who is judged on, as of when, and what was left out for which reason."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flywheel_assets.curation.labels.emphasis import EmphasisRules
from flywheel_assets.curation.labels.example_resolution import Calendar
from flywheel_assets.curation.labels.sampling import SamplingRules, draw_uniform
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.errors import EmptyVersionError
from flywheel_assets.lake.daily.breaker import find_tripped_days, reset_day
from flywheel_assets.lake.daily.ledger import list_days
from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, HARD_EXAMPLES
from flywheel_assets.lake.versions import example_versions
from flywheel_assets.lake.versions.example_versions import (
    ExampleRules,
    count_new_examples,
    cut_example_version,
    measure_live_calibration,
)
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, verify_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.label_delay import measure_label_delay
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, mine, run, score
from flywheel_assets_tests.lake.mass_labels import LABEL_LIMITS, flip, make_ordinary_days
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder

VERSION = "fraud_gold_v1"
EXAMPLES = ExampleRules(contract=CONTRACT, mining=RULES, evaluation_weeks=1)
LAST = day(29)
# T = 29, M = 22, E = 16, P = 8: days 0 to 8 are trained on, as known on day 15; days 16 to 22 are judged on.
CALENDAR = Calendar(day(29), day(22), day(16), day(8))


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, tables=CLASSIFICATION_TABLES)


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    return versions_of(bench)


@pytest.fixture(scope="module")
def prepared_holders(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """One card holder among others, with a dispute and with silences, in training and evaluation weeks."""
    bench = Workbench(tmp_path_factory.mktemp("holders"), tables=CLASSIFICATION_TABLES)
    events = []
    for offset in range(30):
        holder = {"user_id": "mallory"} if offset % 3 == 0 else {}
        events.append(score(day(offset), f"quiet-{offset}", **holder))
        events.append(score(day(offset), f"fraud-{offset}", score=0.3, **holder))
        if offset < 28:
            events.append(label(day(offset + 2), f"fraud-{offset}"))
    run(bench, events, LAST)
    bench.lake.catalog.engine.dispose()
    return PreparedFolder(bench.root)


@pytest.fixture
def holders(prepared_holders: PreparedFolder) -> Workbench:
    return Workbench(prepared_holders.restored(), tables=CLASSIFICATION_TABLES)


@pytest.fixture(scope="module")
def prepared_hard(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """A hard example a day for 28 days; of 30 days that are landed, three that are materialized have a label."""
    bench = Workbench(tmp_path_factory.mktemp("hard"), tables=CLASSIFICATION_TABLES)
    events = [score(day(offset), f"n{offset}", score=0.1) for offset in range(30)]
    events += [label(day(offset + 1), f"n{offset}") for offset in (0, 4, 8, 20)]
    run(bench, events, day(27))
    bench.lake.catalog.engine.dispose()
    return PreparedFolder(bench.root)


@pytest.fixture
def hard(prepared_hard: PreparedFolder) -> Workbench:
    return Workbench(prepared_hard.restored(), tables=CLASSIFICATION_TABLES)


def versions_of(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", APPLICATION)


def cut(bench: Workbench, versions: Versions, rules: ExampleRules = EXAMPLES, version: str = VERSION) -> Manifest:
    return cut_example_version(bench.lake, versions, version, rules, "1")


def rows(versions: Versions, which: ExportSet, version: str = VERSION) -> dict[str, dict[str, Any]]:
    export = versions.folder(version).export
    found: Sequence[Mapping[str, Any]] = pq.read_table(export / verify_manifest(export).files[which].name).to_pylist()
    assert len({row["prediction_id"] for row in found}) == len(found)
    return {row["prediction_id"]: dict(row) for row in found}


def test_the_calendar_keeps_a_maturity_between_training_and_evaluation_and_another_to_the_cut() -> None:
    assert EXAMPLES.plan_calendar(LAST) == CALENDAR


def test_training_and_evaluation_rows_are_complete_on_both_sides(holders: Workbench) -> None:
    versions = versions_of(holders)
    manifest = cut(holders, versions)
    train, evaluation = rows(versions, ExportSet.TRAIN), rows(versions, ExportSet.EVALUATION)
    assert set(train) == {f"{kind}-{offset}" for kind in ("quiet", "fraud") for offset in range(9)}
    assert set(evaluation) == {f"{kind}-{offset}" for kind in ("quiet", "fraud") for offset in range(16, 23)}
    assert {name for name, row in evaluation.items() if row["is_positive"]} == {f"fraud-{n}" for n in range(16, 23)}
    assert train["fraud-3"]["features"] == {"amount": 75.2, "night": False, "country": "NL"}
    assert {row["week"] for row in evaluation.values()} == {0}
    assert manifest.details["evaluate_from"] == "2026-03-18"
    assert manifest.dropped == {"later_than_training": 14 + 19}


def test_the_refit_knows_what_the_judged_model_may_not(holders: Workbench) -> None:
    """Training rows that end before the evaluation weeks cost .025 AP: what is deployed takes those weeks in, too."""
    versions = versions_of(holders)
    cut(holders, versions)
    refit = rows(versions, ExportSet.REFIT)
    assert set(refit) == {f"{kind}-{offset}" for kind in ("quiet", "fraud") for offset in range(23)}
    assert {name for name, row in refit.items() if row["is_positive"]} == {f"fraud-{n}" for n in range(23)}


@pytest.mark.long
def test_rows_count_once_most_positives_are_known(bench: Workbench, versions: Versions) -> None:
    """With labels 7 + Exp(3) days late hardly one is known after 7 days: rows of that age would teach the silence."""
    delays = [9, 9, 9, 10, 10, 11, 11, 12, 12, 14]
    events = []
    for offset in range(60):
        events += [score(day(offset), f"n{offset}-{number}") for number in range(3)]
        arrives = offset + delays[offset % 10]
        if arrives < 60:
            events += [label(day(arrives), f"n{offset}-{number}") for number in range(3)]
    run(bench, events, day(59))
    manifest = cut(bench, versions)
    assert manifest.details["maturity_days"] == 10
    assert manifest.details["evaluate_until"] == day(59 - 10).isoformat()
    assert max(row["prediction_received_date"] for row in rows(versions, ExportSet.REFIT).values()) == day(59 - 10)
    new = count_new_examples(bench.lake, versions, EXAMPLES)
    assert new.train_until == date.fromisoformat(manifest.details["train_until"])


@pytest.mark.long
def test_a_label_after_the_evaluation_began_does_not_train(bench: Workbench, versions: Versions) -> None:
    """The fraud of day 3 is disputed on day 20: trained at day 16 nobody could know, so the silence holds."""
    run(bench, [score(day(3), "late", score=0.3), label(day(20), "late"), score(day(1), "x"), label(day(2), "x")], LAST)
    cut(bench, versions)
    assert rows(versions, ExportSet.TRAIN)["late"]["is_positive"] is False


@pytest.mark.long
def test_a_later_label_supersedes_silence(bench: Workbench, versions: Versions) -> None:
    run(bench, [score(DAY, "late", score=0.3), label(day(12), "late")], LAST)
    manifest = cut(bench, versions)
    assert rows(versions, ExportSet.TRAIN)["late"]["is_positive"] is True
    assert manifest.dropped == {"superseded": 1}


CONTRADICTIONS: dict[str, tuple[list[tuple[str, str]], bool | None]] = {
    # Who said what, in this order, and what holds.
    "two trusted": ([("analyst", "false"), ("chargeback", "true")], None),
    "a reviewer over two trusted": ([("analyst", "false"), ("chargeback", "true"), ("reviewer", "true")], True),
    "trusted over others": ([("customer", "true"), ("analyst", "false")], False),
    "nobody trusted: the newest": ([("customer", "true"), ("merchant", "false")], False),
    "a correction": ([("analyst", "false"), ("analyst", "true")], True),
}


@pytest.fixture(scope="module")
def contradicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, dict[str, Any]]]:
    """A version of one prediction for each contradiction; tests read it."""
    bench = Workbench(tmp_path_factory.mktemp("contradicted"), tables=CLASSIFICATION_TABLES)
    versions = Versions(bench.root / "versions", APPLICATION)
    events = [score(DAY, "other")]
    for name, (sources, _) in CONTRADICTIONS.items():
        events.append(score(DAY, name))
        for number, (source, word) in enumerate(sources):
            at = datetime(2026, 3, 4, 10, number, tzinfo=UTC)
            known = {"event_id": f"{name} {number}", "labeling_source": source, "label": word, "received_at": at}
            events.append(label(day(2), name, **known))
    run(bench, events, LAST)
    manifest = cut(bench, versions)
    bench.lake.catalog.engine.dispose()
    return manifest, rows(versions, ExportSet.TRAIN)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_labels_are_resolved_by_trust_and_then_time(
    contradicted: tuple[Manifest, dict[str, dict[str, Any]]], name: str
) -> None:
    found = contradicted[1].get(name)
    assert (found["is_positive"] if found else None) == CONTRADICTIONS[name][1]


def test_only_labels_that_nobody_can_rank_are_disputed(
    contradicted: tuple[Manifest, dict[str, dict[str, Any]]],
) -> None:
    assert contradicted[0].dropped.get("disputed") == len(CONTRADICTIONS["two trusted"][0])


@pytest.mark.long
def test_weights_are_inverse_probabilities_with_recency_and_propensity(bench: Workbench, versions: Versions) -> None:
    sampling = SamplingRules(surprise_factor=1.0, floor=0.5, recency_half_life_days=16.0)
    rules = replace(EXAMPLES, mining=replace(RULES, sampling=sampling))
    names = [f"n{number}" for number in range(60)]
    events = [score(DAY, name, score=0.01) for name in names]
    events += [score(DAY, "let-through", score=0.3, allow_propensity=0.25), label(day(1), "let-through")]
    run(bench, events, LAST, rules.mining)
    manifest = cut(bench, versions, rules)
    train = rows(versions, ExportSet.TRAIN)
    # Half on its day, and another half by its age of 16 days: drawn twice with one hash.
    assert set(train) == {"let-through", *(name for name in names if draw_uniform(APPLICATION, name) < 0.25)}
    assert {row["sample_weight"] for name, row in train.items() if name in names} == {4.0}
    assert (train["let-through"]["sample_weight"], train["let-through"]["inclusion_probability"]) == (4.0, 1.0)
    kept_on_the_day = sum(draw_uniform(APPLICATION, name) < 0.5 for name in names)
    assert manifest.dropped == {"not_sampled": kept_on_the_day - (len(train) - 1)}


@pytest.mark.long
def test_training_rows_alone_are_emphasised(bench: Workbench, versions: Versions) -> None:
    """Both training files have the factor; evaluation rows have neither the factor nor its weight."""
    rules = replace(EXAMPLES, mining=replace(RULES, emphasis=EmphasisRules(recent_half_life_days=10.0)))
    events = [score(DAY, "old"), score(day(1), "young"), score(day(17), "judged")]
    run(bench, events, LAST, rules.mining)
    cut(bench, versions, rules)
    for which in (ExportSet.TRAIN, ExportSet.REFIT):
        found = rows(versions, which)
        assert found["young"]["emphasis"] == pytest.approx(2**0.1 * found["old"]["emphasis"])
        assert sum(row["emphasis"] for row in found.values()) == pytest.approx(len(found))
        assert all(row["sample_weight"] == row["emphasis"] for row in found.values())
    evaluated = rows(versions, ExportSet.EVALUATION)["judged"]
    assert evaluated["sample_weight"] == 1.0
    assert "emphasis" not in evaluated


@pytest.mark.long
def test_evaluation_leaves_out_what_nobody_can_know(bench: Workbench, versions: Versions) -> None:
    on = day(17)
    events = [
        score(on, "quiet"),
        score(on, "let-through", allow_propensity=0.25),
        score(on, "stopped", action="block"),
        score(on, "stopped-and-checked", action="block"),
        label(day(18), "stopped-and-checked"),
        score(on, "odd"),
        label(day(18), "odd", event_id="a", labeling_source="analyst", label="false"),
        label(day(18), "odd", event_id="b", labeling_source="chargeback"),
        score(on, "private", do_not_train=True),
        score(on, "broken", features="{}"),
        score(DAY, "trained"),
    ]
    run(bench, events, LAST)
    cut(bench, versions)
    found = rows(versions, ExportSet.EVALUATION)
    assert {name: row["sample_weight"] for name, row in found.items()} == {
        "quiet": 1.0,
        "let-through": 4.0,
        "stopped-and-checked": 1.0,
    }


@pytest.mark.long
def test_an_evaluation_row_is_the_first_receipt_of_its_id_however_old(bench: Workbench, versions: Versions) -> None:
    """The second receipt was an evaluation row, as a negative, while the label was about the first one."""
    events = [score(day(offset), f"n{offset}", score=0.1) for offset in range(30)]
    events += [score(DAY, "reused", score=0.2), score(day(18), "reused", score=0.9), label(day(19), "reused")]
    run(bench, events, LAST)
    cut(bench, versions)
    assert "reused" not in rows(versions, ExportSet.EVALUATION)


@pytest.mark.long
def test_an_excluded_week_is_in_neither_file(bench: Workbench, versions: Versions) -> None:
    events = [score(day(offset), f"n{offset}") for offset in range(30)]
    run(bench, events, LAST)
    for first, last in ((day(2), day(4)), (day(18), day(19))):
        rule = ExclusionRule(first_day=first, last_day=last)
        exclude_rows(bench.lake, rule, who="ada", reason="poisoned", now=datetime(2026, 9, 1, tzinfo=UTC))
    manifest = cut(bench, versions)
    assert set(rows(versions, ExportSet.TRAIN)) == {f"n{offset}" for offset in (0, 1, 5, 6, 7, 8)}
    assert set(rows(versions, ExportSet.EVALUATION)) == {f"n{offset}" for offset in (16, 17, 20, 21, 22)}
    assert manifest.dropped["excluded"] == 5
    assert len(manifest.exclusions) == 2


@pytest.mark.long
def test_one_prediction_and_one_label_stay_out_of_both_sides(bench: Workbench, versions: Versions) -> None:
    """Without its label an evaluated prediction would count as silent, so the row leaves with it."""
    events = [event for at in (0, 1, 16, 17) for event in (score(day(at), f"n{at}"), label(day(at + 1), f"n{at}"))]
    run(bench, events, LAST)
    for rule in (
        ExclusionRule(prediction_id="n0"),
        ExclusionRule(event_id=f"l-n16-{day(17)}"),
    ):
        exclude_rows(bench.lake, rule, who="ada", reason="garbage", now=datetime(2026, 9, 1, tzinfo=UTC))
    cut(bench, versions)
    assert set(rows(versions, ExportSet.TRAIN)) == {"n1"}
    assert set(rows(versions, ExportSet.EVALUATION)) == {"n17"}
    assert verify_versions(bench.lake, versions, HARD_EXAMPLES).differences == ()


@pytest.mark.long
def test_a_history_shorter_than_the_calendar_makes_no_version(bench: Workbench, versions: Versions) -> None:
    run(bench, [score(DAY, "x")], day(15))
    with pytest.raises(EmptyVersionError, match="no training row in 16 closed days"):
        cut(bench, versions)
    assert list(versions) == [] or not versions.folder(VERSION).pin.exists()


@pytest.mark.long
def test_net_new_counts_what_the_last_trained_version_did_not_hold(hard: Workbench) -> None:
    bench, versions = hard, versions_of(hard)
    before = count_new_examples(bench.lake, versions, EXAMPLES)
    assert (before.positives, before.hard_examples, before.train_until) == (2, 2, day(6))
    cut(bench, versions)
    folder = versions.folder(VERSION)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    assert count_new_examples(bench.lake, versions, EXAMPLES).positives == 0
    run_more = [day(28), day(29)]
    bench.ingest_both(run_more)
    bench.join(run_more)
    mine(bench, run_more)
    after = count_new_examples(bench.lake, versions, EXAMPLES)
    assert (after.positives, after.since) == (1, VERSION)


def test_below_the_threshold_no_example_is_read(hard: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of the ledger had all examples of all days resolved again, for a count that accounts could bound."""
    bench, versions = hard, versions_of(hard)
    monkeypatch.setattr(example_versions, "write_judged_examples_sql", lambda *_: pytest.fail("rows were read"))
    monkeypatch.setattr(example_versions, "_count_known_values", lambda *_: pytest.fail("manifests were read"))
    # Nothing of what a training would not take yet is counted: 14 rows are on days before the evaluation weeks.
    few = count_new_examples(bench.lake, versions, EXAMPLES, 100)
    assert (few.hard_examples, few.is_exact) == (few.rows, False)
    assert 3 <= few.rows < 30
    monkeypatch.undo()
    monkeypatch.setattr(example_versions, "write_judged_examples_sql", lambda *_: pytest.fail("rows were read"))
    # The three labelled ones by the counts of values in manifests.
    known = count_new_examples(bench.lake, versions, EXAMPLES, 4)
    assert (known.hard_examples, known.is_exact) == (3, False)
    monkeypatch.undo()
    exact = count_new_examples(bench.lake, versions, EXAMPLES, 3)
    assert exact.is_exact
    assert exact.hard_examples <= known.hard_examples


@pytest.mark.long
def test_after_a_training_only_later_and_changed_days_bound_new_examples(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [score(day(offset), f"n{offset}", score=0.1) for offset in range(40)]
    events += [label(day(offset + 1), f"n{offset}") for offset in (0, 1, 2, 4, 9)]
    # Too late for the first version: it lets the fraud of day 3 hold over its silence.
    events += [label(day(14), "n3")]
    run(bench, events, day(27))
    cut(bench, versions)
    folder = versions.folder(VERSION)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    more = [day(28), day(29), day(30), day(31)]
    bench.ingest_both(more)
    bench.join(more)
    mine(bench, more)
    exact = count_new_examples(bench.lake, versions, EXAMPLES)
    assert (exact.positives, exact.hard_examples, exact.age_days) == (2, 2, 4)
    monkeypatch.setattr(example_versions, "write_judged_examples_sql", lambda *_: pytest.fail("rows were read"))
    bound = count_new_examples(bench.lake, versions, EXAMPLES, 5, pause_days=7)
    assert not bound.is_exact
    # Of six hard examples in the table those of the first days are known.
    assert exact.hard_examples <= bound.hard_examples < 5
    # Calibration and age are looked at after the pause: then rows count.
    with pytest.raises(pytest.fail.Exception, match="rows were read"):
        count_new_examples(bench.lake, versions, EXAMPLES, 5, pause_days=4)


@pytest.mark.long
def test_live_calibration_stands_for_the_rows_that_were_not_sampled(bench: Workbench) -> None:
    sampling = SamplingRules(surprise_factor=0.0, floor=0.25)
    rules = replace(EXAMPLES, mining=replace(RULES, sampling=sampling))
    events = [score(day(20), f"n{number}", score=0.02) for number in range(800)]
    events += [score(day(20), f"f{number}", score=0.4) for number in range(10)]
    events += [label(day(22), f"f{number}") for number in range(10)]
    events += [score(day(1), "older", score=1.0, model_version="before"), label(day(2), "older")]
    run(bench, events, LAST, rules.mining)
    found = measure_live_calibration(bench.lake, rules, 28)
    assert (found.model_version, found.positives) == ("static", 10)
    assert found.ratio == pytest.approx((800 * 0.02 + 10 * 0.4) / 10, rel=0.1)


def test_dates_are_days_of_receipt_not_of_the_clients_clock(bench: Workbench, versions: Versions) -> None:
    yesterday = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=90)
    run(bench, [score(DAY, "x", occurred_at=yesterday)], LAST)
    cut(bench, versions)
    assert rows(versions, ExportSet.TRAIN)["x"]["prediction_received_date"] == date(2026, 3, 2)


def test_a_version_verifies_and_a_tampered_one_does_not(holders: Workbench) -> None:
    bench, versions = holders, versions_of(holders)
    exclude_rows(
        bench.lake, ExclusionRule(user_id="mallory"), who="ada", reason="r", now=datetime(2026, 11, 21, tzinfo=UTC)
    )
    manifest = cut(bench, versions)
    assert manifest.dropped["excluded"] > 0
    assert verify_versions(bench.lake, versions, HARD_EXAMPLES).differences == ()
    file = versions.folder(VERSION).export / manifest.files[ExportSet.TRAIN].name
    file.write_bytes(file.read_bytes() + b" ")
    assert "has sha256" in verify_versions(bench.lake, versions, HARD_EXAMPLES).differences[0]


@pytest.mark.long
def test_an_erased_person_is_in_neither_training_nor_evaluation_rows(holders: Workbench) -> None:
    """Evaluation rows are no gold rows: all predictions of later weeks, found by their prediction ids."""
    bench, versions = holders, versions_of(holders)
    before = cut(bench, versions)
    landing = ErasableLanding(bench.application, bench.landing, bench.root / "scratch" / "landing")
    place = Place(bench.lake, CLASSIFICATION_TABLES, versions, landing, bench.start, {})
    now = datetime(2027, 1, 1, tzinfo=UTC)
    receipt = erase_person(place, plan_erasure(place, "mallory"), who="ada", reason="r", now=now, grace=timedelta(0))
    hers = {f"{kind}-{offset}" for kind in ("quiet", "fraud") for offset in range(0, 30, 3)}
    kept = [name for which in before.files for name in rows(versions, which)]
    assert not hers & set(kept)
    assert len(kept) + receipt.versions[0].exported_rows_removed == sum(file.rows for file in before.files.values())
    exported_days = [*range(9), *range(16, 23), *range(23)]  # training, evaluation and refit
    assert receipt.versions[0].exported_rows_removed == 2 * sum(offset % 3 == 0 for offset in exported_days)
    assert verify_versions(bench.lake, versions, HARD_EXAMPLES).differences == ()
    assert bench.lake.read(HARD_EXAMPLES, where="subject = 'mallory'").num_rows == 0


OLD, NEW = '{"amount":1.0,"night":true,"country":"NL"}', '{"amount":1.0,"night":true,"country":"NL","risk":0.5}'
WITH_RISK = {**CONTRACT.features, "risk": FeatureType.NUMBER}


def turn_over_a_new_feature(bench: Workbench, versions: Versions, contract: ScoreContract) -> Manifest:
    """A score a day; from day 20 on, within the evaluation week, the service sends `risk`."""
    events = [score(day(n), f"n{n}", features=NEW if n >= 20 else OLD) for n in range(30)]
    run(bench, events, LAST, contract=contract)
    return cut(bench, versions, replace(EXAMPLES, contract=contract))


@pytest.mark.long
def test_a_new_feature_is_null_in_rows_before_its_first_day(bench: Workbench, versions: Versions) -> None:
    """To add a feature emptied the evaluation set and stopped the wheel for five weeks."""
    contract = replace(CONTRACT, features=WITH_RISK, features_since={"risk": day(20)})
    manifest = turn_over_a_new_feature(bench, versions, contract)
    train, evaluation = rows(versions, ExportSet.TRAIN), rows(versions, ExportSet.EVALUATION)
    assert {row["features"]["risk"] for row in train.values()} == {None}
    assert {name: row["features"]["risk"] for name, row in evaluation.items()} == {
        f"n{n}": 0.5 if n >= 20 else None for n in range(16, 23)
    }
    assert "feature_problem" not in manifest.details
    assert manifest.rules["contract"]["features_since"] == {"risk": day(20).isoformat()}


@pytest.mark.long
def test_a_version_says_that_a_feature_without_a_first_day_refuses_its_rows(
    bench: Workbench, versions: Versions
) -> None:
    """The gate said "0 matured weeks", and not one word of the schema."""
    turn_over_a_new_feature(bench, versions, CONTRACT)
    changed = replace(EXAMPLES, contract=replace(CONTRACT, features=WITH_RISK))
    manifest = cut(bench, versions, changed, "fraud_gold_v2")
    assert set(rows(versions, ExportSet.EVALUATION, "fraud_gold_v2")) == {"n20", "n21", "n22"}
    assert manifest.details["feature_problem"].startswith("feature `risk` is missing")


@pytest.mark.long
def test_a_retired_feature_is_there_for_the_champion_that_reads_it(bench: Workbench, versions: Versions) -> None:
    features = {name: kind for name, kind in CONTRACT.features.items() if name != "night"}
    contract = replace(CONTRACT, features=features, retired_features={"night": FeatureType.BOOLEAN})
    events = [score(day(n), f"n{n}", features='{"amount":1,"country":"NL"}' if n >= 20 else OLD) for n in range(30)]
    run(bench, events, LAST, contract=contract)
    cut(bench, versions, replace(EXAMPLES, contract=contract))
    train, evaluation = rows(versions, ExportSet.TRAIN), rows(versions, ExportSet.EVALUATION)
    assert {tuple(row["features"]) for row in train.values()} == {("amount", "country")}
    assert [evaluation[name]["features"]["night"] for name in ("n19", "n20")] == [True, None]


def land_moderated(bench: Workbench, rules: ExampleRules) -> None:
    """Each day one risky post, always reviewed, two of twenty harmless ones, reviewed by a draw of .1, and silence."""
    events = []
    for n in range(30):
        on, said = day(n), day(min(n + 1, 29))
        events.append(score(on, f"risky-{n}", score=0.8, label_propensity=1.0))
        events.append(label(said, f"risky-{n}"))
        for copy in range(20):
            events.append(score(on, f"calm-{n}-{copy}", score=0.05, label_propensity=0.1))
            if copy < 2:
                events.append(label(said, f"calm-{n}-{copy}", label="false" if n % 2 or copy else "true"))
    run(bench, events, LAST, rules.mining)


MODERATED = replace(EXAMPLES, mining=replace(RULES, silence="unknown"))


@pytest.mark.long
def test_where_silence_is_unknown_only_labelled_predictions_count(bench: Workbench, versions: Versions) -> None:
    """It took an undocumented trick, an action in `blocking_actions`, and lost the propensities."""
    land_moderated(bench, MODERATED)
    manifest = cut(bench, versions, MODERATED)
    # No maturity: T = M = 29, E = 23, P = 22.
    train, evaluation = rows(versions, ExportSet.TRAIN), rows(versions, ExportSet.EVALUATION)
    assert set(evaluation) == {name for n in range(23, 30) for name in (f"risky-{n}", f"calm-{n}-0", f"calm-{n}-1")}
    assert set(train) == {name for n in range(22) for name in (f"risky-{n}", f"calm-{n}-0", f"calm-{n}-1")}
    assert {row["labeling_source"] for row in (*train.values(), *evaluation.values())} == {"chargeback"}
    weights = {name.split("-")[0]: row["sample_weight"] for name, row in evaluation.items()}
    assert weights == {"risky": 1.0, "calm": 10.0}
    assert {row["sample_weight"] for name, row in train.items() if name.startswith("calm")} == {10.0}
    assert {row["known_share"] for row in evaluation.values()} == {1.0}
    assert (manifest.details["silence"], manifest.details["label_propensity_known"]) == ("unknown", 1.0)
    assert "known_at_maturity" not in manifest.details


@pytest.mark.long
def test_live_calibration_of_labelled_predictions_stands_for_all_by_their_propensities(bench: Workbench) -> None:
    """Silence as negatives made a calibrated classifier look as if it predicted two positives for each that came."""
    land_moderated(bench, MODERATED)
    live = measure_live_calibration(bench.lake, MODERATED, days=10)
    # Ten days: 10 risky positives of weight 1; of 20 calm rows of weight 10 the 5 of even days are positive.
    assert live.positives == 15
    assert live.ratio == pytest.approx((10 * 0.8 + 20 * 10 * 0.05) / (10 + 5 * 10))


@pytest.mark.long
def test_silence_that_was_mined_as_negative_leaves_when_it_becomes_unknown(
    bench: Workbench, versions: Versions
) -> None:
    land_moderated(bench, EXAMPLES)
    manifest = cut(bench, versions, MODERATED)
    assert {row["labeling_source"] for row in rows(versions, ExportSet.TRAIN).values()} == {"chargeback"}
    # Predictions up to day 15 matured by day 22, the day before E; 18 of each day were never looked at.
    assert manifest.dropped["silence_unknown"] == 16 * 18


@pytest.mark.long
def test_labels_of_a_tripped_day_count_nowhere_until_the_day_is_reset(bench: Workbench, versions: Versions) -> None:
    """A prediction that only wrong labels are about is no silent negative either: its truth is unknown.

    Flipped are the labels of days 9 and 18, about the predictions of 8 and 17. On day 12 forty predictions of day 1
    are called fraud, whose silence had matured.
    """
    called = [f"called-{number}" for number in range(40)]
    events = make_ordinary_days(0, 28)
    for on in (day(9), day(18)):
        events = flip(events, on)
    events += [score(day(1), name) for name in called] + [label(day(12), name) for name in called]
    run(bench, events, LAST, limits=LABEL_LIMITS)
    manifest = cut(bench, versions)
    assert manifest.details["tripped_days"] == [each.isoformat() for each in (day(9), day(12), day(18))]
    assert manifest.dropped["breaker_tripped"] == len(called)
    train, evaluation = rows(versions, ExportSet.TRAIN), rows(versions, ExportSet.EVALUATION)
    assert {name.split("-")[0] for name in train} == {str(offset) for offset in range(8)}
    assert {name.split("-")[0] for name in evaluation} == {str(offset) for offset in range(16, 23) if offset != 17}
    new = count_new_examples(bench.lake, versions, EXAMPLES)
    assert (new.rows, new.positives) == (len(train), sum(row["is_positive"] for row in train.values()))
    delay = measure_label_delay(bench.lake, RULES.maturity_days)
    assert delay is not None
    assert delay.curves[0].share_known(1) == 1

    for tripped in find_tripped_days(bench.lake):
        reset_day(bench.lake, tripped.day, who="ada", reason="they are right", now=NOON)
    mine(bench, list_days(day(9), LAST), limits=LABEL_LIMITS)
    manifest = cut(bench, versions, version="fraud_gold_v2")
    assert "tripped_days" not in manifest.details
    assert "breaker_tripped" not in manifest.dropped
    train = rows(versions, ExportSet.TRAIN, "fraud_gold_v2")
    assert all(train[name]["is_positive"] for name in called)
    assert "17-0" in rows(versions, ExportSet.EVALUATION, "fraud_gold_v2")


def test_a_manifest_of_two_classes_does_not_speak_of_several() -> None:
    """The rules of a version decide whether its days are new: another key would make each of them so."""
    contract = ExampleRules(contract=CONTRACT).as_json()["contract"]
    assert "classes" not in contract
    assert "scores" not in contract["mapping"]
    several = replace(CONTRACT, classes=("legit", "stolen", "friendly"), negative_label="legit")
    assert ExampleRules(contract=several).as_json()["contract"]["classes"] == ["legit", "stolen", "friendly"]
