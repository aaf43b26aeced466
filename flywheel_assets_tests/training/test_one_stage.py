"""The one stage's loss against a formula written by hand, and what it does to a row without a rejected text."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.models.generation import load_base, load_model, silence_libraries
from flywheel_assets.training import _stages as stages
from flywheel_assets.training._one_stage import (
    UnpairedTerm,
    build_one_stage_rows,
    build_unpaired_term,
    collate,
    compute_preference_losses,
    compute_unpaired_losses,
    make_one_stage_trainer_class,
)
from flywheel_assets.training.examples import Example
from flywheel_assets_tests.training.small_world import RECIPE, blank_base

PAIRS = [Example(f"pair-{n}", [10 + n, 11], [20 + n, 21, 2][n % 2 :], [30 + n, 31, 32, 2]) for n in range(5)]
OTHERS = [Example(f"other-{n}", [50 + n], [60 + n, 61, 62, 63, 2][: n + 2], None) for n in range(3)]
MIXED = [PAIRS[0], OTHERS[0], PAIRS[1], PAIRS[2], OTHERS[1], OTHERS[2], PAIRS[3], PAIRS[4]]
OBJECTIONS = [Example(f"objection-{n}", [70 + n, 12], [], [80 + n, 81, 2][n % 2 :], False) for n in range(3)]
WINNERS = [Example(f"winner-{n}", [90 + n], [95 + n, 96, 97, 2], [92, 93, 2], is_written=False) for n in range(2)]
JUDGED = [PAIRS[0], OBJECTIONS[0], OTHERS[0], WINNERS[0], OBJECTIONS[1], WINNERS[1], OBJECTIONS[2], OTHERS[1]]
TINY = replace(RECIPE, stages="one_stage", preference_weight=0.7)


def make_trainer(
    examples: Sequence[Example],
    folder: Path,
    *,
    loss: str = "apo_zero",
    micro: int = 8,
    unpaired: UnpairedTerm | None = None,
) -> Any:
    """A trainer whose adapter is not the base any more, so that no reward is zero."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig

    base = load_base(str(blank_base()), "cpu")
    recipe = replace(TINY, batch_size=micro, accumulation_steps=8 // micro)
    with silence_libraries():
        trainer = make_one_stage_trainer_class(loss, recipe.preference_weight, unpaired)(
            model=base,
            args=DPOConfig(
                **stages._build_arguments(recipe, folder, 1.0, 1e-3),
                beta=recipe.beta,
                precompute_ref_log_probs=True,
                remove_unused_columns=False,
            ),
            data_collator=partial(collate, pad_token_id=0),
            train_dataset=Dataset.from_dict(build_one_stage_rows(base, examples, 4, unpaired)),
            processing_class=stages.load_tokenizer(str(blank_base())),
            peft_config=stages.build_lora_config(recipe),
        )
    torch.manual_seed(3)
    for name, weights in trainer.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weights, std=0.05)
    return trainer


def compute_gradient(trainer: Any, micro: int = 8) -> Any:
    """The gradient of one optimiser step, as the trainer itself collects its batches and scales their losses."""
    import torch

    rows = [trainer.train_dataset[place] for place in range(len(trainer.train_dataset))]
    cuts = range(0, len(rows) + micro, micro)
    batches = iter([trainer.data_collator(rows[a:b]) for a, b in pairwise(cuts) if rows[a:b]])
    samples, counted = trainer.get_batch_samples(batches, len(cuts) - 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = len(samples)
    trainer.model.zero_grad()
    total = sum(trainer.training_step(trainer.model, batch, counted) for batch in samples)
    return total, collect(trainer.model)


def collect(model: Any) -> Any:
    import torch

    return torch.cat([each.grad.flatten() for each in model.parameters() if each.requires_grad])


def score_by_hand(model: Any, prompt: list[int], completion: list[int]) -> Any:
    """A plain model on one row at a time, without padding, TRL or a fused output layer."""
    import torch

    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, :-1]
    targets = torch.tensor((prompt + completion)[1:])
    values = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
    return values[len(prompt) - 1 :].sum()


def score_change(model: Any, prompt: list[int], completion: list[int]) -> Any:
    """Log p less that of the base."""
    import torch

    with model.disable_adapter(), torch.no_grad():
        before = score_by_hand(model, prompt, completion)
    return score_by_hand(model, prompt, completion) - before


