"""Reviewers' decisions about quarantined rows become training texts, from the review service through a real lake."""

from datetime import timedelta
from pathlib import Path

import msgspec

from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import QUARANTINE
from flywheel_assets.records import REVIEWER_SOURCE
from flywheel_assets.review.decisions import Decision, Verb
from flywheel_assets.screening.heads.reviewed_texts import read_reviewed_examples
from flywheel_assets.screening.heads.training import Example
from flywheel_assets_tests.builders import NOON, day, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import TOKEN, TOXIC, Reviewer, fill, materialize_tomorrow, service

LET_IN = "Call store.read('y', default=0): that idiot of a cache returns None."
HIDDEN = "Call store.read('z', default=0), you moron: it never returns None."
SECRET = f"Call store.read('s', token='{TOKEN}'): it never returns None."


def test_decisions_become_labelled_texts_and_nothing_else_does(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    fill(
        bench,
        make_feedback(event_id="insult", final_text=TOXIC),
        make_feedback(event_id="quoted", final_text=LET_IN),
        make_feedback(event_id="undecided", final_text=f"{TOXIC} Really."),
        make_feedback(event_id="secret", final_text=SECRET),
        make_feedback(event_id="changed", final_text=f"{TOXIC} So."),
        make_feedback(event_id="comment", signal="comment", comment='{"verb": "accept"}'),
    )
    refused = bench.lake.read(QUARANTINE, columns=["row_id", "reason"]).to_pylist()
    reasons = {row["row_id"]: row["reason"] for row in refused}
    assert reasons["insult"] == reasons["quoted"] == "toxic_language"
    assert read_reviewed_examples(bench.lake) == []

    with service(bench) as running:
        ann = Reviewer(running.url)
        for row, verb in (("insult", "reject"), ("quoted", "accept"), ("secret", "reject"), ("changed", "reject")):
            assert ann.decide(row, verb).status_code < 400
        running.seal()
    materialize_tomorrow(bench)
    assert sorted(read_reviewed_examples(bench.lake), key=lambda each: each.text) == sorted(
        # A secret that was rejected says nothing about harm.
        [Example(TOXIC, True), Example(LET_IN, False), Example(f"{TOXIC} So.", True)],
        key=lambda each: each.text,
    )


def test_the_last_decision_counts_and_a_text_without_consent_is_left_out(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    rows = [
        make_feedback(event_id="twice", final_text=TOXIC),
        make_feedback(event_id="hidden", final_text=HIDDEN, do_not_train=True),
    ]
    fill(bench, *rows)
    decisions = []
    # The later receipt lands first: time decides, not the order of the lines.
    for row, verb, minute in ((rows[0], Verb.ACCEPT, 2), (rows[0], Verb.REJECT, 1), (rows[1], Verb.REJECT, 3)):
        at = NOON + timedelta(days=1, minutes=minute)
        decision = Decision(verb, row["event_id"], row["prediction_id"], "toxic_language", "Ann", at)
        texts = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
        about = {"prediction_id": row["prediction_id"], "source": REVIEWER_SOURCE, "received_at": at}
        comment = msgspec.json.encode(decision).decode()
        decisions.append(make_feedback(**texts, **about, signal="comment", comment=comment))
    bench.land(EventKind.FEEDBACK, day(1), decisions)
    materialize_tomorrow(bench)
    assert read_reviewed_examples(bench.lake) == [Example(TOXIC, False)]
