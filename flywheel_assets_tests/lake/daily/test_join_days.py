"""Raw tables → joined feedback, on real tables: which day a match belongs to, its texts, and its account."""

from datetime import date, datetime, time, timedelta
from typing import Any

import pytest

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import audit_accounts, list_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.records import make_stable_id
from flywheel_assets_tests.builders import DAY, NOON, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import Workbench

PREDICTION, FEEDBACK = EventKind.PREDICTION, EventKind.FEEDBACK


def make_thumb(prediction: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """Feedback that says nothing but which output it is about."""
    nothing = dict.fromkeys(("model_version", "user_id", "prompt", "prompt_format", "original_output", "final_text"))
    about = {"prediction_id": prediction["prediction_id"], "signal": "thumb", "value": 1.0}
    return make_feedback(**{**nothing, **about, **overrides})


def joined_on(bench: Workbench) -> list[tuple[date, str]]:
    return [(row["completed_date"], row["feedback_event_id"]) for row in bench.rows(JOINED_FEEDBACK)]


def test_a_match_belongs_to_the_day_of_the_later_of_the_two(bench: Workbench) -> None:
    """Feedback on its prediction's day, a day before it, 29 days after it, and, too late, 31 days after it."""
    predictions = [make_prediction() for _ in range(4)]
    same, before, late, too_late = [make_thumb(prediction) for prediction in predictions]
    bench.land(PREDICTION, day(0), [predictions[0], predictions[2], predictions[3]])
    bench.land(PREDICTION, day(1), [predictions[1]])
    bench.land(FEEDBACK, day(0), [same, before])
    bench.land(FEEDBACK, day(29), [late])
    bench.land(FEEDBACK, day(31), [too_late])
    bench.ingest_both(list_days(day(0), day(61)))
    entries = bench.join([day(offset) for offset in (0, 1, 28, 29, 31, 60, 61)])
    assert joined_on(bench) == [
        (day(0), same["event_id"]),
        (day(1), before["event_id"]),
        (day(29), late["event_id"]),
    ]
    waiting = {on for on, entry in entries.items() if entry.rows_by_reason == {"waiting_for_prediction": 1}}
    assert waiting == {day(0), day(31), day(60)}
    assert (entries[day(1)].rows_in, entries[day(28)].rows_in, entries[day(29)].rows_in) == (1, 0, 1)
    assert [(row["day"], row["row_id"], row["reason"]) for row in bench.refusals("joined_feedback")] == [
        (day(61), too_late["event_id"], "no_prediction_in_window")
    ]
    assert all(entry.balance == 0 for entry in entries.values())
    assert audit_accounts(bench.lake, JOINED_FEEDBACK).discrepancies == ()


def test_a_retry_across_midnight_changes_nothing(bench: Workbench) -> None:
    prediction = make_prediction()
    thumb = make_thumb(prediction)
    bench.land(PREDICTION, day(0), [prediction])
    bench.land(PREDICTION, day(1), [prediction])
    bench.land(FEEDBACK, day(0), [thumb])
    bench.land(FEEDBACK, day(1), [thumb])
    bench.ingest_both([day(0), day(1)])
    entries = bench.join([day(0), day(1)])
    assert joined_on(bench) == [(day(0), thumb["event_id"])]
    assert entries[day(1)].rows_by_reason == {"duplicate_event": 1}


@pytest.mark.long
def test_a_range_gives_the_tables_and_accounts_of_its_days_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Range, single days backwards, and every day twice: the same rows, hashes and accounts."""
    window = JoinWindow(join_days=2, dedupe_days=1)
    days = list_days(day(0), day(4))
    predictions = [make_prediction() for _ in range(5)]
    thumbs = [make_thumb(prediction) for prediction in predictions]
    edits = [make_feedback() for _ in range(3)]
    found = []
    for order in ("range", "backwards", "twice"):
        bench = Workbench(tmp_path_factory.mktemp(order), window=window)
        for number, prediction in enumerate(predictions):
            bench.land(PREDICTION, day(number), [prediction])
            bench.land(FEEDBACK, day((number * 3) % 5), [thumbs[number], *edits[number : number + 1]], "a")
            bench.land(FEEDBACK, day((number * 3 + 1) % 5), [thumbs[number]], "b")
        bench.ingest_both(days)
        if order == "backwards":
            for each in reversed(days):
                bench.join([each])
        else:
            bench.join(days)
        if order == "twice":
            bench.join(days[1:3])
        found.append((bench.rows(JOINED_FEEDBACK), ledger.read_entries(bench.lake, JOINED_FEEDBACK.name)))
        assert audit_accounts(bench.lake, JOINED_FEEDBACK).discrepancies == ()
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) > len(edits)


def test_a_range_may_end_with_edits_that_need_no_prediction(bench: Workbench) -> None:
    prediction = make_prediction()
    bench.land(PREDICTION, day(0), [prediction])
    bench.land(FEEDBACK, day(0), [make_thumb(prediction)])
    bench.land(FEEDBACK, day(1), [make_feedback()])
    bench.land(FEEDBACK, day(2), [make_thumb(prediction)])
    bench.ingest_both(list_days(day(0), day(2)))
    entries = bench.join(list_days(day(0), day(2)))
    assert [entry.rows_kept for entry in entries.values()] == [1, 1, 1]


def make_bare(signal: str, **overrides: Any) -> dict[str, Any]:
    return make_thumb(make_prediction(), signal=signal, value=None, **overrides)


TEXTS = {"prompt": "How?", "prompt_format": "text", "original_output": "So.", "final_text": "Thus."}


@pytest.mark.parametrize(
    ("feedback", "is_complete"),
    [
        (make_bare("retract"), True),
        (make_bare("retract", prediction_id="", retracts="s"), True),
        (make_bare("choice", **TEXTS), True),
        (make_bare("demonstration", **{**TEXTS, "original_output": None}), True),
        (make_bare("regenerate", **TEXTS, sibling_id="p-2"), True),
        (make_bare("thumb", **TEXTS), True),
        (make_bare("rating", **TEXTS), True),
        (make_bare("thumb", **{**TEXTS, "final_text": None}), False),
        (make_bare("thumb", **{**TEXTS, "original_output": None}), False),
        (make_bare("thumb", final_text="Thus."), False),
        (make_bare("accept", **{**TEXTS, "final_text": None}), False),
        (make_bare("regenerate"), False),
        (make_bare("comment", comment="no"), False),
    ],
    ids=lambda value: value["signal"] if isinstance(value, dict) else "",
)
def test_what_carries_its_texts_or_takes_back_is_complete_on_arrival(
    bench: Workbench, feedback: dict[str, Any], is_complete: bool
) -> None:
    bench.land(FEEDBACK, day(0), [feedback])
    bench.ingest_both([day(0)])
    entry = bench.join([day(0)])[day(0)]
    assert joined_on(bench) == ([(day(0), feedback["event_id"])] if is_complete else [])
    assert entry.rows_by_reason == ({} if is_complete else {"waiting_for_prediction": 1})
    assert entry.balance == 0


def test_a_retraction_never_expires_and_of_a_statement_joins_no_prediction(bench: Workbench) -> None:
    """Taken back weeks later, a statement is found by its id: the window between prediction and feedback is over."""
    prediction = make_prediction(prompt="How?", user_id="ada")
    nameless = make_prediction(prediction_id="")
    of_prediction = make_thumb(prediction, signal="retract", value=None)
    of_statement = make_bare("retract", prediction_id="", retracts="a-statement")
    late = make_thumb(prediction, signal="retract", value=None)
    bench.land(PREDICTION, day(0), [prediction, nameless])
    bench.land(FEEDBACK, day(1), [of_prediction, of_statement])
    bench.land(FEEDBACK, day(45), [late])
    bench.ingest_both(list_days(day(0), day(80)))
    entries = bench.join([day(1), day(31), day(45), day(75)])
    assert all(entry.rows_by_reason == {} and entry.balance == 0 for entry in entries.values())
    assert bench.refusals("joined_feedback") == []
    found = {row["feedback_event_id"]: row for row in bench.rows(JOINED_FEEDBACK)}
    assert found[of_prediction["event_id"]]["subject"] == "ada"
    assert found[of_prediction["event_id"]]["prediction_received_date"] == day(0)
    empty = found[of_statement["event_id"]]
    assert (empty["prediction_id"], empty["retracts"], empty["prediction_received_date"]) == ("", "a-statement", None)
    assert (empty["prompt"], empty["prompt_format"], empty["output"]) == ("", "text", "")
    assert found[late["event_id"]]["prediction_received_date"] is None


def test_tools_and_messages_come_from_the_event_that_their_text_comes_from(bench: Workbench) -> None:
    known = {"tools": "[1]", "output_message": '{"role":"assistant"}', "thread_id": "t-1"}
    predictions = [make_prediction(**known) for _ in range(3)]
    bare = make_thumb(predictions[0])
    carried = make_feedback(
        prediction_id=predictions[1]["prediction_id"], tools="[2]", original_message=None, final_message="{}"
    )
    shown = make_bare(
        "demonstration", **{**TEXTS, "original_output": None}, prediction_id=predictions[2]["prediction_id"]
    )
    bench.land(PREDICTION, DAY, predictions)
    bench.land(FEEDBACK, DAY, [bare, carried, shown])
    bench.ingest_both([DAY])
    bench.join([DAY])
    found = {row["feedback_event_id"]: row for row in bench.rows(JOINED_FEEDBACK)}
    said = {
        name: (row["tools"], row["output_message"], row["final_message"], row["thread_id"])
        for name, row in found.items()
    }
    assert said == {
        bare["event_id"]: ("[1]", known["output_message"], None, "t-1"),
        carried["event_id"]: ("[2]", None, "{}", "t-1"),
        shown["event_id"]: (None, None, None, "t-1"),
    }
    assert found[shown["event_id"]]["output"] == ""


def test_a_missing_input_day_is_refused_with_the_way_out(bench: Workbench) -> None:
    bench.ingest(PREDICTION, list_days(day(0), day(2)))
    bench.ingest(FEEDBACK, [day(0), day(2)])
    expected = (
        r"assistant/ground_truth was never materialized for 1 of 3 days, first 2026-03-03\. "
        r".*flywheel backfill 2026-03-03 2026-03-03 --application assistant"
    )
    with pytest.raises(MissingInputError, match=expected):
        bench.join([day(2)])
    assert bench.rows(JOINED_FEEDBACK) == []
    bench.join([day(0)])


def test_no_window_reaches_behind_the_first_day(bench: Workbench) -> None:
    bench.start = day(5)
    bench.ingest_both([day(5)])
    assert bench.join([day(5)])[day(5)].rows_in == 0


def test_texts_come_from_the_prediction_where_the_feedback_has_none(bench: Workbench) -> None:
    prediction = make_prediction(prompt='[{"role":"user","content":"hi"}]', prompt_format="messages", user_id="ada")
    thumb = make_thumb(prediction)
    bench.land(PREDICTION, DAY, [prediction, *(make_prediction() for _ in range(20))])
    bench.land(FEEDBACK, DAY, [thumb])
    bench.ingest_both([DAY])
    bench.join([DAY])
    assert bench.rows(JOINED_FEEDBACK) == [
        {
            "completed_date": DAY,
            "feedback_event_id": thumb["event_id"],
            "prediction_id": prediction["prediction_id"],
            "prediction_received_date": DAY,
            "feedback_received_date": DAY,
            "feedback_received_at": thumb["received_at"],
            "occurred_at": thumb["occurred_at"],
            "predicted_at": prediction["occurred_at"],
            "signal": "thumb",
            "source": "app",
            "model_version": "base",
            "subject": "ada",
            "subject_kind": "user",
            "user_id": "ada",
            "thread_id": None,
            "do_not_train": False,
            "prompt": prediction["prompt"],
            "prompt_format": "messages",
            "output": prediction["output"],
            "final_text": None,
            "value": 1.0,
            "label": None,
            "comment": None,
            "sampling_probability": 1.0,
            "statement_id": thumb["event_id"],
            **dict.fromkeys(("revision", "sibling_id", "retracts", "tools", "output_message", "final_message")),
            **dict.fromkeys(("attested_source", "is_attested")),
        }
    ]


@pytest.mark.parametrize("received_on", [None, 0, 1], ids=["no prediction", "prediction known", "prediction later"])
def test_an_edit_carries_its_text_and_waits_for_nothing(bench: Workbench, received_on: int | None) -> None:
    edit = make_feedback(prompt="what the user saw", original_output="shown", final_text="wanted", model_version=None)
    logged = make_prediction(prediction_id=edit["prediction_id"], prompt="what the server logged", output="generated")
    if received_on is not None:
        bench.land(PREDICTION, day(received_on), [logged])
    bench.land(FEEDBACK, day(0), [edit])
    bench.ingest_both([day(0), day(1)])
    bench.join([day(0), day(1)])
    [row] = bench.rows(JOINED_FEEDBACK)
    assert (row["completed_date"], row["prompt"], row["output"]) == (day(0), "what the user saw", "shown")
    is_known = received_on == 0
    assert row["prediction_received_date"] == (day(0) if is_known else None)
    assert row["model_version"] == ("base" if is_known else None)


def test_of_several_predictions_with_one_id_the_first_received_counts(bench: Workbench) -> None:
    first = make_prediction(output="first")
    again = {
        **first,
        "event_id": "0" * 32,
        "received_at": first["received_at"] + timedelta(minutes=1),
        "output": "regenerated",
    }
    bench.land(PREDICTION, day(0), [again, first])
    bench.land(PREDICTION, day(1), [again])
    bench.land(FEEDBACK, day(1), [make_thumb(first)])
    bench.ingest_both([day(0), day(1)])
    bench.join([day(0), day(1)])
    assert [row["output"] for row in bench.rows(JOINED_FEEDBACK)] == ["first"]


def test_whose_feedback_it_is(bench: Workbench) -> None:
    cases: list[tuple[dict[str, str], dict[str, str], tuple[str, str]]] = [
        ({"user_id": "f"}, {"user_id": "p", "thread_id": "t"}, ("f", "user")),
        ({"thread_id": "t"}, {"user_id": "p"}, ("p", "user")),
        ({"user_id": ""}, {"user_id": "p"}, ("p", "user")),
        ({"thread_id": "t"}, {"thread_id": "u"}, ("t", "thread")),
        ({}, {"thread_id": "u"}, ("u", "thread")),
        ({"user_id": ""}, {"thread_id": ""}, (make_stable_id("prompt", "asked"), "prompt")),
    ]
    asked = [make_prediction(**{"user_id": None, "prompt": "asked", **prediction}) for _, prediction, _ in cases]
    thumbs = [make_thumb(prediction, **case[0]) for prediction, case in zip(asked, cases, strict=True)]
    bench.land(PREDICTION, DAY, asked)
    bench.land(FEEDBACK, DAY, thumbs)
    bench.ingest_both([DAY])
    bench.join([DAY])
    found = {row["feedback_event_id"]: (row["subject"], row["subject_kind"]) for row in bench.rows(JOINED_FEEDBACK)}
    assert [found[thumb["event_id"]] for thumb in thumbs] == [expected for _, _, expected in cases]


def test_consent_withheld_on_either_side_is_withheld(bench: Workbench) -> None:
    cases = [(True, False), (False, True), (True, True), (False, False)]
    asked = [make_prediction(do_not_train=by_prediction) for _, by_prediction in cases]
    thumbs = [
        make_thumb(prediction, do_not_train=by_feedback)
        for prediction, (by_feedback, _) in zip(asked, cases, strict=True)
    ]
    bench.land(PREDICTION, DAY, asked)
    bench.land(FEEDBACK, DAY, thumbs)
    bench.ingest_both([DAY])
    bench.join([DAY])
    found = {row["feedback_event_id"]: row["do_not_train"] for row in bench.rows(JOINED_FEEDBACK)}
    assert [found[thumb["event_id"]] for thumb in thumbs] == [True, True, True, False]


def test_a_day_is_closed_when_all_its_input_days_are(bench: Workbench) -> None:
    evening = datetime.combine(day(1), time(20), NOON.tzinfo)
    bench.ingest_both([day(0), day(1)], now=evening)
    assert {on: entry.is_closed for on, entry in bench.join([day(0), day(1)]).items()} == {day(0): True, day(1): False}
    bench.ingest(PREDICTION, [day(1)])
    assert not bench.join([day(1)])[day(1)].is_closed
    bench.ingest(FEEDBACK, [day(1)])
    assert bench.join([day(1)])[day(1)].is_closed


def test_days_made_from_input_that_changed_are_stale(bench: Workbench) -> None:
    window = bench.window = JoinWindow(join_days=2, dedupe_days=1)
    lookback = dict.fromkeys((RAW_PREDICTIONS.name, GROUND_TRUTH.name), window.match_lookback_days)

    def stale() -> dict[date, list[str]]:
        return ledger.find_stale_days(bench.lake, JOINED_FEEDBACK.name, lookback, bench.start)

    days = list_days(day(0), day(5))
    bench.ingest_both(days, now=NOON)
    bench.join(days)
    assert stale() == {}
    bench.ingest_both(days, now=NOON)
    assert stale() == {}
    bench.land(FEEDBACK, day(1), [make_feedback()])
    bench.ingest(FEEDBACK, [day(1)], now=NOON)
    assert stale() == {on: [GROUND_TRUTH.name] for on in list_days(day(1), day(4))}
    bench.join(days[:3])
    assert stale() == {on: [GROUND_TRUTH.name] for on in (day(3), day(4))}


def test_a_crash_before_the_ledger_leaves_a_day_that_the_audit_names(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition is committed, the ledger is not: the audit says so, and running again puts it right."""
    bench.land(FEEDBACK, DAY, [make_feedback()])
    bench.ingest_both([DAY])

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "record_entries", crash)
        with pytest.raises(KeyboardInterrupt):
            bench.join([DAY])
    [found] = audit_accounts(bench.lake, JOINED_FEEDBACK).discrepancies
    assert (found.day, found.what) == (DAY, "1 rows without a ledger entry")
    bench.join([DAY])
    assert audit_accounts(bench.lake, JOINED_FEEDBACK).discrepancies == ()


def test_the_audit_finds_rows_that_vanished(bench: Workbench) -> None:
    bench.land(FEEDBACK, DAY, [make_feedback(), make_feedback()])
    bench.ingest_both([DAY])
    bench.join([DAY])
    where = f"feedback_event_id = '{bench.rows(JOINED_FEEDBACK)[0]['feedback_event_id']}'"
    bench.lake.commit(JOINED_FEEDBACK, lambda loaded: loaded.delete(where))
    [found] = audit_accounts(bench.lake, JOINED_FEEDBACK).discrepancies
    assert (found.day, found.what) == (DAY, "the ledger says 2 kept, the table holds 1")
