"""A classification head on tiny models made on the spot: a causal one and an encoder."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.applications import fraud
from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.model_folder import hash_model
from flywheel_assets.models.trainers.fitting import fit_model, load_model
from flywheel_assets.models.trainers.text_classifier import TextClassifierRecipe
from flywheel_assets_tests.training.small_world import blank_base

WORDS = ("send money now", "win a prize", "meet at noon", "see the report", "lunch on friday")


def texts(rows: int = 300, seed: int = 0) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Rows whose text decides; the amount is noise."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(WORDS), rows)
    return pa.table({"text": [WORDS[each] for each in chosen], "amount": generator.random(rows)}), (chosen < 2) * 1


def recipe(base: Path, **settings: Any) -> TextClassifierRecipe:
    return TextClassifierRecipe(base_model=str(base), learning_rate=3e-3, device="cpu", max_tokens=32, **settings)


@cache
def encoder(folder: str) -> Path:
    """An untrained BERT with the tokenizer of the small world."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(blank_base())
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = Path(folder) / "encoder"
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    return base


@pytest.mark.parametrize("lora_rank", [None, 4])
@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_text_that_decides_is_learnt_and_stored(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, lora_rank: int | None
) -> None:
    base = blank_base() if kind == "causal" else encoder(str(tmp_path_factory.getbasetemp()))
    features, labels = texts()
    model = fit_model(recipe(base, lora_rank=lora_rank, epochs=4), features, labels, None, tmp_path)
    fresh, truth = texts(60, seed=1)
    scores = model.predict(fresh)
    assert scores[truth == 1].min() > scores[truth == 0].max()
    model.save(tmp_path / "model")
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert ("adapter_model.safetensors" if lora_rank else "model.safetensors") in files
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl"))}
    assert load_model(tmp_path / "model").predict(fresh) == pytest.approx(scores, abs=1e-4)


def test_the_same_rows_and_seed_give_the_same_weights(tmp_path: Path) -> None:
    features, labels = texts(64)
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        fitted = fit_model(recipe(blank_base(), epochs=1, seed=seed), features, labels, None, tmp_path)
        fitted.save(tmp_path / name)
    first, second, other = (hash_model(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second != other


def test_weights_decide_what_a_text_means() -> None:
    """The same text is positive as often as not: the heavier rows win."""
    features = pa.table({"text": ["send money now"] * 200})
    labels = np.array([0, 1] * 100)
    by_weight = {
        heavy: fit_model(
            recipe(blank_base(), epochs=4), features, labels, np.where(labels == heavy, 9.0, 1.0), Path()
        ).predict(features.slice(0, 1))[0]
        for heavy in (0, 1)
    }
    assert by_weight[0] < 0.25
    assert by_weight[1] > 0.75


def test_other_features_are_read_where_they_are_appended(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    vip = generator.random(300) < 0.5
    features = pa.table({"text": ["hello"] * 300, "vip": vip, "amount": pa.array([None] * 300, pa.float64())})
    model = fit_model(
        recipe(blank_base(), other_features="append", epochs=4), features, vip.astype(int), None, tmp_path
    )
    assert model.predict(features)[vip].min() > model.predict(features)[~vip].max()
    ignoring = fit_model(recipe(blank_base(), epochs=1), features, vip.astype(int), None, tmp_path)
    assert np.ptp(ignoring.predict(features)) == pytest.approx(0, abs=1e-6)


def test_missing_and_empty_texts_are_scored(tmp_path: Path) -> None:
    features, labels = texts(64)
    model = fit_model(recipe(blank_base(), epochs=1), features, labels, None, tmp_path)
    scores = model.predict(pa.table({"text": [None, "", "lunch " * 500]}))
    assert scores[0] == pytest.approx(scores[1])
    assert np.isfinite(scores).all()
    assert model.predict(features.slice(0, 0)).tolist() == []


def test_rows_without_the_text_are_refused(tmp_path: Path) -> None:
    features, labels = texts(64)
    with pytest.raises(TrainingError, match="text_field is 'text', which the rows lack; they have amount"):
        fit_model(recipe(blank_base()), features.select(["amount"]), labels, None, tmp_path)
    with pytest.raises(TrainingError, match="text_field 'amount' is a number"):
        fit_model(recipe(blank_base(), text_field="amount"), features, labels, None, tmp_path)


def test_an_application_without_the_text_feature_is_refused_when_it_is_configured() -> None:
    with pytest.raises(SettingsError, match=r"TextClassifierRecipe\.text_field is 'text'; need a feature"):
        replace(fraud.APPLICATION, recipe=TextClassifierRecipe(base_model="minilm"))


def test_the_base_model_is_located_by_the_stores_and_hashed_in_the_digest(tmp_path: Path) -> None:
    named = TextClassifierRecipe(base_model="tiny")
    located = named.locate(lambda name: str(blank_base()) if name == "tiny" else name)
    assert located.base_model == str(blank_base())
    assert str(blank_base()) not in str(located.describe())


def test_adapters_refuse_another_base(tmp_path: Path) -> None:
    base = Path(shutil.copytree(blank_base(), tmp_path / "base"))
    features, labels = texts(64)
    fit_model(recipe(base, lora_rank=2, epochs=1), features, labels, None, tmp_path).save(tmp_path / "model")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TrainingError, match="has other weights than when"):
        load_model(tmp_path / "model")
