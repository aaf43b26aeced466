"""What people did, counted per model version and day; drift before a champion; labels that contradict."""

from datetime import date
from pathlib import Path

import pytest

from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.daily.reports import FIRST_DAYS, count_disputes, read_summaries, report_drift, summarize_days
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, FEEDBACK_SUMMARY, JOINED_FEEDBACK, RAW_SCORES
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets_tests.builders import DAY, day, make_joined
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench, stamp


def joined(bench: Workbench, rows: list[dict[str, object]], on: object = DAY) -> None:
    bench.write(JOINED_FEEDBACK, on, rows)
    ledger.record_entries(
        bench.lake, [LedgerEntry(JOINED_FEEDBACK.name, on, True, "h", {}, len(rows), len(rows), {})], stamp()
    )


def said(signal: str, **fields: object) -> dict[str, object]:
    return make_joined(**{"signal": signal, "final_text": None, **fields})


def test_every_signal_has_its_column_and_every_model_version_its_row(bench: Workbench) -> None:
    joined(
        bench,
        [
            make_joined(prediction_id="p"),
            said("thumb", value=-1.0, prediction_id="p"),
            make_joined(output="same", final_text="same"),
            said("thumb", value=1.0),
            said("rating", value=0.2),
            said("rating", value=0.6),
            said("copy"),
            said("accept"),
            said("regenerate"),
            said("comment", comment="hm"),
            said("choice"),
            said("demonstration"),
            said("retract", prediction_id=""),
            said("accept", statement_id="saved", revision=1, prediction_id="twice"),
            said("accept", statement_id="saved", revision=2, prediction_id="twice"),
            said("accept", model_version="v2"),
            said("accept", model_version=None),
        ],
    )
    summarize_days(bench.lake, [DAY], stamp())
    unknown, base, second = read_summaries(bench.lake).to_pylist()
    assert base == {
        "completed_date": DAY,
        "model_version": "base",
        "events": 15,
        "interactions": 12,
        "edits": 2,
        "edits_unchanged": 1,
        "thumbs_up": 1,
        "thumbs_down": 1,
        "ratings": 2,
        "mean_rating": pytest.approx(0.4),
        "copies": 1,
        "accepts": 3,  # a revision is an event, too
        "regenerates": 1,
        "comments": 1,
        "choices": 1,
        "demonstrations": 1,
        "retractions": 1,
    }
    assert (unknown["model_version"], unknown["accepts"], unknown["mean_rating"]) == ("", 1, None)
    assert (second["model_version"], second["accepts"]) == ("v2", 1)


def test_a_day_is_replaced_and_a_silent_day_is_empty(bench: Workbench) -> None:
    joined(bench, [said("accept")])
    joined(bench, [], on=day(1))
    for _ in range(2):
        summarize_days(bench.lake, [DAY, day(1)], stamp())
    assert bench.lake.count_rows_per_day(FEEDBACK_SUMMARY) == {DAY: 1}
    assert set(ledger.read_entries(bench.lake, FEEDBACK_SUMMARY.name)) == {DAY, day(1)}


def test_a_day_that_was_never_joined_is_refused(bench: Workbench) -> None:
    with pytest.raises(MissingInputError, match="joined_feedback was never materialized"):
        summarize_days(bench.lake, [DAY], stamp())


def serve(bench: Workbench, on: date, features: list[str]) -> None:
    rows = [score(on, f"{on}-{number}", features=each) for number, each in enumerate(features)]
    bench.write(RAW_SCORES, on, [{**row, "received_date": on} for row in rows])


@pytest.mark.long
def test_before_a_champion_the_first_served_days_are_the_reference(tmp_path: Path) -> None:
    """A bad static model served for ten weeks, and the report was empty: there was no champion to compare with."""
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    for number in range(FIRST_DAYS + 7):
        amount = 10 if number < FIRST_DAYS else 900
        features = [f'{{"amount":{amount + each},"night":false,"country":"NL"}}' for each in range(30)]
        serve(bench, day(number), features)
    days = [day(number) for number in range(FIRST_DAYS + 7)]
    reports = report_drift(bench.lake, days, DAY, CONTRACT, DriftLimits(min_rows=100), None, stamp())
    assert not any(reports[each] for each in days[:FIRST_DAYS])
    last = {row["field"]: row for row in reports[days[-1]]}
    assert set(last) == {"amount", "night", "country", "score"}
    assert last["amount"]["breach"] is not None
    assert [last[name]["breach"] for name in ("night", "country", "score")] == [None] * 3
    assert last["amount"]["reference_version"] == f"first served days {DAY} … {day(FIRST_DAYS - 1)}"


def test_too_few_served_days_are_no_reference(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    serve(bench, DAY, ['{"amount":1,"night":false,"country":"NL"}'])
    assert report_drift(bench.lake, [DAY], DAY, CONTRACT, DriftLimits(), None, stamp()) == {DAY: []}


@pytest.mark.long
def test_equals_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES)
    events = [score(DAY, name) for name in ("agreed", "disputed", "silent")]
    events += [label(day(1), name, label="true", labeling_source="analyst") for name in ("agreed", "disputed")]
    events += [
        label(day(1), "disputed", event_id="other", label="false", labeling_source="chargeback"),
        label(day(1), "agreed", event_id="lower", label="false", labeling_source="a bot"),
    ]
    run(bench, events, day(2))
    found = count_disputes(bench.lake, RULES.labels, [DAY, day(1), day(2)])
    assert (found.labelled, found.disputed) == (2, 1)
