"""From exported rows to token ids."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.rendering import Rendering, RowEncoder, load_tokenizer
from flywheel_assets.training.examples import encode, keep_back, split
from flywheel_assets.training.recipes import AdapterRecipe, WrittenComparisons
from flywheel_assets_tests.training.small_world import blank_base, exported

RECIPE = AdapterRecipe()


@pytest.fixture(scope="module")
def encoder() -> RowEncoder:
    return RowEncoder(load_tokenizer(str(blank_base())), Rendering())


def pairs_of(subjects: int, each: int = 3) -> list[Any]:
    return [
        exported(subject * each + number, f"# p{subject * each + number}\n", "right", "wrong", f"user-{subject}")
        for subject in range(subjects)
        for number in range(each)
    ]


def test_every_completion_ends_with_the_end_token(encoder: RowEncoder) -> None:
    tokenizer = encoder.tokenizer
    (example,) = encode(encoder, [exported(1, "# wait 3\n", "time.sleep(3)", "sleep(3)", "u")])
    assert example.chosen[-1] == tokenizer.eos_token_id
    assert example.rejected is not None
    assert example.rejected[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(example.chosen[:-1]) == "time.sleep(3)"
    assert tokenizer.eos_token_id not in example.chosen[:-1]


def test_prompt_and_completion_do_not_merge_at_their_boundary(encoder: RowEncoder) -> None:
    """A prompt that ends in a space: encoded together, BPE joins the space with the completion's first characters."""
    (example,) = encode(encoder, [exported(1, "orders ", "= sorted(orders)", None, "u")])
    assert example.prompt == encoder.encode_prompt("orders ")
    assert example.prompt + example.chosen[:-1] != encoder.tokenizer("orders = sorted(orders)")["input_ids"]


@pytest.mark.parametrize(
    ("row", "confirmed", "every", "none"),
    [
        ({"example_kind": "comparison", "admitted_as": "comparison"}, False, True, False),
        ({"example_kind": "comparison", "admitted_as": "confirmed_comparison"}, True, True, False),
        ({"example_kind": "preference_pair", "admitted_as": "recurring_small_edit"}, True, True, True),
    ],
)
def test_which_winners_are_written(
    encoder: RowEncoder, row: dict[str, str], confirmed: bool, every: bool, none: bool
) -> None:
    compared = exported(1, "# wait 3\n", "time.sleep(3)", "sleep(3)", "u", **row)
    by_rule = {"confirmed": confirmed, "all": every, "none": none}
    rules: tuple[WrittenComparisons, ...] = ("confirmed", "all", "none")
    assert {rule: encode(encoder, [compared], rule)[0].is_written for rule in rules} == by_rule


def test_an_objection_has_a_rejected_text_and_none_to_write(encoder: RowEncoder) -> None:
    row = exported(1, "# wait 3\n", "", "sleep(3)", "u", example_kind="objection")
    (example,) = encode(encoder, [row])
    (pair,) = encode(encoder, [exported(1, "# wait 3\n", "time.sleep(3)", "sleep(3)", "u")])
    assert (example.prompt, example.chosen, example.rejected) == (pair.prompt, [], pair.rejected)
    assert not example.is_written
    long = exported(2, "# wait 3\n", "", "sleep(3)" * 50, "u", example_kind="objection")
    with pytest.raises(TrainingError, match="too_many_tokens"):
        encode(RowEncoder(encoder.tokenizer, Rendering(max_length=64)), [long])


def test_nothing_is_cut_or_left_out(encoder: RowEncoder) -> None:
    """A row too long used to lose the end of its answer, or itself, and training went on."""
    row = exported(1, "# wait 3\n", "time.sleep(3)", "x = sleep(333333)", "u")
    (whole,) = encode(encoder, [row])
    assert whole.rejected is not None
    length = len(whole.prompt) + len(whole.rejected)
    assert encode(RowEncoder(encoder.tokenizer, Rendering(max_length=length)), [row]) == [whole]
    with pytest.raises(TrainingError, match="too_many_tokens"):
        encode(RowEncoder(encoder.tokenizer, Rendering(max_length=length - 1)), [row])


def test_an_empty_prompt_still_gives_the_model_a_token_to_start_from(encoder: RowEncoder) -> None:
    assert encoder.encode_prompt("") == [encoder.tokenizer.bos_token_id]


@given(first=st.integers(200, 400), more=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_who_is_kept_back_does_not_change_as_data_grows(first: int, more: int) -> None:
    small, large = pairs_of(first), pairs_of(first + more)
    names = {row.subject for row in small}
    assert keep_back(small, [], RECIPE) == keep_back(large, [], RECIPE) & names


def test_whole_subjects_are_kept_back() -> None:
    rows = pairs_of(200)
    subjects = keep_back(rows, [], RECIPE)
    parts = split(rows, subjects)
    assert len(parts.train) + len(parts.kept_back) == len(rows)
    assert not {row.subject for row in parts.train} & {row.subject for row in parts.kept_back}
    assert 0.03 < len(subjects) / 200 < 0.15


@pytest.mark.parametrize(
    ("subjects", "changes"),
    [
        (2, {}),  # too few pairs to compare anything
        (200, {"preference_epochs": 0.0}),  # no second stage to choose
        (200, {"selection_share": 0.0}),  # always the second stage
        (200, {"selection_min_rows": 10_000}),
    ],
)
def test_nobody_is_kept_back_for_nothing(subjects: int, changes: dict[str, Any]) -> None:
    assert keep_back(pairs_of(subjects), [], replace(RECIPE, **changes)) == frozenset()


def test_rows_are_not_kept_back_where_everybody_asks_the_same() -> None:
    """All prompts occur in training too: nothing could be compared, so everything is trained on."""
    rows = [exported(number, "# same\n", "right", "wrong", f"user-{number}") for number in range(600)]
    assert keep_back(rows, [], RECIPE) == frozenset()
    apart = [exported(number, f"# {number}\n", "right", "wrong", f"user-{number}") for number in range(600)]
    assert keep_back(apart, [], RECIPE)
    assert keep_back(apart, [replace_subject(row) for row in apart], RECIPE) == frozenset()


def replace_subject(row: Any) -> Any:
    return exported(0, row.prompt, row.chosen, None, "user-trained")
