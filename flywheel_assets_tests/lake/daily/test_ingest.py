"""Landing → raw tables: a pure function of the landed bytes, in which every line is accounted for."""

import json
from datetime import datetime, timedelta

import msgspec
import pytest

from flywheel_assets.errors import ClosedDayError, HomeMismatchError, LandingRetiredError
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, QUARANTINE, RAW_PREDICTIONS
from flywheel_assets_tests.builders import DAY, NOON, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.landed import BLANK, MALFORMED, encoded, instead
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench

PREDICTION, FEEDBACK = EventKind.PREDICTION, EventKind.FEEDBACK


def test_events_arrive_as_they_were_landed(bench: Workbench) -> None:
    predictions = [make_prediction(thread_id="t", user_id=None), make_prediction(do_not_train=True)]
    feedback = [make_feedback(), make_feedback(signal="rating", value=0.25, final_text=None, sampling_probability=0.5)]
    bench.land(PREDICTION, DAY, predictions)
    bench.land(FEEDBACK, DAY, feedback)
    bench.ingest_both([DAY])
    for spec, landed in ((RAW_PREDICTIONS, predictions), (GROUND_TRUTH, feedback)):
        expected = sorted(landed, key=lambda row: (row["prediction_id"], row["event_id"]))
        assert bench.rows(spec) == [{"received_date": DAY, **row} for row in expected]


def test_columns_that_may_be_left_out_get_their_meaning(bench: Workbench) -> None:
    row = make_feedback()
    names = ["event_id", "received_at", "occurred_at", "source", "prediction_id", "signal"]
    bench.land(FEEDBACK, DAY, [{name: row[name] for name in names}])
    bench.ingest(FEEDBACK, [DAY])
    [found] = bench.rows(GROUND_TRUTH)
    assert (found["do_not_train"], found["sampling_probability"]) == (False, 1.0)
    assert {name for name, value in found.items() if value is None} == {
        "model_version",
        "user_id",
        "thread_id",
        "prompt",
        "prompt_format",
        "original_output",
        "final_text",
        "value",
        "label",
        "labeling_source",
        "known_at",
        "comment",
        "statement_id",
        "revision",
        "sibling_id",
        "retracts",
        "tools",
        "original_message",
        "final_message",
        "attested_source",
        "is_attested",
    }


def test_the_same_day_twice_is_the_same_table(bench: Workbench) -> None:
    bench.land(PREDICTION, DAY, [make_prediction() for _ in range(5)], "a")
    bench.land(PREDICTION, DAY, [b"broken", encoded()], "b")
    first = bench.ingest(PREDICTION, [DAY])
    before = bench.rows(RAW_PREDICTIONS), bench.rows(QUARANTINE)
    assert bench.ingest(PREDICTION, [DAY]) == first
    assert (bench.rows(RAW_PREDICTIONS), bench.rows(QUARANTINE)) == before
    assert first[DAY].rows_kept == 6


def test_a_day_that_grew_is_replaced(bench: Workbench) -> None:
    now = NOON
    bench.land(PREDICTION, DAY, [encoded(), b"broken"], "a")
    open_day = bench.ingest(PREDICTION, [DAY], now)[DAY]
    bench.land(PREDICTION, DAY, [encoded()], "b")
    closed_day = bench.ingest(PREDICTION, [DAY])[DAY]
    assert (open_day.is_closed, open_day.rows_kept) == (False, 1)
    assert (closed_day.is_closed, closed_day.rows_kept) == (True, 2)
    assert open_day.content_hash != closed_day.content_hash
    assert len(bench.rows(QUARANTINE)) == 1


def test_a_range_with_empty_days_leaves_a_ledger_entry_for_each(bench: Workbench) -> None:
    bench.land(PREDICTION, day(1), [encoded(), encoded()])
    entries = bench.ingest(PREDICTION, [day(2), day(0), day(1)])
    assert {on: entry.rows_kept for on, entry in entries.items()} == {day(0): 0, day(1): 2, day(2): 0}
    assert all(entry.is_closed for entry in entries.values())
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {day(1): 2}


def test_kinds_do_not_touch_each_others_quarantine(bench: Workbench) -> None:
    bench.land(PREDICTION, DAY, [b"broken prediction"])
    bench.land(FEEDBACK, DAY, [b"broken feedback"])
    bench.ingest_both([DAY])
    bench.ingest(PREDICTION, [DAY])
    assert [row["payload"] for row in bench.rows(QUARANTINE)] == ["broken feedback", "broken prediction"]


