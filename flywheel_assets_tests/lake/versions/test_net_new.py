"""What the training trigger counts: the lake's truth, whatever was materialized how often."""

from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, TableSpec
from flywheel_assets.lake.versions import net_new
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import NetNew, count_net_new, fingerprint_content, fingerprint_state
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.gold import gold_row, write_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp

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
    assert count(bench, versions) == NetNew(0, 0, "dpo_gold_v2", is_exact=False)
    write_gold(bench, day(1), 4)
    assert count(bench, versions) == NetNew(4, 1, "dpo_gold_v2", is_exact=True)


@pytest.mark.parametrize("text", ["", "another policy"], ids=["same content", "changed content"])
def test_a_day_written_again_is_not_new(bench: Workbench, versions: Versions, text: str) -> None:
    write_gold(bench, day(0), 3)
    train(bench, versions)
    for _ in range(2):
        write_gold(bench, day(0), 3, text=text)
    assert count(bench, versions) == NetNew(0, 0, "dpo_gold_v1", is_exact=bool(text))


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


@pytest.mark.long
def test_what_people_say_later_about_trained_days_is_counted_again(bench: Workbench, versions: Versions) -> None:
    """A day of thumbs, undone edits and retractions holds no pair, and still changes what a version trains on."""
    outputs = [make_prediction(prediction_id=name) for name in ("liked", "disputed")]
    bench.land(EventKind.PREDICTION, DAY, outputs)
    bench.land(
        EventKind.FEEDBACK,
        DAY,
        [
            *(react("accept", "liked", "ann"), react("accept", "disputed", "ann"), react("accept", "disputed", "dan")),
            write("disputed", "eve"),
            write("undone", "bob"),
            write("twice", "cid", "first"),
            write("twice", "cid", "second", statement_id="second", occurred_at=NOON + timedelta(hours=1)),
            write("saved", "flo", "first", statement_id="saved", revision=1),
            write("saved", "flo", "second", statement_id="saved", revision=2),
        ],
    )
    materialize(bench, DAY)
    rules = ResolutionRules(holdout_share=0.0, accepted_share=1.0)
    assert list_examples(bench, rules) == ({"undone", "twice", "saved"}, {"liked", "disputed"})
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", rules, "1")
    folder = versions.folder("dpo_gold_v1").training
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    content = fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS)

    later = {"occurred_at": NOON + timedelta(days=1), "received_at": NOON + timedelta(days=1)}
    undone = write("undone", "bob", **later)
    bench.land(
        EventKind.FEEDBACK,
        day(1),
        [
            *(react("thumb", name, "ann", value=-1.0, **later) for name in ("liked", "disputed")),
            {**undone, "final_text": undone["original_output"]},
            react("retract", "", "cid", retracts="second", **later),
            react("retract", "", "flo", retracts="saved", **later),
        ],
    )
    materialize(bench, day(1))
    assert fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS) != content
    # The older of two texts counts again, which is no new pair; of one that was revised and taken back nothing does.
    assert list_examples(bench, rules) == ({"disputed", "twice"}, set())
    found = count_net_new(bench.lake, versions, rules, 1)
    assert (found.pairs, found.is_exact) == (1, True)
    assert count_net_new(bench.lake, versions, rules, 10**9).pairs >= 1


def react(signal: str, prediction_id: str, user_id: str, **more: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
    return make_feedback(**{**texts, "signal": signal, "prediction_id": prediction_id, "user_id": user_id, **more})


def write(prediction_id: str, user_id: str, text: str = "only", **more: Any) -> dict[str, Any]:
    return make_feedback(
        prediction_id=prediction_id,
        user_id=user_id,
        prompt=f"How do I read the {prediction_id} setting?",
        final_text=f"Call store.read('{prediction_id}', default='{text}'): it never returns None.",
        **more,
    )


def materialize(bench: Workbench, on: date) -> None:
    for step in (bench.ingest_both, bench.join, bench.curate):
        step([on])


def list_examples(bench: Workbench, rules: ResolutionRules) -> tuple[set[str], set[str]]:
    """The predictions of which pairs and accepted outputs would be trained on."""
    found = resolve(bench.lake.read(CURATED_DPO_PAIRS), rules)
    return set(found.train["prediction_id"].to_pylist()), set(found.accepted["prediction_id"].to_pylist())


@pytest.fixture
def without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting rows fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(net_new, "find_pair_ids_to_train", refuse)


def test_below_the_threshold_accounts_alone_are_asked(bench: Workbench, versions: Versions, without_rows: None) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 1, is_closed=False)
    assert count(bench, versions, enough_pairs=4) == NetNew(3, 1, None, is_exact=False)
    with pytest.raises(AssertionError, match="rows were read"):
        count(bench, versions, enough_pairs=3)


