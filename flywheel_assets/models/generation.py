"""Loads and identifies models, generates and scores; prompts and completions are token ids of `models.rendering`."""

import hashlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel_assets.errors import ManifestMismatchError, SettingsError, TrainingError
from flywheel_assets.extras import require_extra
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.models.model_folder import ADAPTER_WEIGHTS
from flywheel_assets.models.rendering import load_tokenizer

if TYPE_CHECKING:
    import torch

MOST_SCORED_TOKENS = 16_384
"""Of one batch of scoring: a model of eight billion parameters holds some 2 GB of activations for them."""
_MOST_LOGIT_BYTES = 2**29
_FP32_CHUNK_BYTES = 2**26


def require_train_extra(work: str, only: Sequence[str] = ()) -> None:
    """Look for the libraries that only language models need, without importing them.

    Args:
        work: what needs them, for the message.
        only: the libraries that are needed.

    Raises:
        SettingsError: one is not installed; the message holds the command that installs them.
    """
    require_extra("train", work, only)


def require_gpu_extra(setting: str, device: str) -> None:
    """Look for what a setting of the recipe needs that works on a GPU only.

    Raises:
        SettingsError: there is no CUDA device, or bitsandbytes is not installed.
    """
    if choose_placement(device)[0] == "cpu":
        raise SettingsError(f"{setting} needs a CUDA device, and this training runs on the CPU; leave it out")
    require_extra("gpu", setting)


@dataclass(frozen=True)
class Generation:
    """One generation; `ended` is false where the model had to be cut off."""

    text: str
    ended: bool
    tokens: list[int]
    """Without the one that ended it; control tokens are among them, and not in `text`."""


def load_model(base_model: str, adapter: str | None, *, device: str = "auto") -> tuple[Any, Any]:
    """Load the base model with an adapter, or alone, ready for inference, and its tokenizer.

    Args:
        base_model: path or hub id.
        adapter: folder of a PEFT adapter.
        device: "auto" takes CUDA (bf16 where the device has it) when there is one; "cpu" never does.
    """
    model = load_base(base_model, device)
    if adapter is not None:
        from peft import PeftModel

        with silence_libraries():
            model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), load_tokenizer(base_model)


def load_base(base_model: str, device: str, quantization: str | None = None) -> Any:
    """Load the frozen weights alone onto `device`.

    Args:
        base_model: path or hub id.
        device: "auto" or "cpu".
        quantization: "4bit" for NF4 with quantized constants, computing in the device's number format.

    Raises:
        SettingsError: a quantized base without a GPU, or without the extra `gpu`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    target, dtype = choose_placement(device)
    if quantization is not None:
        require_gpu_extra(f'quantization="{quantization}"', device)
        from transformers import BitsAndBytesConfig

        reduced = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        return AutoModelForCausalLM.from_pretrained(
            base_model, dtype=dtype, use_safetensors=True, quantization_config=reduced, device_map={"": 0}
        )
    # A base model that exists only as a pickle is refused.
    return AutoModelForCausalLM.from_pretrained(base_model, dtype=dtype, use_safetensors=True).to(target)


@dataclass(frozen=True)
class SwitchableModel:
    """One base model in memory with several adapters, of which one at a time computes."""

    model: Any
    tokenizer: Any

    @contextmanager
    def activate(self, adapter: str | None) -> Iterator[Any]:
        """Yield the model with the named adapter, or as the base alone."""
        if adapter is not None:
            self.model.set_adapter(adapter)
            yield self.model
        else:
            with self.model.disable_adapter():
                yield self.model


def load_adapters(
    base_model: str, adapters: Mapping[str, str], *, device: str = "auto", quantization: str | None = None
) -> SwitchableModel:
    """Load the base model once, with every adapter by name; there must be at least one."""
    from peft import PeftModel

    (first, folder), *others = adapters.items()
    with silence_libraries():
        base = load_base(base_model, device, quantization)
        model = PeftModel.from_pretrained(base, folder, adapter_name=first)
        for name, folder in others:
            model.load_adapter(folder, name)
    return SwitchableModel(model.eval(), load_tokenizer(base_model))


def choose_placement(device: str) -> tuple[str, "torch.dtype"]:
    """Choose the device and the number format of a model."""
    import torch

    if device == "auto" and torch.cuda.is_available():
        return "cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return "cpu", torch.float32


def use_cpu_threads(threads: int) -> None:
    """Set the number of torch's threads on the CPU; more than one slow a small model down on busy cores."""
    import torch

    torch.set_num_threads(threads)