def test_malformed_lines_end_in_quarantine_and_their_neighbours_do_not(bench: Workbench) -> None:
    """One malformed line failed the ingestion of its whole day; numbers and lists became texts without a word."""
    good = [make_prediction() for _ in MALFORMED]
    lines = zip(map(msgspec.json.encode, good), MALFORMED.values(), BLANK.values(), strict=False)
    bench.land(PREDICTION, DAY, [line for three in lines for line in three], "a")
    bench.land(PREDICTION, DAY, [*MALFORMED.values(), *good[4:]], "b")
    entry = bench.ingest(PREDICTION, [DAY])[DAY]
    malformed = 4 + len(MALFORMED)
    assert (entry.rows_in, entry.rows_kept) == (len(good) + malformed, len(good))
    assert (entry.rows_by_reason, entry.balance) == ({"malformed_event": malformed}, 0)
    assert {row["event_id"] for row in bench.rows(RAW_PREDICTIONS)} == {row["event_id"] for row in good}
    refused = bench.refusals("raw_predictions")
    assert [(row["day"], row["reason"]) for row in refused] == [(DAY, "malformed_event")] * malformed
    assert audit_accounts(bench.lake, RAW_PREDICTIONS).discrepancies == ()


def test_a_last_line_without_its_newline_is_read(bench: Workbench) -> None:
    path = bench.land(PREDICTION, DAY, [encoded()])
    path.write_bytes(path.read_bytes() + encoded())
    assert bench.ingest(PREDICTION, [DAY])[DAY].rows_kept == 2


def test_a_segment_without_lines_counts_for_nothing(bench: Workbench) -> None:
    bench.land(PREDICTION, DAY, [], "empty")
    entry = bench.ingest(PREDICTION, [DAY])[DAY]
    assert (entry.rows_in, entry.rows_kept, entry.rows_by_reason) == (0, 0, {})


def test_what_was_refused_can_be_read_in_quarantine(bench: Workbench) -> None:
    bench.land(PREDICTION, DAY, [encoded(), b'{"event_id": "7"', instead(encoded(event_id="8"), "received_at", "soon")])
    bench.ingest(PREDICTION, [DAY])
    torn, mistyped = sorted(bench.refusals("raw_predictions"), key=lambda row: len(row["payload"]))
    assert torn["payload"] == '{"event_id": "7"'
    assert torn["detail"].startswith("segment.jsonl line 2: ")
    assert json.loads(mistyped["payload"])["received_at"] == "soon"
    expected = "segment.jsonl line 3: Invalid RFC3339 encoded datetime - at `$.received_at`"
    assert (mistyped["row_id"], mistyped["detail"]) == ("8", expected)


STRANGE_TEXTS = {
    "empty": "",
    "NUL": "a\x00b\x00",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029",
    "right to left": "\u202eשלום עולם\u202c مرحبا",
    "emoji": "👩🏽\u200d💻 🏳️\u200d🌈 e\u0301",
    "quotes": "'\"\\ \\u0041 {{}} $1 --; DROP",
    "non-characters": "\ufffe\uffff\U0010ffff\ufeff",
    "looks like null": "null",
    "looks like json": '{"a": [1, null]}',
    "spaces": "  a\r\n\n b\t ",
    "1 MB": "häßlich 👍 " * 90_000,
}


@pytest.mark.parametrize("is_ascii", [False, True], ids=["utf-8", "escaped"])
def test_strange_texts_survive(bench: Workbench, is_ascii: bool) -> None:
    rows = {name: make_prediction(prompt=text, output=text, user_id=text[:100]) for name, text in STRANGE_TEXTS.items()}
    lines = []
    for row in rows.values():
        times = {name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)}
        lines.append(json.dumps({**row, **times}, ensure_ascii=is_ascii).encode())
    bench.land(PREDICTION, DAY, lines)
    entry = bench.ingest(PREDICTION, [DAY])[DAY]
    assert (entry.rows_kept, entry.rows_by_reason) == (len(rows), {})
    found = {row["event_id"]: row for row in bench.lake.read(RAW_PREDICTIONS).to_pylist()}
    for name, row in rows.items():
        assert found[row["event_id"]] == {"received_date": DAY, **row}, name


@pytest.mark.parametrize("segments", [("a", "b"), ("b", "a")])
def test_an_event_received_twice_in_a_day_keeps_its_first_receipt(bench: Workbench, segments: tuple[str, str]) -> None:
    first = make_feedback(final_text="first")
    retry = {**first, "received_at": first["received_at"] + timedelta(hours=1), "final_text": "changed"}
    bench.land(FEEDBACK, DAY, [retry, make_feedback(), retry], segments[0])
    bench.land(FEEDBACK, DAY, [first], segments[1])
    entry = bench.ingest(FEEDBACK, [DAY])[DAY]
    assert (entry.rows_in, entry.rows_kept, entry.rows_by_reason) == (4, 2, {"duplicate_event": 2})
    assert "first" in [row["final_text"] for row in bench.rows(GROUND_TRUTH)]
    assert audit_accounts(bench.lake, GROUND_TRUTH).discrepancies == ()


def test_of_two_receipts_at_the_same_time_the_first_line_is_kept(bench: Workbench) -> None:
    """Two contents under one id in one request carry the same times: which is kept must not depend on chance."""
    rows = [make_prediction() for _ in range(50)]
    bench.land(PREDICTION, DAY, [{**row, "output": output} for output in ("z", "a") for row in rows], "1")
    bench.land(PREDICTION, DAY, [{**row, "output": "b"} for row in rows], "2")
    bench.ingest(PREDICTION, [DAY])
    assert [row["output"] for row in bench.rows(RAW_PREDICTIONS)] == ["z"] * 50


