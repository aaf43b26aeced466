"""Generating and scoring in batches must give what one row at a time gives, for every adapter on one base."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_assets.models import generation
from flywheel_assets.models.generation import (
    compute_token_log_probabilities,
    generate,
    list_end_tokens,
    load_adapters,
    load_model,
)
from flywheel_assets.models.rendering import Rendering, RowEncoder, encode_rows
from flywheel_assets.training import _stages as stages
from flywheel_assets.training.examples import Example
from flywheel_assets_tests.training.small_world import RECIPE, exported, trained_base

PROMPTS = ["# wait 7\n", "# print orders 12\n", "", "# read 5 invoices\n", "# sort tickets\n", "# send loans to 61\n"]


def encode(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    encoder = RowEncoder(tokenizer, Rendering())
    return [encoder.encode_prompt(prompt) for prompt in prompts]


def log_p(model: Any, tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], **batches: int) -> Any:
    rows = [exported(n, *each, None, "u") for n, each in enumerate(zip(prompts, texts, strict=True))]
    encoded = encode_rows(RowEncoder(tokenizer, Rendering()), rows)
    return compute_token_log_probabilities(model, [(row.prompt, row.chosen) for row in encoded], **batches)


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    return load_model(str(trained_base()), None, device="cpu")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, base: tuple[Any, Any]) -> dict[str, str]:
    """Two adapters that learnt different answers to the same prompt."""
    tokenizer = base[1]
    folders = {}
    for name, answer in (("one", "uno(1)"), ("two", "due(2)")):
        folder = tmp_path_factory.mktemp(name)
        completion = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        example = Example(name, tokenizer("# wait 7\n")["input_ids"], completion, None)
        stages.train_sft(str(trained_base()), [example] * 64, replace(RECIPE, sft_epochs=15.0), folder)
        folders[name] = str(stages.locate_result(folder))
    return folders


def test_a_batch_gives_what_single_rows_give(base: tuple[Any, Any]) -> None:
    together = generate(*base, encode(base[1], PROMPTS), 24, batch_size=4)
    assert together == [generate(*base, [prompt], 24)[0] for prompt in encode(base[1], PROMPTS)]
    assert together[0].text == "time.sleep(7)"
    assert together[1].text == "print(orders, 12)"
    assert together[0].ended


def test_a_generation_that_was_cut_off_says_so(base: tuple[Any, Any]) -> None:
    (cut,) = generate(*base, encode(base[1], ["# print orders 12\n"]), 3)
    assert not cut.ended
    assert "print(orders, 12)".startswith(cut.text)


def test_sampled_texts_follow_the_models_whole_distribution_and_their_seed(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model's own configuration would cut the distribution at its most likely token."""
    import torch

    monkeypatch.setattr(base[0].generation_config, "top_k", 1)
    monkeypatch.setattr(base[0].generation_config, "top_p", 0.01)
    prompts = encode(base[1], ["# read 5 invoices\n"]) * 64
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = generate(*base, prompts, 24, temperature=1.0, seed=1)
    assert torch.rand(1) == expected, "the process keeps its own random numbers"
    assert generate(*base, prompts, 24, temperature=1.0, seed=1) == first
    assert generate(*base, prompts, 24, temperature=1.0, seed=2) != first
    # A tenth of the base's pretraining had the right library.
    right = sum("lake.read" in each.text for each in first) / 64
    assert 0.01 < right < 0.3
    (greedy,) = generate(*base, prompts[:1], 24)
    cold = generate(*base, prompts[:8], 24, temperature=0.01, seed=1)
    assert {each.text for each in cold} == {greedy.text}


def test_log_probabilities_do_not_depend_on_the_batch(base: tuple[Any, Any]) -> None:
    texts = ["time.sleep(7)", "nonsense", "", "x" * 30, "tickets = sorted(tickets)", "bus.send(61, loans)"]
    together = log_p(*base, PROMPTS, texts, batch_size=4)
    alone = [log_p(*base, [prompt], [text])[0] for prompt, text in zip(PROMPTS, texts, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert together[0] > together[1]
    assert (together < 0).all()


def test_scoring_in_small_pieces_gives_what_scoring_at_once_gives(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring held the logits of 64 rows at once, in two number formats: 50 GB for a vocabulary of 128,256."""
    model, tokenizer = base
    texts = ["time.sleep(7)", "nonsense", "", "x" * 30, "tickets = sorted(tickets)", "bus.send(61, loans)"]
    at_once = log_p(model, tokenizer, PROMPTS, texts)
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(generation, "_FP32_CHUNK_BYTES", 4 * 3 * len(tokenizer))
    handle = model.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.logits.shape)))
    try:
        np.testing.assert_allclose(
            log_p(model, tokenizer, PROMPTS, texts, tokens_per_batch=40), at_once, rtol=1e-5, atol=1e-5
        )
    finally:
        handle.remove()
    assert len(shapes) > 2
    assert all(rows == 1 or rows * positions <= 40 for rows, positions, _ in shapes)


def test_no_logits_are_made_where_every_row_still_reads_its_prompt(base: tuple[Any, Any]) -> None:
    model, _ = base
    rows = [([5] * 60, [6, 7, 2]), ([5] * 50, [6, 2])]
    shapes: list[tuple[int, ...]] = []
    handle = model.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.logits.shape)))
    try:
        compute_token_log_probabilities(model, rows)
    finally:
        handle.remove()
    assert [shape[:2] for shape in shapes] == [(2, 63 - 49)]


def test_log_probabilities_include_the_end_token(base: tuple[Any, Any]) -> None:
    """The model ends after the whole call and not in its middle, so the half call is far less likely as an answer."""
    whole, half = log_p(*base, ["# wait 7\n"] * 2, ["time.sleep(7)", "time.sleep("])
    assert whole > half + 3


def test_one_base_with_several_adapters_computes_as_each_alone(adapters: dict[str, str], base: tuple[Any, Any]) -> None:
    switchable = load_adapters(str(trained_base()), adapters, device="cpu")
    expected = {None: "time.sleep(7)", "one": "uno(1)", "two": "due(2)"}
    for name in ("two", None, "one", None, "two"):
        with switchable.activate(name) as model:
            assert generate(model, switchable.tokenizer, encode(base[1], ["# wait 7\n"]), 24)[0].text == expected[name]
            together = log_p(model, switchable.tokenizer, PROMPTS, ["x"] * len(PROMPTS))
        alone, tokenizer = load_model(str(trained_base()), adapters[name] if name else None, device="cpu")
        np.testing.assert_array_equal(together, log_p(alone, tokenizer, PROMPTS, ["x"] * len(PROMPTS)))


def test_a_model_in_training_returns_to_training(base: tuple[Any, Any]) -> None:
    model, tokenizer = base
    model.train()
    try:
        generate(model, tokenizer, encode(tokenizer, PROMPTS[:1]), 2)
        log_p(model, tokenizer, PROMPTS[:1], ["x"])
        assert model.training
    finally:
        model.eval()


def test_every_end_token_of_a_chat_model_ends_its_text(base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = base
    comma = tokenizer(",")["input_ids"][0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, comma])
    assert list_end_tokens(model, tokenizer) == {tokenizer.eos_token_id, comma}
    (generation,) = generate(model, tokenizer, encode(tokenizer, ["# print orders 12\n"]), 24)
    assert generation.text == "print(orders"
    assert generation.ended


def test_a_pickled_base_is_not_loaded(tmp_path: Path) -> None:
    import torch

    for file in trained_base().iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_model(str(tmp_path), None)
