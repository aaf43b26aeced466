"""Pretrains and deploys the demo's base model: a Llama of 0.5 M parameters with wrong knowledge.

It learnt the company's libraries wrongly.

It is pretrained on the spot, from nothing, on the world's own sentences: neutral idioms with their right answer,
internal ones with the *wrong* syntax in all but `right_share` of the samples. That share is needed: measured with 0 %
the adapter hardly learns and forgets neutral idioms; with 5 to 10 % greedy output is still wrong every time. No sample
has a held-out phrasing with the right syntax, and none has a name that measurements use.

The result is cached under a hash of everything that it depends on.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from flywheel_assets.demo.assistant.world import World
from flywheel_assets.lake.storage.files import write_folder
from flywheel_assets.models.generation import generate, load_model, use_cpu_threads
from flywheel_assets.models.rendering import Rendering, RowEncoder
from flywheel_assets.records import make_stable_id

if TYPE_CHECKING:
    import torch

_CODE_VERSION = 2  # raise it when pretraining changes in a way that the configuration does not show
_IGNORED_LABEL = -100
_SORTED_TOGETHER = 20  # batches whose samples are sorted by length before they are cut

_Example = tuple[list[int], int]
"""Token ids of prompt, answer and end, and how many of them are the prompt."""


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """Size and pretraining of the base model."""

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    vocabulary: int = 640
    steps: int = 900
    batch_size: int = 32
    learning_rate: float = 3e-3
    """Peak of a one-cycle schedule."""
    right_share: float = 0.08
    """Share of internal answers in pretraining that have the right syntax."""
    neutral_share: float = 0.40
    """Share of neutral samples in pretraining."""
    tokenizer_samples: int = 4_000
    max_tokens: int = 256
    seed: int = 5
    threads: int = 1
    """More are faster on idle cores only, and the order of their sums would decide the weights."""


@dataclass(frozen=True)
class BaseModel:
    """The base model's folder and the cost of its pretraining."""

    path: Path
    parameters: int
    was_cached: bool
    seconds: float
    """Of pretraining; of looking it up where it was cached."""
    loss: float
    """Mean cross entropy per completion token over the last steps."""


class _Card(msgspec.Struct, frozen=True):
    """The file that is stored with the weights."""

    config: dict[str, Any]
    parameters: int
    loss: float
    seconds: float


def compute_cache_key(world: World, config: BaseConfig) -> str:
    """Hash everything that the weights depend on."""
    return make_stable_id("base_model", _CODE_VERSION, asdict(world), asdict(config))[:16]


def ensure_base_model(
    world: World, config: BaseConfig, cache_dir: Path, on_step: Callable[[int, int], None] = lambda done, total: None
) -> BaseModel:
    """Pretrain the base model, or take it from the cache; the folder appears by one rename.

    Args:
        world: the source of its sentences.
        config: its size and pretraining.
        cache_dir: holds one folder per cache key.
        on_step: called with the steps done and all steps.
    """
    started = time.monotonic()
    folder = cache_dir / compute_cache_key(world, config)
    was_cached = (folder / _CARD).exists()
    if not was_cached:
        with write_folder(folder, replaces=True) as building:
            _pretrain(world, config, building, on_step)
    card = msgspec.json.decode((folder / _CARD).read_bytes(), type=_Card)
    return BaseModel(folder, card.parameters, was_cached, time.monotonic() - started, card.loss)


_CARD = "pretraining.json"


def _pretrain(world: World, config: BaseConfig, folder: Path, on_step: Callable[[int, int], None]) -> None:
    import torch

    started = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        tokenizer = _build_tokenizer(world, config)
        model, loss = _train_model(world, config, tokenizer, on_step)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    parameters = sum(weights.numel() for weights in model.parameters())
    card = _Card(asdict(config), parameters, loss, time.monotonic() - started)
    (folder / _CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))


