from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.texts.resolution import RESOLVED_COLUMNS, Resolution, ResolutionRules, resolve
from flywheel_assets.errors import SettingsError
from flywheel_assets.records import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import NOON, day, make_gold, table

NOBODY_HELD_OUT = ResolutionRules(holdout_share=0.0)
EVERYBODY_HELD_OUT = ResolutionRules(holdout_share=1.0)
SETS = ("train", "holdout", "accepted", "regression", "demonstrations", "objections")


def resolved(*rows: dict[str, Any], rules: ResolutionRules = NOBODY_HELD_OUT) -> Resolution:
    return resolve(table(CURATED_DPO_PAIRS, rows), rules)


def ids(rows: pa.Table) -> set[str]:
    return set(rows["feedback_event_id"].to_pylist())


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ({}, {"feedback_received_at": NOON.replace(hour=23)}, 1),
        ({"source": "reviewer"}, {"feedback_received_at": NOON.replace(hour=23)}, 0),
        ({"source": "import:x"}, {"feedback_received_at": NOON.replace(hour=1)}, 1),
        ({"example_kind": "accepted_output", "feedback_received_at": NOON.replace(hour=23)}, {}, 1),
        ({"example_kind": "accepted_output", "source": "reviewer"}, {}, 0),
    ],
)
def test_one_row_per_prediction(first: dict[str, Any], second: dict[str, Any], winner: int) -> None:
    rows = [make_gold(prediction_id="p", **first), make_gold(prediction_id="p", **second)]
    for order in (rows, rows[::-1]):
        resolution = resolved(*order)
        assert resolution.dropped["outvoted"] == 1
        assert ids(resolution.train) | ids(resolution.accepted) <= {rows[winner]["feedback_event_id"]}


def test_duplicates_of_other_days_leave_but_never_for_a_row_of_the_other_side() -> None:
    twins = [make_gold(subject=f"user-{number}", prompt="p", chosen="c") for number in range(60)]
    newest = make_gold(
        subject="user-0", prompt="p", chosen="c", completed_date=day(3), feedback_received_at=NOON.replace(day=9)
    )
    resolution = resolved(*twins, newest, rules=ResolutionRules(holdout_share=0.5))
    assert (resolution.train.num_rows, resolution.holdout.num_rows) == (1, 1)
    assert newest["feedback_event_id"] in ids(resolution.train) | ids(resolution.holdout)
    assert resolution.dropped == {"duplicate": 59}


def test_a_pair_and_an_accepted_output_of_the_same_text_are_no_duplicates() -> None:
    rows = [make_gold(prompt="p", chosen="c"), make_gold(prompt="p", chosen="c", example_kind="accepted_output")]
    resolution = resolved(*rows)
    assert (resolution.train.num_rows, resolution.accepted.num_rows) == (1, 1)


def test_caps_count_users_one_by_one_and_everybody_else_by_source() -> None:
    rows = [
        *(make_gold(subject="loud") for _ in range(7)),
        *(make_gold(subject=f"thread-{number}", subject_kind="thread") for number in range(9)),
        *(make_gold(subject=f"web-{number}", subject_kind="prompt", source="web") for number in range(3)),
        *(make_gold(subject=f"old-{number}", subject_kind="prompt", source="import:x") for number in range(20)),
        make_gold(subject="quiet"),
    ]
    resolution = resolved(*rows, rules=replace(NOBODY_HELD_OUT, per_user_cap=3, anonymous_cap_per_source=4))
    kept = [row["subject"].split("-")[0] for row in resolution.train.to_pylist()]
    assert {who: kept.count(who) for who in kept} == {"loud": 3, "thread": 4, "web": 3, "old": 20, "quiet": 1}
    assert resolution.dropped == {"user_cap": 4, "anonymous_cap": 5}


def test_accepted_outputs_are_a_sample_with_its_probability() -> None:
    rows = [make_gold(), make_gold(), *(make_gold(example_kind="accepted_output") for _ in range(10))]
    resolution = resolved(*rows, rules=replace(NOBODY_HELD_OUT, accepted_share=0.0, accepted_min_ratio=1.5))
    assert resolution.accepted["inclusion_probability"].to_pylist() == [0.3] * 3
    assert resolution.dropped == {"not_sampled": 7}
    scarce = resolved(*rows, rules=replace(NOBODY_HELD_OUT, accepted_min_ratio=50))
    assert scarce.accepted["inclusion_probability"].to_pylist() == [1.0] * 10
    by_share = resolved(*rows, rules=replace(NOBODY_HELD_OUT, accepted_share=1.0, accepted_min_ratio=0))
    assert by_share.accepted.num_rows == 10
    assert set(resolution.train["inclusion_probability"].to_pylist()) == {1.0}


def test_held_out_accepted_outputs_are_the_regression_set_and_never_sampled() -> None:
    rows = [make_gold(example_kind="accepted_output") for _ in range(5)]
    resolution = resolved(*rows, rules=EVERYBODY_HELD_OUT)
    assert resolution.regression.num_rows == 5
    assert resolution.dropped == {}