def generate(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[list[int]],
    max_new_tokens: int,
    batch_size: int = 64,
    turn_ends: Set[int] = frozenset(),
    *,
    temperature: float | None = None,
    seed: int = 0,
) -> list[Generation]:
    """Generate in the order of the prompts; see `generate_in_batches`, whose batches are of `batch_size` prompts."""
    written: dict[int, Generation] = {}
    for batch in generate_in_batches(
        model,
        tokenizer,
        encoded,
        max_new_tokens,
        rows_per_batch=batch_size,
        turn_ends=turn_ends,
        temperature=temperature,
        seed=seed,
    ):
        written |= batch
    return [written[row] for row in range(len(encoded))]


def generate_in_batches(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[list[int]],
    max_new_tokens: int,
    *,
    rows_per_batch: int = 64,
    tokens_per_batch: int | None = None,
    turn_ends: Set[int] = frozenset(),
    temperature: float | None = None,
    seed: int = 0,
    finished: Set[int] = frozenset(),
) -> Iterator[dict[int, Generation]]:
    """Generate batch by batch; batches hold prompts of similar length, padded on the left.

    Args:
        model: loaded for inference.
        tokenizer: its own.
        encoded: the prompts as token ids, of `models.rendering`.
        max_new_tokens: a text without an end is cut off after so many.
        rows_per_batch: most prompts written for at once.
        tokens_per_batch: most tokens of a batch, padding and what may be written included; one prompt always fits.
        turn_ends: tokens that end a text besides those of the model's configuration.
        temperature: of the whole distribution that tokens are drawn from, which no top-k or top-p cuts; None: the most
            likely token.
        seed: of the draws; each batch begins with it plus its own number. So the same prompts in the same batches give
            the same texts, whichever batches are left out. The process keeps the state of its own random numbers.
        finished: places of prompts that need no text; a batch of nothing else is left out.

    Yields:
        The generations of one batch by the place of their prompt.
    """
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature is not None:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    ends = list_end_tokens(model, tokenizer) | turn_ends
    room = 0 if tokens_per_batch is None else max_new_tokens
    batches = _make_batches([len(ids) + room for ids in encoded], rows_per_batch, tokens_per_batch)
    for number, rows in enumerate(batches):
        if set(rows) <= finished:
            continue
        prompts = [encoded[row] for row in rows]
        written = _generate_batch(model, tokenizer, prompts, max_new_tokens, ends, sampling, seed + number)
        yield dict(zip(rows, written, strict=True))


def _generate_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    ends: Set[int],
    sampling: Mapping[str, Any],
    seed: int,
) -> list[Generation]:
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for position, prompt in enumerate(prompts):
        ids[position, width - len(prompt) :] = torch.tensor(prompt)
        mask[position, width - len(prompt) :] = 1
    draws = sampling["do_sample"]
    with switch_to_inference(model), torch.inference_mode(), torch.random.fork_rng(enabled=draws):
        if draws:
            torch.manual_seed(seed)
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
            **sampling,
        )[:, width:].tolist()
    generations: list[Generation] = []
    for tokens in written:
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        text = tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        generations.append(Generation(text, end is not None, tokens[:end]))
    return generations


