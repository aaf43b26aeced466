"""Fine-tunes a language model with a classification head on one text feature.

The weighted cross-entropy of two classes, AdamW, linear warm-up and decay. transformers, peft and torch (extra
`train`) are imported inside the functions. Weights are stored as safetensors; a model that exists only as a pickle is
refused, and no code of a base model is run.

With `lora_rank` only adapters and the head are trained and stored, and the base must stay where it is; without it all
weights are. Pure numbers: `seed`, one CPU thread and the same rows give the same weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.base_model import examine_base_model, fingerprint_tokenizer
from flywheel_assets.models.boosting import check_training_rows
from flywheel_assets.models.generation import (
    choose_placement,
    hash_base_weights,
    require_train_extra,
    silence_libraries,
    switch_to_inference,
    use_cpu_threads,
)
from flywheel_assets.models.model_folder import KIND_FILE
from flywheel_assets.models.trainer_recipe import RecalibrationMethod, TrainerRecipe
from flywheel_assets.models.trainers.model import FeatureKind, check_scores, derive_kinds, select_features
from flywheel_assets.ranges import Count, Name, NotNegative, Positive, ShareBelowOne

Floats = npt.NDArray[np.float64]

TEXT_CLASSIFIER = "text_classifier"
_LIBRARIES = ("torch", "transformers")
_FULL_RATE, _LORA_RATE = 5e-5, 5e-4


@dataclass(frozen=True, kw_only=True)
class TextClassifierRecipe(TrainerRecipe):
    """Fine-tunes a sequence-classification head on a base model."""

    kind: Literal["text_classifier"] = "text_classifier"
    base_model: Name
    """Folder under the models folder, path, or hub id; an encoder such as MiniLM, or a causal model."""
    text_field: Name = "text"
    """The TEXT feature that is read."""
    other_features: Literal["ignore", "append"] = "ignore"
    """`append` writes the others after the text, as lines `name: value`."""
    max_tokens: Count = 128
    """A longer text is cut at its end."""
    epochs: Count = 3
    """Passes over the rows."""
    batch_size: Count = 16
    """Rows of one step."""
    learning_rate: Positive | None = None
    """Peak rate; None: 5e-5, with LoRA 5e-4."""
    warmup_share: ShareBelowOne = 0.1
    """Share of the steps in which the rate rises; it falls linearly to 0 after them."""
    weight_decay: NotNegative = 0.01
    """Of AdamW."""
    lora_rank: Count | None = None
    """Rank of the adapters on all linear modules; None: all weights are trained."""
    lora_alpha: Count = 32
    """Scale of an adapter's output is alpha / rank."""
    seed: int = 0
    """Of the head's first weights, the order of the rows, and dropout."""
    cpu_threads: Count = 1
    """In the recipe because sums in another order give another model."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` takes CUDA where there is one, in bf16 where it has that."""
    recalibration: RecalibrationMethod = "none"
    """Last step, fitted on out-of-sample scores."""

    def locate(self, find_base_model: Callable[[str], str]) -> "TextClassifierRecipe":
        """Return the recipe with the base model's path on this machine."""
        return replace(self, base_model=find_base_model(self.base_model))

    def describe(self) -> dict[str, Any]:
        """Return the settings with the hashes of the base model instead of its path."""
        base = {"weights": hash_base_weights(self.base_model), "tokenizer": fingerprint_tokenizer(self.base_model)}
        return super().describe() | {"base_model": base}

    def check_features(self, features: Mapping[str, str]) -> None:
        """Raise SettingsError where `text_field` is no TEXT feature of the application."""
        if features.get(self.text_field) != "text":
            texts = ", ".join(repr(name) for name, kind in features.items() if kind == "text")
            raise self.build_range_error(
                "text_field", self.text_field, f"a feature that the contract declares as TEXT, here {texts or 'none'}"
            )

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or (_FULL_RATE if self.lora_rank is None else _LORA_RATE)