def test_no_rows() -> None:
    resolution = resolved()
    assert all(
        getattr(resolution, name).schema.equals(pa.schema([*CURATED_DPO_PAIRS, *RESOLVED_COLUMNS])) for name in SETS
    )
    assert resolution.dropped == {}


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prediction_id": st.integers(0, 25).map("p{}".format),
            "subject": st.integers(0, 8).map("s{}".format),
            "subject_kind": st.sampled_from(["user", "user", "thread"]),
            "source": st.sampled_from(["app", "reviewer", "import:x"]),
            "example_kind": st.sampled_from(["preference_pair", "preference_pair", "accepted_output"]),
            "chosen": st.integers(0, 9).map("text {}".format),
            "prompt": st.just("p"),
            "feedback_received_at": st.integers(0, 23).map(lambda hour: NOON.replace(hour=hour)),
        }
    ),
    max_size=40,
)
RULES = st.builds(
    ResolutionRules,
    per_user_cap=st.integers(1, 4),
    anonymous_cap_per_source=st.integers(1, 4),
    holdout_share=st.sampled_from([0.0, 0.3, 1.0]),
    accepted_share=st.sampled_from([0.0, 0.3, 1.0]),
    accepted_min_ratio=st.sampled_from([0.0, 0.1, 1.0]),
)
PROPERTY = settings(max_examples=60, deadline=None)


@pytest.mark.long
@PROPERTY
@given(ROWS, RULES, st.randoms())
def test_every_row_is_accounted_for_and_order_decides_nothing(
    changes: list[dict[str, Any]], rules: ResolutionRules, random: Any
) -> None:
    rows = [make_gold(**change) for change in changes]
    resolution = resolved(*rows, rules=rules)
    tables = [getattr(resolution, name) for name in SETS]
    assert sum(part.num_rows for part in tables) + sum(resolution.dropped.values()) == len(rows)
    pair_ids = [identity for part in tables for identity in part["pair_id"].to_pylist()]
    assert len(pair_ids) == len(set(pair_ids))
    trained, kept_apart = (
        set(getattr(resolution, one)["subject"].to_pylist()) | set(getattr(resolution, two)["subject"].to_pylist())
        for one, two in (("train", "accepted"), ("holdout", "regression"))
    )
    assert not trained & kept_apart
    random.shuffle(rows)
    again = resolved(*rows, rules=rules)
    assert all(getattr(again, name).equals(getattr(resolution, name)) for name in SETS)
    assert again.dropped == resolution.dropped


@pytest.mark.long
@PROPERTY
@given(ROWS, RULES)
def test_resolving_what_was_resolved_keeps_it(changes: list[dict[str, Any]], rules: ResolutionRules) -> None:
    first = resolved(*(make_gold(**change) for change in changes), rules=rules)
    kept = pa.concat_tables([getattr(first, name) for name in SETS]).select(CURATED_DPO_PAIRS.names)
    again = resolve(kept, replace(rules, accepted_share=1.0))
    assert again.dropped == {}
    assert all(ids(getattr(again, name)) == ids(getattr(first, name)) for name in SETS)


@pytest.mark.long
@PROPERTY
@given(ROWS, ROWS, RULES)
def test_more_data_moves_no_subject_to_the_other_side(
    earlier: list[dict[str, Any]], later: list[dict[str, Any]], rules: ResolutionRules
) -> None:
    rows = [make_gold(**change) for change in earlier]
    before = resolved(*rows, rules=rules)
    after = resolved(*rows, *(make_gold(**change) for change in later), rules=rules)
    for one, other in (("train", "holdout"), ("holdout", "train")):
        moved = set(getattr(before, one)["subject"].to_pylist()) & set(getattr(after, other)["subject"].to_pylist())
        assert not moved


@pytest.mark.long
@PROPERTY
@given(ROWS, RULES, st.integers(0, 3), st.integers(0, 3))
def test_a_higher_cap_only_adds_pairs(
    changes: list[dict[str, Any]], rules: ResolutionRules, more: int, more_anonymous: int
) -> None:
    rows = [make_gold(**change) for change in changes]
    raised = replace(
        rules,
        per_user_cap=rules.per_user_cap + more,
        anonymous_cap_per_source=rules.anonymous_cap_per_source + more_anonymous,
    )
    low, high = resolved(*rows, rules=rules), resolved(*rows, rules=raised)
    for name in ("train", "holdout", "regression"):
        assert ids(getattr(low, name)) <= ids(getattr(high, name))


def test_the_holdout_is_about_its_share() -> None:
    resolution = resolved(*(make_gold() for _ in range(3000)), rules=ResolutionRules())
    assert 0.08 < resolution.holdout.num_rows / 3000 < 0.12


@pytest.mark.parametrize(
    "limits", [{"per_user_cap": 0}, {"holdout_share": 1.1}, {"accepted_share": -0.1}, {"accepted_min_ratio": -1}]
)
def test_impossible_rules_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="need"):
        ResolutionRules(**limits)  # type: ignore[arg-type]