def test_times_of_other_zones_are_the_same_instants(bench: Workbench) -> None:
    line = instead(encoded(), "received_at", "2026-03-02T14:00:00.123456+02:00")
    bench.land(PREDICTION, DAY, [line, instead(encoded(), "occurred_at", "2026-03-02T12:00:00")])
    entry = bench.ingest(PREDICTION, [DAY])[DAY]
    assert entry.rows_by_reason == {"malformed_event": 1}  # a time without a zone is no instant
    assert bench.rows(RAW_PREDICTIONS)[0]["received_at"] == NOON.replace(microsecond=123456)


def test_the_same_id_on_two_days_is_kept_on_both(bench: Workbench) -> None:
    row = make_prediction()
    for on in (day(0), day(1)):
        bench.land(PREDICTION, on, [row])
    bench.ingest(PREDICTION, [day(0), day(1)])
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == {day(0): 1, day(1): 1}


@pytest.mark.parametrize("damage", ["retired", "emptied", "altered at equal size", "closing"])
def test_a_damaged_closed_day_leaves_the_tables_untouched(bench: Workbench, damage: str) -> None:
    path = bench.land(PREDICTION, day(0), [encoded(), b"broken"])
    bench.land(PREDICTION, day(1), [encoded()])
    bench.ingest(PREDICTION, [day(0), day(1)])
    before = bench.rows(RAW_PREDICTIONS), bench.rows(QUARANTINE)
    if damage == "retired":
        path.unlink()
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "closing":
        (path.parent / "_CLOSED.json").write_bytes(b"\x00" * 100)
    else:
        # Once read without a word: only sizes were compared, and the day's content hash stayed what it was.
        path.write_bytes(path.read_bytes().replace(b"broken", b"forged"))
    with pytest.raises(LandingRetiredError if damage == "retired" else ClosedDayError) as refused:
        bench.ingest(PREDICTION, [day(0), day(1)])
    assert str(path.parent) in str(refused.value)
    assert str(day(0)) in str(refused.value)
    assert "estore" in str(refused.value), "the way back"
    other = bench.ingest(PREDICTION, [day(1)])
    assert other[day(1)].rows_kept == 1, "a damaged day does not hold up the others"
    assert (bench.rows(RAW_PREDICTIONS), bench.rows(QUARANTINE)) == before
    assert audit_accounts(bench.lake, RAW_PREDICTIONS).days == 2


def test_a_late_segment_is_ingested_on_the_day_it_was_found(bench: Workbench) -> None:
    bench.land(PREDICTION, DAY, [encoded()], "a")
    bench.ingest(PREDICTION, [DAY])
    bench.land(PREDICTION, DAY, [encoded()], "late")
    today = LONG_AFTER.date()
    entries = bench.ingest(PREDICTION, [DAY, today])
    assert (entries[DAY].rows_kept, entries[today].rows_kept, entries[today].is_closed) == (1, 1, False)


def test_a_segment_late_for_a_day_that_nobody_reads_again_is_read_today(bench: Workbench) -> None:
    """A capture process that stalled over midnight publishes into a day that is closed, curated and left alone."""
    bench.land(FEEDBACK, DAY, [make_feedback()])
    bench.ingest(FEEDBACK, [DAY], now=NOON + timedelta(days=1))
    late = bench.land(FEEDBACK, DAY, [make_feedback(event_id="late")], name="late")
    today = day(5)
    bench.ingest(FEEDBACK, [today], now=NOON + timedelta(days=5))
    assert not late.exists()
    assert [row["event_id"] for row in bench.rows(GROUND_TRUTH, [today])] == ["late"]
    assert len(bench.rows(GROUND_TRUTH, [DAY])) == 1


@pytest.mark.parametrize("mark", [b"{", b'{"id": "\xff"}'], ids=["torn", "no UTF-8"])
def test_a_damaged_mark_of_the_landing_folder_is_told(bench: Workbench, mark: bytes) -> None:
    """Bytes that are no UTF-8 ended in a traceback of the decoder."""
    bench.land(FEEDBACK, DAY, [make_feedback()])
    (bench.landing / "_HOME.json").write_bytes(mark)
    with pytest.raises(HomeMismatchError, match=r"_HOME\.json is damaged .*Delete it: the next ingest writes it again"):
        bench.ingest(FEEDBACK, [DAY])


def test_the_landing_folder_of_another_home_is_left_alone(bench: Workbench) -> None:
    """A second home that was pointed at it closed its days and moved its late segments."""
    bench.land(FEEDBACK, DAY, [make_feedback()])
    bench.ingest(FEEDBACK, [DAY])
    other = Workbench(bench.root / "other")
    other.landing = bench.landing
    before = sorted(bench.landing.rglob("*"))
    with pytest.raises(HomeMismatchError, match=r"landing zone .* belongs to the home .*`flywheel move`"):
        other.ingest(FEEDBACK, [day(1)])
    assert sorted(bench.landing.rglob("*")) == before
    bench.ingest(FEEDBACK, [DAY])