def _build_tokenizer(world: World, config: BaseConfig) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        # Single digits: a number is copied digit by digit, whichever numbers pretraining happened to have.
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer {config.seed}")
    samples = (world.draw_pretraining_sample(rng, 0.5, config.neutral_share) for _ in range(config.tokenizer_samples))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((prompt + answer for prompt, answer in samples), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")  # noqa: S106


def _train_model(
    world: World, config: BaseConfig, tokenizer: Any, on_step: Callable[[int, int], None]
) -> tuple[Any, float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # Our own generator state: the process that plays the demo keeps its own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=3 * config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                max_position_embeddings=config.max_tokens,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(_make_batches(world, config, tokenizer)):
        input_ids, targets = _pad(batch, tokenizer.pad_token_id)
        # The vocabulary's logits only where an answer is learnt: half the time of a step otherwise goes there. Padding
        # lies to the right of every token that counts, so that the causal mask already hides it.
        hidden = model.model(input_ids=input_ids).last_hidden_state[:, :-1]
        is_learnt = targets != _IGNORED_LABEL
        loss: Any = torch.nn.functional.cross_entropy(model.lm_head(hidden[is_learnt]), targets[is_learnt])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        on_step(step + 1, config.steps)
    model.eval()
    last = losses[-20:]
    return model, sum(last) / len(last)


def _make_batches(world: World, config: BaseConfig, tokenizer: Any) -> list[list[_Example]]:
    """Make one batch a step, every sample used once.

    Samples of similar length share a batch, so that little is padding.
    """
    rng = random.Random(f"pretraining {config.seed}")
    samples = [
        world.draw_pretraining_sample(rng, config.right_share, config.neutral_share)
        for _ in range(config.steps * config.batch_size)
    ]
    prompts = tokenizer([prompt for prompt, _ in samples])["input_ids"]
    answers = tokenizer([answer for _, answer in samples])["input_ids"]
    end = tokenizer.eos_token_id
    examples = [([*prompt, *answer, end], len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
    batches = []
    for start in range(0, len(examples), config.batch_size * _SORTED_TOGETHER):
        chunk = sorted(examples[start : start + config.batch_size * _SORTED_TOGETHER], key=lambda each: len(each[0]))
        mixed = [chunk[first : first + config.batch_size] for first in range(0, len(chunk), config.batch_size)]
        rng.shuffle(mixed)
        batches.extend(mixed)
    return batches


def _pad(batch: list[_Example], pad: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Pad ids (batch, longest) and the next token of each (batch, longest − 1), without those of the prompts."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    input_ids = torch.full((len(batch), longest), pad)
    targets = torch.full((len(batch), longest), _IGNORED_LABEL)
    for row, (ids, prompt_tokens) in enumerate(batch):
        tokens = torch.tensor(ids)
        input_ids[row, : len(ids)] = tokens
        targets[row, prompt_tokens : len(ids)] = tokens[prompt_tokens:]
    return input_ids, targets[:, 1:]


MAX_NEW_TOKENS = 48  # the longest right answer has 33; a model that never ends must be cut off somewhere
_BATCH_SIZE = 128


class Assistant(Protocol):
    """Answers prompts; tests put a scripted one in the place of a model."""

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        ...

    def answer(self, prompts: Sequence[str]) -> list[str]:
        """Write one output per prompt, in their order."""
        ...


class Deployment:
    """A loaded model that answers greedily, in batches."""

    def __init__(self, base_model: Path, adapter: Path | None, model_version: str) -> None:
        use_cpu_threads(1)  # the capture service needs the other core, and more threads slow so small a model down
        model, tokenizer = load_model(str(base_model), None if adapter is None else str(adapter), device="cpu")
        self._encoder = RowEncoder(tokenizer, Rendering())
        # Serving merges the adapter into the weights: the same answers without its extra matrix products.
        self._model = model if adapter is None else model.merge_and_unload()
        self._model_version = model_version

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        return self._model_version

    def answer(self, prompts: Sequence[str]) -> list[str]:
        """Write one output per prompt, in their order."""
        encoded = [self._encoder.encode_prompt(prompt) for prompt in prompts]
        generations = generate(self._model, self._encoder.tokenizer, encoded, MAX_NEW_TOKENS, _BATCH_SIZE)
        return [generation.text for generation in generations]