def compute_by_hand(
    model: Any, examples: Sequence[Example], loss: str, weight: float, unpaired: UnpairedTerm | None = None
) -> Any:
    """The documented formula, by autograd."""
    import torch

    def squash(value: Any) -> Any:
        return 1 / (1 + torch.exp(-value))

    beta = TINY.beta
    tokens = sum(len(each.chosen or each.rejected or []) for each in examples)
    point = measure_point(model, examples) if unpaired is not None and unpaired.loss == "kto" else 0.0
    total = torch.zeros(())
    for each in examples:
        up = beta * score_change(model, each.prompt, each.chosen) if each.chosen else None
        down = beta * score_change(model, each.prompt, each.rejected) if each.rejected else None
        found: Any = 0.0
        if each.is_written:
            total = total - score_by_hand(model, each.prompt, each.chosen) / tokens
        if up is not None and down is not None:
            found = weight * (-torch.log(squash(up - down)) if loss == "sigmoid" else 1 - squash(up) + squash(down))
        elif unpaired is not None and up is not None:
            found = unpaired.desirable * (1 - squash(up - point))
        elif unpaired is not None:
            found = unpaired.undesirable * (1 - squash(point - down))
        total = total + found / len(examples)
    model.zero_grad()
    total.backward()
    return total.detach(), collect(model)


def mismatch(examples: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
    """Each row's prompt with the next row's text."""
    texts = [each.chosen or each.rejected or [] for each in examples]
    return [(each.prompt, text) for each, text in zip(examples, [*texts[1:], texts[0]], strict=True)]


def measure_point(model: Any, examples: Sequence[Example]) -> float:
    """Beta times the mean change of mismatched texts, 0 at least."""
    changes = [float(score_change(model, prompt, text).detach()) for prompt, text in mismatch(examples)]
    return max(0.0, TINY.beta * sum(changes) / len(changes))


@pytest.mark.parametrize("loss", ["apo_zero", "sigmoid"])
@pytest.mark.parametrize("micro", [8, 2, 1])
def test_the_gradient_is_that_of_the_formula_however_a_step_is_parted(loss: str, micro: int, tmp_path: Path) -> None:
    """Also where a micro-batch holds no pair, or nothing but pairs, and tokens are spread unevenly."""
    import torch

    trainer = make_trainer(MIXED, tmp_path, loss=loss, micro=micro)
    total, gradient = compute_gradient(trainer, micro)
    expected, by_hand = compute_by_hand(trainer.model, MIXED, loss, TINY.preference_weight)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert by_hand.norm() > 0.01
    torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unpaired", ["kto", "apo_zero"])
@pytest.mark.parametrize("micro", [8, 1])
def test_rows_judged_by_themselves_and_winners_that_are_not_written(unpaired: str, micro: int, tmp_path: Path) -> None:
    """The reference point is that of the whole step, also where a micro-batch holds no text that is written."""
    import torch

    term = UnpairedTerm(unpaired, undesirable=1.3, desirable=0.4)
    trainer = make_trainer(JUDGED, tmp_path, micro=micro, unpaired=term)
    # As after many steps: the adapter makes texts likelier than the base does, mismatched ones, too.
    lift(trainer.model, JUDGED)
    assert measure_point(trainer.model, JUDGED) > 0.05
    total, gradient = compute_gradient(trainer, micro)
    expected, by_hand = compute_by_hand(trainer.model, JUDGED, "apo_zero", TINY.preference_weight, term)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert by_hand.norm() > 0.01
    torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)


def lift(model: Any, examples: Sequence[Example]) -> None:
    """A few steps by which mismatched texts become likelier."""
    import torch

    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=5e-3)
    for _ in range(3):
        loss = -sum(score_by_hand(model, prompt, text) for prompt, text in mismatch(examples))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[attr-defined]
        optimizer.step()


def test_where_no_text_is_written_only_preferences_have_a_gradient(tmp_path: Path) -> None:
    import torch

    trainer = make_trainer(WINNERS, tmp_path)
    _, gradient = compute_gradient(trainer)
    _, by_hand = compute_by_hand(trainer.model, WINNERS, "apo_zero", TINY.preference_weight)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)
    _, nothing = compute_gradient(make_trainer([replace(each, rejected=None) for each in WINNERS], tmp_path))
    assert nothing.norm() == 0