class _TextKind(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the content of `model.json`."""

    kind: Literal["text_classifier"] = "text_classifier"
    features: dict[str, FeatureKind]
    """The text first, then the appended ones."""
    text_field: str
    max_tokens: int
    batch_size: int
    cpu_threads: int
    device: Literal["auto", "cpu"]
    base_model: str | None
    """Of adapters; None where the folder holds all weights."""
    base_weights_sha256: str | None


@dataclass(frozen=True)
class TextClassifier:
    """A language model with a classification head, its tokenizer, and how rows become texts."""

    model: Any
    tokenizer: Any
    kind: _TextKind

    def predict(self, features: pa.Table) -> Floats:
        """Compute the probability of the positive class, one per row, in batches of similar length.

        Raises:
            TrainingError: the rows lack a feature that the model reads, or one is of another kind.
        """
        import torch

        encoded = _encode(self.tokenizer, self.kind, features)
        scores = np.zeros(len(encoded))
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        use_cpu_threads(self.kind.cpu_threads)
        dtype = choose_placement(self.kind.device)[1]
        with switch_to_inference(self.model), torch.inference_mode(), _autocast(self.model, dtype):
            for start in range(0, len(order), self.kind.batch_size):
                rows = order[start : start + self.kind.batch_size]
                logits = _compute_logits(self.model, self.tokenizer, [encoded[row] for row in rows])
                scores[rows] = logits.double().softmax(-1)[:, 1].cpu().numpy()
        return check_scores(scores, len(encoded), "the text classifier")

    def compute_gains(self) -> Mapping[str, float]:
        """Return nothing: no share of a feature can be said."""
        return {}

    def save(self, folder: Path) -> None:
        """Write weights as safetensors, the tokenizer, and `model.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with silence_libraries():
            self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        # A page for people that names the path of the base; no part of a model.
        (folder / "README.md").unlink(missing_ok=True)
        (folder / KIND_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self.kind)))


def fit_text_classifier(
    recipe: TextClassifierRecipe, features: pa.Table, labels: npt.ArrayLike, weights: npt.ArrayLike | None
) -> TextClassifier:
    """Fine-tune the recipe's base model on weighted rows; a missing text is an empty one.

    Weights are divided by their mean over all rows, so that a batch of light rows makes a small step.

    Args:
        recipe: names base model and text feature.
        features: one column per feature.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: how many rows each one stands for, above 0.

    Raises:
        TrainingError: the rows cannot be trained on, or lack the text; the weights became no numbers.
        SettingsError: the extra `train` is not installed, or the base model is none.
    """
    require_train_extra("a text classifier", only=(*_LIBRARIES, *(("peft",) if recipe.lora_rank else ())))
    import torch

    targets = np.asarray(labels, dtype=np.float64)
    row_weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    check_training_rows(features.num_rows, targets, row_weights)
    kind = _describe_inputs(recipe, features)
    use_cpu_threads(recipe.cpu_threads)
    device, dtype = choose_placement(recipe.device)
    torch.manual_seed(recipe.seed)
    model, tokenizer = _load_base(recipe.base_model)
    if recipe.lora_rank is not None:
        model = _add_adapters(model, recipe)
    model.to(device).train()
    encoded = _encode(tokenizer, kind, features)
    batches = list(_draw_batches(len(encoded), recipe))
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad],
        lr=recipe.peak_rate,
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _build_schedule(len(batches), recipe.warmup_share))
    classes = torch.tensor(targets, dtype=torch.long, device=device)
    relative = torch.tensor(row_weights / row_weights.mean(), dtype=torch.float32, device=device)
    for rows in batches:
        with _autocast(model, dtype):
            logits = _compute_logits(model, tokenizer, [encoded[row] for row in rows])
        losses = torch.nn.functional.cross_entropy(logits.float(), classes[rows], reduction="none")
        loss = (losses * relative[rows]).mean()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {float(loss)}; lower TextClassifierRecipe.learning_rate, here {recipe.peak_rate:g}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return TextClassifier(model.eval(), tokenizer, kind)


def load_text_classifier(folder: Path) -> TextClassifier:
    """Load a model that `TextClassifier.save` wrote.

    Raises:
        TrainingError: a file is missing or unreadable, or the base of the adapters is gone or another one.
        SettingsError: the extra `train` is not installed.
    """
    try:
        kind = msgspec.json.decode((folder / KIND_FILE).read_bytes(), type=_TextKind)
    except msgspec.DecodeError as unreadable:
        raise TrainingError(f"{folder / KIND_FILE} is unreadable: {unreadable}; train the version again") from None
    require_train_extra("a text classifier", only=(*_LIBRARIES, *(("peft",) if kind.base_model else ())))
    if kind.base_model is None:
        model, tokenizer = _load(str(folder))
    else:
        if hash_base_weights(kind.base_model) != kind.base_weights_sha256:
            raise TrainingError(
                f"the base model {kind.base_model} has other weights than when {folder} was trained; bring the earlier "
                "ones back, or train the version again"
            )
        from peft import PeftModel

        model, _ = _load(kind.base_model)
        with silence_libraries():
            model = PeftModel.from_pretrained(model, str(folder))
        tokenizer = _load_tokenizer(str(folder))
    return TextClassifier(model.to(choose_placement(kind.device)[0]).eval(), tokenizer, kind)


def _describe_inputs(recipe: TextClassifierRecipe, features: pa.Table) -> _TextKind:
    if recipe.text_field not in features.column_names:
        raise TrainingError(
            f"TextClassifierRecipe.text_field is {recipe.text_field!r}, which the rows lack; they have "
            f"{', '.join(features.column_names) or 'none'}"
        )
    kinds = derive_kinds(features)
    if kinds[recipe.text_field] != "text":
        raise TrainingError(
            f"TextClassifierRecipe.text_field {recipe.text_field!r} is a {kinds[recipe.text_field]}; name a text"
        )
    others = {name: each for name, each in kinds.items() if name != recipe.text_field}
    uses_adapters = recipe.lora_rank is not None
    return _TextKind(
        features={recipe.text_field: "text", **(others if recipe.other_features == "append" else {})},
        text_field=recipe.text_field,
        max_tokens=recipe.max_tokens,
        batch_size=recipe.batch_size,
        cpu_threads=recipe.cpu_threads,
        device=recipe.device,
        base_model=recipe.base_model if uses_adapters else None,
        base_weights_sha256=hash_base_weights(recipe.base_model) if uses_adapters else None,
    )


def _load_base(base_model: str) -> tuple[Any, Any]:
    examine_base_model(base_model)
    return _load(base_model)


def _load(path: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = _load_tokenizer(path)
    try:
        # In float32 also where the base is stored in bf16: AdamW's small steps would round to nothing.
        model = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=2, use_safetensors=True, dtype="float32", ignore_mismatched_sizes=True
        )
    except (OSError, ValueError) as refused:
        raise SettingsError(
            f"base model {path} has no sequence classification in transformers ({type(refused).__name__}); name an "
            "encoder or a causal model whose weights are safetensors"
        ) from None
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _load_tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # A causal model is read at its last token, which transformers finds from the right.
    tokenizer.padding_side, tokenizer.truncation_side = "right", "right"
    return tokenizer


def _add_adapters(model: Any, recipe: TextClassifierRecipe) -> Any:
    from peft import LoraConfig, get_peft_model

    with silence_libraries():
        return get_peft_model(
            model,
            LoraConfig(
                task_type="SEQ_CLS",
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_alpha,
                lora_dropout=0.0,
                target_modules="all-linear",
            ),
        )


def _autocast(model: Any, dtype: Any) -> Any:
    import torch

    return torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not torch.float32)


def _compute_logits(model: Any, tokenizer: Any, encoded: Sequence[list[int]]) -> Any:
    padded = tokenizer.pad({"input_ids": encoded}, return_tensors="pt")
    return model(
        input_ids=padded["input_ids"].to(model.device), attention_mask=padded["attention_mask"].to(model.device)
    ).logits


def _encode(tokenizer: Any, kind: _TextKind, features: pa.Table) -> list[list[int]]:
    rows = select_features(features, kind.features)
    texts = [text or "" for text in rows[kind.text_field].to_pylist()]
    for name, each in kind.features.items():
        if name != kind.text_field:
            texts = [
                text if value is None else f"{text}\n{name}: {_write_value(value, each)}"
                for text, value in zip(texts, rows[name].to_pylist(), strict=True)
            ]
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(texts, truncation=True, max_length=kind.max_tokens)["input_ids"]
    # A tokenizer without marks of its own encodes an empty text as nothing, which no model can read.
    return [ids or [tokenizer.pad_token_id] for ids in encoded]


def _write_value(value: Any, kind: FeatureKind) -> str:
    if kind == "number":
        return f"{value:g}"
    return str(value).lower() if kind == "boolean" else str(value)


def _draw_batches(rows: int, recipe: TextClassifierRecipe) -> Iterator[npt.NDArray[np.int64]]:
    generator = np.random.default_rng(recipe.seed)
    for _ in range(recipe.epochs):
        order = generator.permutation(rows)
        yield from (order[start : start + recipe.batch_size] for start in range(0, rows, recipe.batch_size))


def _build_schedule(steps: int, warmup_share: float) -> Callable[[int], float]:
    warmup = int(steps * warmup_share)

    def scale(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))

    return scale