def list_end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """List every token that ends a text: chat models have more than the tokenizer's own in their generation config."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {tokenizer.eos_token_id, *(token for token in listed if token is not None)}


def compute_token_log_probabilities(
    model: Any,
    rows: Sequence[tuple[list[int], list[int]]],
    batch_size: int = 64,
    tokens_per_batch: int = MOST_SCORED_TOKENS,
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Compute the log probability of each row's completion ids given its prompt ids, in nats.

    Memory is bounded by tokens, not by rows: a batch holds at most `batch_size` rows, `tokens_per_batch` tokens with
    padding, and 512 MiB of logits (or one row). No logits are made where all rows of a batch still read their prompts,
    and fp32 copies of logits are made for 64 MiB at once. 64 rows of 1,024 tokens over 128,256 words would take 50 GB
    in one piece.
    """
    import torch

    scores = np.zeros(len(rows))
    lengths = [len(prompt) + len(completion) for prompt, completion in rows]
    head = _examine_head(model)
    most_tokens = min(tokens_per_batch, _MOST_LOGIT_BYTES // head.bytes_per_token)
    with switch_to_inference(model), torch.inference_mode():
        for batch in _make_batches(lengths, batch_size, most_tokens):
            width = max(lengths[row] for row in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            scored = torch.zeros((len(batch), width), dtype=torch.bool)
            for position, row in enumerate(batch):
                prompt, completion = rows[row]
                ids[position, : lengths[row]] = torch.tensor(prompt + completion)
                mask[position, : lengths[row]] = 1
                scored[position, len(prompt) : lengths[row]] = True
            # The token before the first completion's first one predicts it.
            first = max(0, min(len(rows[row][0]) for row in batch) - 1) if head.keeps_last else 0
            only_last = {"logits_to_keep": width - first} if head.keeps_last else {}
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **only_last).logits[
                :, :-1
            ]
            values = _gather_log_probabilities(logits, ids[:, first + 1 :].to(model.device))
            sums = (values * scored[:, first + 1 :].to(model.device)).sum(-1)
            scores[batch] = sums.double().cpu().numpy()
    return scores


@dataclass(frozen=True)
class _Head:
    bytes_per_token: int
    """Of the logits as the model returns them."""
    keeps_last: bool
    """The model can leave out the logits of a batch's first positions."""


def _examine_head(model: Any) -> _Head:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps_last = "logits_to_keep" in inspect.signature(base.forward).parameters
    return _Head(max(1, base.get_output_embeddings().weight.shape[0] * base.dtype.itemsize), keeps_last)


def _gather_log_probabilities(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Gather log p of the targets, in fp32, a few positions at a time."""
    import torch

    values = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
    positions = max(1, _FP32_CHUNK_BYTES // (4 * logits.shape[0] * logits.shape[-1]))
    for start in range(0, targets.shape[1], positions):
        chunk = logits[:, start : start + positions].float()
        wanted = targets[:, start : start + positions]
        # Chosen logit minus logsumexp: half the memory of a log_softmax over the whole vocabulary.
        values[:, start : start + positions] = chunk.gather(-1, wanted[..., None]).squeeze(-1) - chunk.logsumexp(-1)
    return values


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence what the model libraries say of each other's names and of settings of their own.

    No caller can act on it: PEFT mends the layout of GPT-2's layers itself, and misses its own patterns for experts.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*deprecated")
        warnings.filterwarnings("ignore", category=UserWarning, message="fan_in_fan_out is set to False")
        warnings.filterwarnings("ignore", category=RuntimeWarning, message="The following (rank|alpha)_pattern keys")
        yield


@contextmanager
def switch_to_inference(model: Any) -> Iterator[None]:
    """Switch to evaluation mode for a block; a model in training returns to training."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _make_batches(lengths: Sequence[int], batch_size: int, most_tokens: int | None = None) -> list[list[int]]:
    """Part rows by length into batches of at most so many rows and, padded, tokens; a longer row stands alone."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        # The newest row is the longest: the others are padded to it.
        fits = batches and len(batches[-1]) < batch_size
        if fits and (most_tokens is None or (len(batches[-1]) + 1) * lengths[row] <= most_tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def hash_base_weights(base_model: str) -> str:
    """Hash the names and contents of a base model's safetensors files.

    Args:
        base_model: folder, or hub id, which is looked up in the local cache or fetched (without any pickle).

    Raises:
        TrainingError: there are no such weights.
    """
    folder = Path(base_model) if Path(base_model).is_dir() else _fetch_weights(base_model)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TrainingError(f"{folder} holds no safetensors weights; pickled weights are not loaded")
    lines = "".join(f"{file.name} {hash_file(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_adapter(folder: Path) -> str:
    """Hash an adapter's weights with sha256.

    Raises:
        ManifestMismatchError: they are missing.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise ManifestMismatchError(f"{folder} holds no {ADAPTER_WEIGHTS}; train this version again")
    return hash_file(path)


def _fetch_weights(base_model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base_model, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, FileNotFoundError) as error:
        raise TrainingError(
            f"base model {base_model!r} is neither a folder nor available from the hub: {error}"
        ) from error