def test_objections_weigh_what_the_recipe_says_and_desirable_rows_what_balances_them() -> None:
    recipe = replace(TINY, objection_weight=2.0, desirable_ratio=1.25)
    assert build_unpaired_term(MIXED, recipe) is None
    assert build_unpaired_term(JUDGED, TINY) is None
    assert build_unpaired_term(JUDGED, recipe) == UnpairedTerm("kto", undesirable=2.0, desirable=2.0 * 1.25 * 3 / 2)
    alone = build_unpaired_term(OBJECTIONS, replace(recipe, objection_loss="apo_zero"))
    assert alone is not None
    assert (alone.loss, alone.undesirable) == ("apo_zero", 2.0)


def test_a_reference_point_changes_what_counts_as_a_gain() -> None:
    import torch

    rewards = torch.tensor([1.0])
    liked, disliked = compute_unpaired_losses(rewards, rewards, 1.0)
    assert (float(liked), float(disliked)) == (0.5, 0.5)
    liked, disliked = compute_unpaired_losses(rewards, rewards, 0.0)
    assert float(liked) < 0.5 < float(disliked)


def test_the_order_of_rows_does_not_change_the_gradient(tmp_path: Path) -> None:
    import torch

    _, forwards = compute_gradient(make_trainer(MIXED, tmp_path, micro=2), 2)
    _, backwards = compute_gradient(make_trainer(MIXED[::-1], tmp_path, micro=2), 2)
    torch.testing.assert_close(forwards, backwards, rtol=1e-4, atol=1e-6)


def test_rows_without_a_rejected_text_get_exactly_the_gradient_of_sft(tmp_path: Path) -> None:
    """Pairs weigh nothing here, so the reference is SFT's own loss in transformers."""
    import torch

    trainer = make_trainer(OTHERS, tmp_path)
    _, gradient = compute_gradient(trainer)
    model = trainer.model
    columns = stages.build_sft_rows(OTHERS)
    width = max(len(ids) for ids in columns["input_ids"])
    ids = torch.tensor([each + [0] * (width - len(each)) for each in columns["input_ids"]])
    labels = torch.tensor([each + [-100] * (width - len(each)) for each in columns["labels"]])
    model.zero_grad()
    model(input_ids=ids, labels=labels, attention_mask=(ids != 0).long()).loss.backward()
    torch.testing.assert_close(gradient, collect(model), rtol=1e-4, atol=1e-7)


def test_a_pair_weighs_the_same_whichever_rows_share_its_step(tmp_path: Path) -> None:
    """The preference term alone: a step's term is the mean over all of its rows, so that its parts add up."""
    import torch

    def preference(examples: Sequence[Example]) -> Any:
        trainer = make_trainer(examples, tmp_path)
        _, with_pairs = compute_gradient(trainer)
        _, written_only = compute_by_hand(trainer.model, [replace(each, rejected=None) for each in examples], "", 0.0)
        return (with_pairs - written_only) * len(examples)

    whole = preference([PAIRS[0], PAIRS[1], *OTHERS])
    parts = preference([PAIRS[0], OTHERS[0]]) + preference([PAIRS[1], OTHERS[1], OTHERS[2]])
    assert whole.norm() > 0.01
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_a_collated_batch_holds_no_prompt_twice_that_has_no_rejected_text() -> None:
    model, _ = load_model(str(blank_base()), None, device="cpu")
    examples = [Example("a", [5, 6], [7, 2], None), Example("b", [5], [9, 2], [4, 8, 2])]
    columns = build_one_stage_rows(model, examples, 2)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = collate(rows, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [5, 9, 2, 0], [5, 4, 8, 2]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1]]
    assert batch["has_rejected"].tolist() == [False, True]
    assert batch["ref_chosen_logps"][0] == 0
    assert batch["ref_chosen_logps"][1] < 0


def test_the_preference_losses_are_trls_own() -> None:
    """At reward 0 APO-zero is 1 and DPO is log 2; both fall as the margin grows."""
    import torch

    zero, one = torch.zeros(1), torch.ones(1)
    assert compute_preference_losses("apo_zero", zero, zero).item() == pytest.approx(1.0)
    assert compute_preference_losses("sigmoid", zero, zero).item() == pytest.approx(0.6931472)
    for loss in ("apo_zero", "sigmoid"):
        assert compute_preference_losses(loss, one, -one) < compute_preference_losses(loss, zero, zero)
