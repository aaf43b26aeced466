"""Rows of gold that are drawn for review: which, apart from the queue, and what their verdicts say."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.review.decisions import SAMPLED, Decision, Verb
from flywheel_assets.review.queue import ReviewQueue
from flywheel_assets.review.samples import measure_error_rate
from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import (
    REWRITTEN,
    TOMORROW,
    Reviewer,
    decided,
    fill,
    materialize_tomorrow,
    queue_of,
    reviewed,
    service,
)

TODAY = TOMORROW.date()
QUEUE = "/review/queue/assistant"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    bench = Workbench(tmp_path_factory.mktemp("sampled"))
    good = [make_feedback(event_id=f"good-{number}") for number in range(12)]
    fill(bench, make_feedback(event_id="rewritten", final_text=REWRITTEN), *good)
    return bench


def draw(bench: Workbench, share: float) -> list[str]:
    queue = ReviewQueue(replace(reviewed(bench), sampled_share=share), queue_of(bench).index)
    return [item.row_id for item in queue.list_waiting(TODAY, SAMPLED)]


def test_a_larger_share_keeps_the_rows_of_a_smaller_one_and_all_is_all(bench: Workbench) -> None:
    shares = [set(draw(bench, share)) for share in (0.0, 0.2, 0.6, 1.0)]
    assert shares == sorted(shares, key=len)
    assert all(smaller <= larger for smaller, larger in pairwise(shares))
    assert shares[0] == set()
    assert shares[-1] == {f"good-{number}" for number in range(12)}
    assert draw(bench, 0.6) == draw(bench, 0.6)


def test_the_sample_is_apart_and_its_verdicts_leave_gold_as_it_is(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    fill(
        bench,
        make_feedback(event_id="rewritten", final_text=REWRITTEN),
        *(make_feedback(event_id=f"good-{number}") for number in range(3)),
    )
    before = {row["pair_id"] for row in bench.rows(CURATED_DPO_PAIRS) if row["example_kind"] == "preference_pair"}
    with service(bench, application=replace(reviewed(bench), sampled_share=1.0)) as capture:
        ann = Reviewer(capture.url)
        page = ann.get(QUEUE).text
        assert page.count("data-row") == 1
        assert "sample of gold <small>3</small>" in page
        sample = ann.get(f"{QUEUE}?reason=sampled").text
        assert sample.count("data-row") == 3
        assert "Chosen are right" in sample
        ann.decide("good-0?reason=sampled", "accept")
        ann.decide("good-1?reason=sampled", "reject")
        noticed = ann.get(f"{QUEUE}?reason=sampled").text
        assert "flywheel exclude --prediction" in noticed
        ann.decide("good-2?reason=sampled", "write", text="Call store.read('x', default=1): it never returns None.")
        events = decided(bench.root, capture)
    assert {row: event["signal"] for row, event in events.items()} == {
        "good-0": "comment",
        "good-1": "comment",
        "good-2": "edit",
    }
    found = measure_error_rate(queue_of(bench).index.read_decisions())
    assert (found.reviewed, found.wrong) == (3, 2)
    materialize_tomorrow(bench)
    after = {row["pair_id"] for row in bench.rows(CURATED_DPO_PAIRS) if row["source"] == "app"}
    assert before <= after


def test_the_rate_counts_what_stands_about_drawn_rows_alone() -> None:
    def say(row: str, verb: Verb, reason: str = SAMPLED, minutes: int = 0, undoes: str | None = None) -> Decision:
        at = TOMORROW + timedelta(minutes=minutes)
        return Decision(verb, row, f"of {row}", reason, "Ann", at, event_id=f"{row} {minutes}", undoes=undoes)

    nothing = measure_error_rate([])
    assert (nothing.reviewed, nothing.share, nothing.low, nothing.high) == (0, None, 0.0, 1.0)
    right = [say(f"right-{number}", Verb.ACCEPT) for number in range(39)]
    wrong = [say("wrong", Verb.REJECT), say("elsewhere", Verb.REJECT, reason="rewrite")]
    changed = [say("changed", Verb.REJECT), say("changed", Verb.UNDO, minutes=1, undoes="changed 0")]
    found = measure_error_rate([*right, *wrong, *changed])
    assert (found.reviewed, found.wrong, found.share) == (40, 1, 0.025)
    assert (found.low, found.high) == pytest.approx((0.00063, 0.13159), abs=1e-5)