def test_after_a_training_only_what_can_have_become_new_bounds_the_count(
    bench: Workbench, versions: Versions, without_rows: None
) -> None:
    """Gold only grows: with all its rows as the bound, every change was counted row by row from the first year on."""
    write_gold(bench, day(0), 30)
    write_gold(bench, day(1), 5)
    train(bench, versions)
    write_gold(bench, day(1), 5, text="another policy")
    write_gold(bench, day(2), 2)
    assert count(bench, versions, enough_pairs=8) == NetNew(7, 1, "dpo_gold_v1", is_exact=False)
    with pytest.raises(AssertionError, match="rows were read"):
        count(bench, versions, enough_pairs=7)


def test_what_the_last_version_dropped_may_come_back(bench: Workbench, versions: Versions, without_rows: None) -> None:
    """A cap that is a share of all rows lets old rows in when others come."""
    rules = ResolutionRules(holdout_share=0.0, per_user_cap=1)
    bench.write(CURATED_DPO_PAIRS, DAY, [{**gold_row(DAY, number), "subject": "one"} for number in range(5)])
    write_gold(bench, day(1), 1)
    entry = LedgerEntry(CURATED_DPO_PAIRS.name, DAY, True, "five of one user", {}, 5, 5, {})
    ledger.record_entries(bench.lake, [entry], stamp())
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", rules, "1")
    folder = versions.folder("dpo_gold_v1").training
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    assert count_net_new(bench.lake, versions, rules, 5) == NetNew(4, 0, "dpo_gold_v1", is_exact=False)
    # Under other rules, or when an exclusion has come or gone, every row is open again.
    with pytest.raises(AssertionError, match="rows were read"):
        count_net_new(bench.lake, versions, RULES, 5)
    exclude_rows(bench.lake, ExclusionRule(user_id="x"), who="ada", reason="r", now=stamp().now)
    with pytest.raises(AssertionError, match="rows were read"):
        count_net_new(bench.lake, versions, rules, 5)


def test_the_bound_is_never_below_the_count(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 6)
    train(bench, versions)
    for change in range(4):
        write_gold(bench, day(change % 2), 6 + change, text=str(change))
        exact, bound = count(bench, versions), count(bench, versions, enough_pairs=10**9)
        assert (exact.is_exact, bound.is_exact) == (True, False)
        assert exact.pairs <= bound.pairs


def test_the_content_moves_with_days_and_decisions_and_not_with_snapshots(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    contents = [fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS)]
    state = fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS)
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 3, is_closed=False)
    assert fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS) != state
    assert fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS) == contents[0]
    write_gold(bench, day(1), 3)
    contents.append(fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS))
    write_gold(bench, day(1), 3, text="other")
    contents.append(fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS))
    exclude_rows(bench.lake, ExclusionRule(user_id="x"), who="ada", reason="r", now=stamp().now)
    contents.append(fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS))
    train(bench, versions)
    contents.append(fingerprint_content(bench.lake, versions, CURATED_DPO_PAIRS))
    assert len(set(contents)) == len(contents)


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
    states = [fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS)]
    assert fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS) == states[0]
    write_gold(bench, day(0), 3, is_closed=False)
    states.append(fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS))
    write_gold(bench, day(0), 3)
    states.append(fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS))
    train(bench, versions)
    states.append(fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS))
    assert len(set(states)) == len(states)
