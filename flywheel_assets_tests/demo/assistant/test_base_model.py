from dataclasses import fields, replace
from pathlib import Path

import pytest

from flywheel_assets.demo.assistant.base_model import BaseConfig, compute_cache_key, ensure_base_model
from flywheel_assets.demo.assistant.world import World

WORLD = World()
TINY = BaseConfig(hidden_size=16, layers=1, heads=2, steps=3, batch_size=4, tokenizer_samples=200, threads=1)


@pytest.mark.parametrize("name", [each.name for each in fields(BaseConfig)])
def test_every_knob_changes_the_cache_key(name: str) -> None:
    config = BaseConfig()
    assert compute_cache_key(WORLD, replace(config, **{name: getattr(config, name) * 2 + 1})) != compute_cache_key(
        WORLD, config
    )


def test_the_world_changes_the_cache_key() -> None:
    read = replace(WORLD.internal[0], right='{variable} = ledger.rows("{name}", {number})')
    changed = replace(WORLD, internal=(read, *WORLD.internal[1:]))
    assert compute_cache_key(changed, TINY) != compute_cache_key(WORLD, TINY)
    assert compute_cache_key(World(), BaseConfig()) == compute_cache_key(WORLD, BaseConfig())


def test_a_model_is_pretrained_once_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    import torch

    before = torch.random.get_rng_state()
    steps: list[tuple[int, int]] = []
    first = ensure_base_model(WORLD, TINY, tmp_path, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert not first.was_cached
    assert (first.path / "model.safetensors").exists()
    assert not list(first.path.glob("*.bin"))
    assert torch.equal(torch.random.get_rng_state(), before)

    again = ensure_base_model(WORLD, TINY, tmp_path, on_step=lambda *_: pytest.fail("pretrained again"))
    assert again.was_cached
    assert (again.path, again.parameters, again.loss) == (first.path, first.parameters, first.loss)
    assert [entry.name for entry in tmp_path.iterdir()] == [first.path.name]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    one, other = (ensure_base_model(WORLD, TINY, tmp_path / name).path for name in ("one", "other"))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()


def test_an_interrupted_pretraining_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_base_model(WORLD, TINY, tmp_path, on_step=interrupt)
    assert list(tmp_path.iterdir()) == []
