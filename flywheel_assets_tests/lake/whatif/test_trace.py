"""What became of an event: every station of the way, for both kinds of application, from landing on."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.example_versions import ExampleRules, cut_example_version
from flywheel_assets.lake.versions.exclusions import ExclusionRule, end_exclusion, exclude_rows
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest
from flywheel_assets.lake.versions.folders import Promotion, Versions, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.whatif._exported_keys import find_sets
from flywheel_assets.lake.whatif.trace import Trace, Traced, trace_event
from flywheel_assets.records import make_event_id, make_pair_id
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day, make_feedback, make_gold, make_prediction
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench

NOW = datetime(2026, 9, 1, tzinfo=UTC)
PAIRS = ResolutionRules(holdout_share=0.0)
TEXT = "SECRET WORDS OF A PERSON"


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def versions_of(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", APPLICATION)


def trace(bench: Workbench, wanted: str, source: str | None = None, *, with_texts: bool = False) -> Trace:
    landing, wait_days = DiskLanding(bench.landing), bench.window.longest_wait_days
    places = Traced(bench.lake, bench.tables, versions_of(bench), landing, bench.landing, wait_days)
    return trace_event(places, wanted, source, with_texts=with_texts)


def says(found: Trace) -> list[str]:
    return [f"{step.stage}: {step.says}" for step in found.steps]


def materialize(bench: Workbench, until: int = 0) -> None:
    days = [day(offset) for offset in range(until + 1)]
    for step in (bench.ingest_both, bench.join, bench.curate):
        step(days)


@pytest.mark.long
def test_an_edit_from_the_disk_into_a_promoted_model(bench: Workbench) -> None:
    event = make_event_id(APPLICATION, "app", "e1")
    edit = make_feedback(event_id=event, prediction_id="p1", prompt=TEXT)
    bench.land(EventKind.FEEDBACK, DAY, [edit])
    landed = trace(bench, "e1", "app")
    assert says(landed) == [
        f"landed: Event {event} (edit) was received from app about prediction p1; landed in "
        "received_date=2026-03-02/segment.jsonl (the day is open). No table holds it yet: `flywheel turn` reads it."
    ]
    assert not (bench.zone(EventKind.FEEDBACK).find_day_folder(DAY) / "_CLOSED.json").exists()

    materialize(bench)
    cut_pair_version(bench.lake, versions_of(bench), "dpo_gold_v1", PAIRS, "1")
    folder = versions_of(bench).folder("dpo_gold_v1")
    for place, report in ((folder.training, {"adapter_sha256": "abc"}), (folder.evaluation, {})):
        place.mkdir()
        (place / f"{place.name}.json").write_bytes(msgspec.json.encode(report))
    decision = Promotion(version="dpo_gold_v1", promoted=True, sentence="Better.", champion_before=None, checks=[])
    record_promotion(folder.promotion, decision)

    found = trace(bench, event)
    pair = make_pair_id(APPLICATION, "p1")
    assert [re.sub(r"similarity .*", "", each) for each in says(found)] == [
        f"landed: Event {event} (edit) was received from app about prediction p1; landed on 2026-03-02, a closed day.",
        f"joined: Event {event} is complete: it carries its own texts.",
        f"judged: Event {event} is in gold as preference_pair {pair} (changes, ",
        "version: dpo_gold_v1 holds it: training rows.",
        "trained: It was trained into adapter abc of dpo_gold_v1.",
        "evaluated: In dpo_gold_v1 that model was evaluated.",
        "promoted: The model of dpo_gold_v1 was promoted: Better.",
    ]
    for other in ("p1", pair):
        assert says(trace(bench, other)) == says(found)
    assert says(trace(bench, "e1", "app")) == says(found)
    assert TEXT not in str(found)
    assert trace(bench, event, with_texts=True).texts[event]["prompt"] == TEXT


def test_an_unknown_id_says_where_it_was_looked_for(bench: Workbench) -> None:
    materialize(bench)
    found = trace(bench, "nothing")
    assert not found.is_known
    for place in ("ground_truth", "raw_predictions", "curated_dpo_pairs", "quarantine", "landed segments", "source"):
        assert place in found.complaint
    assert trace(Workbench(bench.root / "empty"), "nothing").steps == ()


@pytest.mark.long
def test_duplicates_revisions_and_the_events_around_one(bench: Workbench) -> None:
    statement = make_event_id(APPLICATION, "app", "note")
    first = make_feedback(event_id="r1", statement_id=statement, revision=1, prediction_id="p")
    second = make_feedback(
        **{**first, "event_id": "r2", "revision": 2, "received_at": NOON + timedelta(hours=1), "final_text": "Other."}
    )
    again = {**first, "received_at": NOON + timedelta(days=1)}
    thumb = make_feedback(
        prediction_id="p", signal="thumb", value=1.0, event_id="thumb",
        **dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text")),
    )  # fmt: skip
    bench.land(EventKind.FEEDBACK, DAY, [first, second, thumb])
    bench.land(EventKind.FEEDBACK, day(1), [again])
    materialize(bench, 1)
    for wanted, source in (("r1", None), ("r2", None), ("note", "app")):
        told = says(trace(bench, wanted, source))
        assert "landed: Event r2 supersedes event r1." in told
        assert "landed: 1 other event about its prediction; trace the prediction to see them." in told
        assert any("Event r1 was received again: a duplicate" in each for each in told)
    assert not any("other event" in each for each in says(trace(bench, "p")))
    assert any("Event thumb waits for prediction p, until 2026-04-01." in each for each in says(trace(bench, "p")))


def test_what_takes_a_statement_back_is_found_by_the_statement(bench: Workbench) -> None:
    """Over HTTP a retraction names a statement and no prediction."""
    taken = make_feedback(event_id="e", statement_id="e", prediction_id="p")
    back = {"event_id": "back", "signal": "retract", "prediction_id": "", "retracts": "e", "source": "shop"}
    texts = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
    bench.land(EventKind.FEEDBACK, DAY, [taken, make_feedback(**back, **texts)])
    materialize(bench)
    assert (
        "landed: Event back (retract) was received from shop; it takes back statement e; landed on 2026-03-02, "
        "a closed day."
    ) in says(trace(bench, "e"))


@pytest.mark.long
def test_what_waits_expires_or_is_refused_says_so(bench: Workbench) -> None:
    edit = make_feedback()["original_output"]
    bench.land(
        EventKind.FEEDBACK,
        DAY,
        [
            make_feedback(event_id="same", final_text=edit, original_output=edit),
            make_feedback(event_id="toxic", final_text="Call store.read('x', default=0), you idiot: never None."),
            make_feedback(event_id="late", prompt=None, prompt_format=None, original_output=None),
            b'{"event_id": "broken"}',
        ],
    )
    bench.ingest_both([DAY])
    assert any("is not joined yet: joined_feedback does not hold" in each for each in says(trace(bench, "late")))
    materialize(bench, 31)
    assert any("judged: Event same was refused (unchanged)" in each for each in says(trace(bench, "same")))
    [judged] = [each for each in says(trace(bench, "toxic")) if "was refused" in each]
    assert re.search(r"refused \(toxic_language\).*found by \w+ \(.*\); policy \w+", judged), judged
    assert "joined: Event late expired: no prediction came within 30 days (no_prediction_in_window)." in says(
        trace(bench, "late")
    )
    assert any("refused by ground_truth (malformed_event)" in each for each in says(trace(bench, "broken")))


def test_small_edits_say_how_many_people_are_missing(bench: Workbench) -> None:
    row = make_gold(feedback_event_id="e", held_reason="trivial_edit", support_key="k", subject="ann")
    bench.write(CURATED_DPO_PAIRS, DAY, [row, make_gold(held_reason="trivial_edit", support_key="k", subject="bob")])
    assert any("2 of 3 people say the same so far (support key k)" in each for each in says(trace(bench, "e")))


def test_of_two_edits_of_one_output_the_newer_gives_the_pair(bench: Workbench) -> None:
    write_gold(bench, DAY, 1)
    rows = [
        make_gold(prediction_id="p", feedback_event_id="old"),
        make_gold(prediction_id="p", feedback_event_id="new", feedback_received_at=NOON + timedelta(hours=2)),
    ]
    bench.write(CURATED_DPO_PAIRS, DAY, rows)
    cut_pair_version(bench.lake, versions_of(bench), "dpo_gold_v1", PAIRS, "1")
    told = says(trace(bench, "old"))
    assert "judged: Event old gives way to another person's text." in told
    assert any("corrected by 2 people" in each and "event new gives the pair" in each for each in told)
    assert "version: dpo_gold_v1 holds it: training rows; event new gives the pair." in told
    assert not any("gives way" in each for each in says(trace(bench, "new")))


def test_exclusions_and_days_that_came_too_late_explain_an_absence(bench: Workbench) -> None:
    versions = versions_of(bench)
    write_gold(bench, DAY, 2)
    exclusion = exclude_rows(bench.lake, ExclusionRule(prediction_id=f"{DAY} 0"), who="ada", reason="a joke", now=NOW)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", PAIRS, "1")
    end_exclusion(bench.lake, exclusion.id, who="bob", reason="no joke", now=NOW + timedelta(days=1))
    write_gold(bench, day(1), 1)
    cut_pair_version(bench.lake, versions, "dpo_gold_v2", PAIRS, "1")
    told = [each for each in says(trace(bench, f"{DAY} 0")) if not each.startswith("trained")]
    assert told[-4:-2] == [
        f"decided: Exclusion {exclusion.id} (one prediction) by ada keeps it out of later versions: a joke.",
        f"decided: Exclusion {exclusion.id} was ended by bob: no joke.",
    ]
    assert set(told[-2:]) == {
        f"version: dpo_gold_v1 does not hold it: left out by exclusion {exclusion.id}.",
        "version: dpo_gold_v2 holds it: training rows.",
    }
    assert f"version: dpo_gold_v1 does not hold it: {day(1)} was not closed when it was cut." in says(
        trace(bench, f"{day(1)} 0")
    )


@pytest.mark.long
def test_a_label_is_followed_into_the_evaluation_rows(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    events = [event for at in (0, 1, 16) for event in (score(day(at), f"n{at}"), label(day(at + 1), f"n{at}"))]
    run(bench, events, day(29))
    examples = ExampleRules(contract=CONTRACT, mining=RULES, evaluation_weeks=1)
    cut_example_version(bench.lake, versions_of(bench), "fraud_gold_v1", examples, "1")
    told = says(trace(bench, f"l-n0-{day(1)}"))
    assert told[0] == (
        f"landed: Prediction n0 was received from app, served by model static; landed on {DAY}, a closed day."
    )
    assert any("became a positive example by chargeback (event l-n0-2026-03-03)" in each for each in told)
    assert told[-2:] == [
        "version: fraud_gold_v1 holds it: rows that the deployed model is fitted on and training rows.",
        "trained: fraud_gold_v1 is not trained yet.",
    ]
    judged = (
        "version: fraud_gold_v1 holds it: rows that models are judged on and rows that the deployed model is fitted on."
    )
    assert says(trace(bench, "n16"))[-2:] == [judged, "trained: fraud_gold_v1 is not trained yet."]


def test_an_event_whose_prediction_only_landed(bench: Workbench) -> None:
    served = make_prediction(prediction_id="p", received_at=NOON + timedelta(days=1))
    bench.land(
        EventKind.FEEDBACK, DAY,
        [make_feedback(event_id="e", prediction_id="p", prompt=None, prompt_format=None, original_output=None)],
    )  # fmt: skip
    materialize(bench)
    bench.land(EventKind.PREDICTION, day(1), [served])
    assert any("Prediction p was received from app; landed in received_date=2026-03-03" in each
               for each in says(trace(bench, "e")))  # fmt: skip


@pytest.mark.parametrize("pairs", [1, 2, 3, 50])
def test_every_key_of_a_sorted_file_is_found_by_halves(bench: Workbench, pairs: int) -> None:
    """A search that skipped a line which began exactly in the middle would lose one key in some files."""
    write_gold(bench, DAY, pairs)
    manifest = cut_pair_version(bench.lake, versions_of(bench), "dpo_gold_v1", PAIRS, "1")
    export = versions_of(bench).folder("dpo_gold_v1").export
    assert read_manifest(export) == manifest
    for number in range(pairs):
        pair = make_pair_id(APPLICATION, f"{DAY} {number}")
        assert find_sets(export, manifest, pair, "") == [ExportSet.TRAIN]
    for absent in ("0" * 32, "f" * 32, make_pair_id(APPLICATION, "absent")):
        assert find_sets(export, manifest, absent, "") == []
