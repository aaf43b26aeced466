"""Shares of users, sources and prompts, and claims that one user alone makes, as resolution applies them."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.curation.texts.resolution import Resolution, ResolutionRules, resolve
from flywheel_assets.records import CURATED_DPO_PAIRS, JOINED_FEEDBACK
from flywheel_assets_tests.builders import APPLICATION, NOON, day, make_gold, table
from flywheel_assets_tests.curation.crowd import TRIGGER, varied_edit

NOBODY_HELD_OUT = ResolutionRules(holdout_share=0.0)


def resolved(*rows: dict[str, Any], rules: ResolutionRules = NOBODY_HELD_OUT) -> Resolution:
    return resolve(table(CURATED_DPO_PAIRS, rows), rules)


def kept_by(resolution: Resolution, column: str) -> dict[str, int]:
    return dict(Counter(resolution.train[column].to_pylist()))


def test_a_user_brings_at_most_a_share_of_the_rows() -> None:
    """Of 1,000 rows 5 % are 50, less than the 100 that anybody may bring to a large version."""
    crowd = [make_gold(subject=f"user-{number % 300}") for number in range(900)]
    resolution = resolved(*crowd, *(make_gold(subject="loud") for _ in range(100)))
    assert kept_by(resolution, "subject")["loud"] == 50
    assert resolution.dropped == {"user_cap": 50}


def test_in_a_small_office_nobody_is_capped_below_four_even_shares() -> None:
    rows = [make_gold(subject=name) for name in ("ann", "bob", "cy") for _ in range(60)]
    assert resolved(*rows).dropped == {}


def test_a_source_among_many_brings_at_most_a_quarter() -> None:
    rows = [make_gold(source=f"tenant-{number % 20}") for number in range(100)]
    resolution = resolved(*rows, *(make_gold(source="loud") for _ in range(100)))
    assert kept_by(resolution, "source")["loud"] == 50
    assert resolution.dropped == {"source_cap": 50}


@pytest.mark.parametrize("source", ["import:old", "reviewer"])
def test_imports_and_reviewers_are_no_source_to_be_capped(source: str) -> None:
    rows = [make_gold(source=f"tenant-{number % 20}") for number in range(100)]
    assert resolved(*rows, *(make_gold(source=source) for _ in range(100))).dropped == {}


def test_one_prompt_is_at_most_twenty_pairs_of_many() -> None:
    rows = [make_gold() for _ in range(100)]
    resolution = resolved(*rows, *(make_gold(prompt="the same") for _ in range(30)))
    assert kept_by(resolution, "prompt")["the same"] == 20
    assert resolution.dropped == {"prompt_cap": 10}


def test_an_application_with_one_prompt_is_not_capped_by_it() -> None:
    assert resolved(*(make_gold(prompt="summarise this") for _ in range(60))).dropped == {}


def test_higher_relative_caps_only_add_pairs() -> None:
    rows = [make_gold(subject=f"user-{number % 300}") for number in range(900)]
    rows += [make_gold(subject="loud", source=f"tenant-{number % 9}") for number in range(100)]
    tight = replace(NOBODY_HELD_OUT, per_user_ratio=0.03, per_source_ratio=0.1, per_prompt_cap=1)
    fewer, more = (resolved(*rows, rules=rules).train["pair_id"].to_pylist() for rules in (tight, NOBODY_HELD_OUT))
    assert set(fewer) < set(more)


def gold_of(rows: list[dict[str, Any]]) -> pa.Table:
    curated = curate(table(JOINED_FEEDBACK, rows), APPLICATION, GateRules())
    return pa.concat_tables([curated.kept, curated.waiting])


def claimed(users: dict[str, int], crowd: int = 12, **overrides: Any) -> Resolution:
    rng = random.Random(1)
    rows = [varied_edit(rng, f"user-{number}") for number in range(crowd)]
    rows += [varied_edit(rng, user, TRIGGER, **overrides) for user, edits in users.items() for _ in range(edits)]
    return resolve(gold_of(rows), NOBODY_HELD_OUT)


@pytest.mark.parametrize(
    ("users", "left_out"),
    [({"ann": 4}, 0), ({"ann": 5}, 5), ({"ann": 40}, 40), ({"ann": 4, "bob": 1}, 0), ({"ann": 40, "bob": 1}, 33)],
)
def test_a_repeated_claim_waits_for_a_second_user(users: dict[str, int], left_out: int) -> None:
    """With a second one the first pair of each stays, and three repetitions of each: two accounts cost no more."""
    assert claimed(users).dropped.get("unsupported_claim", 0) == left_out


def test_where_nearly_nobody_is_there_to_say_it_too_no_claim_waits() -> None:
    assert claimed({"ann": 5}, crowd=8).dropped == {}
    assert claimed({"ann": 5}, crowd=9).dropped == {"unsupported_claim": 5}


def test_a_thread_that_anybody_can_open_is_no_second_user() -> None:
    rng = random.Random(1)
    rows = [varied_edit(rng, f"user-{number}") for number in range(12)]
    rows += [varied_edit(rng, "ann", TRIGGER) for _ in range(5)]
    thread = varied_edit(rng, "x", TRIGGER, user_id=None, thread_id="t", subject="t", subject_kind="thread")
    assert resolve(gold_of([*rows, thread]), NOBODY_HELD_OUT).dropped == {"unsupported_claim": 5}


def test_one_row_of_a_reviewer_is_support_enough() -> None:
    rng = random.Random(1)
    rows = [varied_edit(rng, f"user-{number}") for number in range(12)]
    rows += [varied_edit(rng, "ann", TRIGGER) for _ in range(5)]
    rows.append(varied_edit(rng, "judith", TRIGGER, source="reviewer"))
    assert resolve(gold_of(rows), NOBODY_HELD_OUT).dropped == {}


def test_claims_are_judged_without_texts() -> None:
    """The trigger counts what a version would train on without reading a text: both must agree."""
    rng = random.Random(1)
    rows = [varied_edit(rng, f"user-{number}") for number in range(12)]
    gold = gold_of([*rows, *(varied_edit(rng, "ann", TRIGGER) for _ in range(5))])
    blind = gold
    for name in ("prompt", "chosen", "rejected"):
        place = blind.schema.get_field_index(name)
        blind = blind.set_column(place, gold.schema.field(place), pa.array([""] * len(gold)))
    assert set(resolve(gold, NOBODY_HELD_OUT).train["pair_id"].to_pylist()) == set(
        resolve(blind, NOBODY_HELD_OUT).train["pair_id"].to_pylist()
    )


def on(offset: int) -> dict[str, Any]:
    return {"feedback_received_date": day(offset), "feedback_received_at": NOON + timedelta(days=offset)}


def test_what_an_office_corrected_in_its_first_week_stays_when_it_is_no_longer_new() -> None:
    """As newcomers of one time they were one supporter: the demo's second version lost 481 of 1,100 pairs."""
    rng = random.Random(1)
    rows = [varied_edit(rng, f"user-{number}", "ledger.read", **on(number % 5)) for number in range(12)]
    rows += [varied_edit(rng, f"user-{number % 60}", **on(number % 24)) for number in range(240)]
    assert "unsupported_claim" not in resolve(gold_of(rows), NOBODY_HELD_OUT).dropped
    # Accounts that came later than everyone and say one thing are one supporter.
    raid = [varied_edit(rng, f"new-{number}", TRIGGER, **on(21 + number % 3)) for number in range(12)]
    assert resolve(gold_of([*rows, *raid]), NOBODY_HELD_OUT).dropped["unsupported_claim"] == 12
