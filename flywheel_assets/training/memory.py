"""Estimates the memory of a training before any weights are loaded, and fits its batches into what there is.

One step of the base with its adapter runs on torch's meta device, where tensors have shapes and no data, while a
counter adds up what is alive at once. So activations are those of the architecture itself, with and without
checkpointing. Weights, the optimizer and TRL's output layer (logits of 4,096 tokens and 32,768 words at once) are
counted in closed form.

Not counted: what the libraries themselves take, and what an allocator loses between blocks.
"""

import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.generation import choose_placement, silence_libraries
from flywheel_assets.models.process_failures import is_held_by_others, is_out_of_memory
from flywheel_assets.training._stages import release_memory
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import MemoryEstimate, StageReport

_log = logging.getLogger(__name__)

_TOO_SMALL = 1.25
"""A training is refused when its estimate is so many times what is free.

Measured estimates were at most 1.03 times the truth, and as low as a third of it (docs/training.md).
"""
_HEAD_TOKENS, _HEAD_WORDS = 4_096, 32_768
"""TRL's `TOKEN_CHUNK_SIZE` and `_CHUNKED_LOGPROB_CHUNK_SIZE`."""
_STATE_BYTES = {"sgd": 0, "adafactor": 1, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Of an optimizer for each trained weight; two moments in fp32, of the others, are 8."""
_BYTES_OF_4BIT = 0.52
"""For each weight of a linear layer in NF4 with quantized constants (Dettmers et al. 2023, "QLoRA")."""
_ATTENTION = "flywheel_estimate"


@dataclass(frozen=True)
class StageShape:
    """The largest batch of a stage before it is split: rows, sequences of each row, and the longest one's tokens."""

    rows: int
    sequences: int
    """1, or 2 where a row is a pair: both of its texts go through the model at once."""
    tokens: int


def check_memory(base_model: str, recipe: AdapterRecipe, shapes: Mapping[str, StageShape]) -> dict[str, MemoryEstimate]:
    """Estimate every stage, say so in the log, and refuse a training that cannot fit.

    On a GPU a batch that does not fit is halved (`fit_into_memory`), so only one that does not fit row by row is
    refused. On a CPU the system kills without a word, so the recipe's own batch has to fit.

    Args:
        base_model: path or hub id; only its configuration is read.
        recipe: of the training.
        shapes: by stage.

    Returns:
        The estimates by stage at the recipe's batch; empty for an architecture whose steps depend on data.

    Raises:
        TrainingError: the need is 1.25 times what is free or more; the message names the setting that helps.
    """
    device, _ = choose_placement(recipe.device)
    free = read_free_memory(device)
    estimates: dict[str, MemoryEstimate] = {}
    for stage, shape in shapes.items():
        found = estimate_memory(base_model, recipe, shape, device)
        if found is None:
            _log.warning("The memory of stage %s was not estimated: its steps depend on data.", stage)
            continue
        estimates[stage] = found
        _log.info("Stage %s: %s", stage, found.describe(free))
        if free is None:
            continue
        least = found if device == "cpu" else estimate_memory(base_model, recipe, replace(shape, rows=1), device)
        if least is not None and least.total_bytes > _TOO_SMALL * free:
            raise TrainingError(
                f"stage {stage}: {least.describe(free)} {_find_remedy(base_model, recipe, shape, device, free)}"
            )
    return estimates


def estimate_memory(base_model: str, recipe: AdapterRecipe, shape: StageShape, device: str) -> MemoryEstimate | None:
    """Estimate the most memory that one step on the largest batch needs.

    Args:
        base_model: path or hub id.
        recipe: of the training.
        shape: of the batch; `batch_size` of the recipe caps its rows.
        device: "cuda" or "cpu".

    Returns:
        None where the architecture cannot run without data (some mixtures of experts).
    """
    _, dtype = choose_placement(recipe.device)
    sequences = min(shape.rows, recipe.batch_size) * shape.sequences
    try:
        with silence_libraries():
            model = build_on_meta(base_model, recipe, dtype, device, _ATTENTION)
            activations = _count_step(model, sequences, shape.tokens)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        _log.debug("no step of %s can be counted on the meta device", base_model, exc_info=error)
        return None
    head = model.get_base_model().get_output_embeddings().weight
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return MemoryEstimate(
        sequences=sequences,
        tokens=shape.tokens,
        weights_bytes=_count_weights(model, recipe),
        # The adapter is fp32: its weights, their gradients, and the optimizer's state.
        adapter_bytes=trained * (8 + _STATE_BYTES.get(recipe.optimizer, 8)),
        activations_bytes=activations,
        logits_bytes=_count_head(head, sequences * shape.tokens, device),
    )


def fit_into_memory(recipe: AdapterRecipe, train: Callable[[AdapterRecipe], StageReport]) -> StageReport:
    """Train a stage; out of memory, start it again with half of the batch and twice the accumulation.

    The rows of one optimiser step stay the same. The stage goes on from its last complete checkpoint.

    Args:
        recipe: of the training.
        train: trains the stage by the recipe that it is given.

    Raises:
        TrainingError: even one row does not fit; where other processes held the GPU, torch's own error is raised.
    """
    while True:
        try:
            return train(recipe)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if recipe.batch_size == 1:
                if is_held_by_others(error):
                    raise
                raise TrainingError(
                    "memory does not hold one row: batches were halved down to 1. "
                    f"{_advise_at_one_row(recipe, choose_placement(recipe.device)[0])}"
                ) from error
        # Out of the except block: the error's frames hold the model that filled the memory.
        release_memory()
        smaller = halve_batch(recipe)
        _log.warning(
            "A batch of %d rows did not fit into memory; going on with %d rows and %d accumulation steps.",
            *(recipe.batch_size, smaller.batch_size, smaller.accumulation_steps),
        )
        recipe = smaller


def halve_batch(recipe: AdapterRecipe) -> AdapterRecipe:
    """Return the recipe with at most half of the batch, and as many rows in one optimiser step."""
    size = recipe.batch_size
    smaller = next(each for each in range(max(1, size // 2), 0, -1) if size % each == 0)
    return replace(recipe, batch_size=smaller, accumulation_steps=recipe.accumulation_steps * (size // smaller))


def read_free_memory(device: str) -> int | None:
    """Read the bytes that a new process can take: CUDA's free ones, or the machine's available ones.

    On a CPU the limit of a container counts as well. None where the system does not say.
    """
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    found = [int(available.split()[1]) * 1024]
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def _find_remedy(base_model: str, recipe: AdapterRecipe, shape: StageShape, device: str, free: int) -> str:
    """Name the first setting, or settings together, whose estimate fits."""
    changed: dict[str, Any] = {}
    tried = recipe
    while tried.batch_size > 1:
        tried = halve_batch(tried)
        changed = {"batch_size": tried.batch_size, "accumulation_steps": tried.accumulation_steps}
        if text := _describe_if_fitting(base_model, tried, changed, shape, device, free):
            return text
    if not recipe.uses_checkpointing(device):
        tried, changed = replace(tried, gradient_checkpointing=True), {**changed, "gradient_checkpointing": True}
        if text := _describe_if_fitting(base_model, tried, changed, shape, device, free):
            return text
    if device != "cpu" and recipe.quantization is None:
        tried, changed = replace(tried, quantization="4bit"), {**changed, "quantization": "4bit"}
        if text := _describe_if_fitting(base_model, tried, changed, shape, device, free):
            return text
    return _advise_at_one_row(tried, device)


def _describe_if_fitting(
    base_model: str, recipe: AdapterRecipe, changed: Mapping[str, Any], shape: StageShape, device: str, free: int
) -> str | None:
    found = estimate_memory(base_model, recipe, shape, device)
    if found is None or found.total_bytes > free:
        return None
    settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return f"Set {settings} in the recipe: that is estimated at {found.total_bytes / 2**30:.1f} GiB."


def _advise_at_one_row(recipe: AdapterRecipe, device: str) -> str:
    steps = [] if recipe.uses_checkpointing(device) else ["set `gradient_checkpointing=True`"]
    if device != "cpu" and recipe.quantization is None:
        steps.append('set `quantization="4bit"`')
    steps += [f"lower `max_length` (now {recipe.max_length})", "take a smaller base model or more memory"]
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."


def build_on_meta(base_model: str, recipe: AdapterRecipe, dtype: Any, device: str, attention: str | None) -> Any:
    """Build the base with its adapter, ready for a training step, from its configuration: shapes without data.

    Args:
        base_model: path or hub id.
        recipe: of the training.
        dtype: of the base's weights.
        device: "cuda" or "cpu": where the step would run.
        attention: transformers' name of its implementation; None: the one that it would load with.
    """
    import torch
    from peft import get_peft_model
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    from flywheel_assets.training._stages import build_lora_config

    AttentionInterface.register(_ATTENTION, _attend_without_matrix)
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(base_model)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        # Under autocast an adapter's inputs are kept in the base's number format.
        model = get_peft_model(model, build_lora_config(recipe), autocast_adapter_dtype=False)
    if recipe.uses_checkpointing(device):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def _attend_without_matrix(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any
) -> tuple[Any, None]:
    """Keep what a fused attention keeps for its gradient: never the matrix of all pairs of tokens."""
    import torch

    class _Fused(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, *tensors: Any) -> Any:
            queries, _, values = tensors
            written = queries.new_empty((*queries.shape[:-1], values.shape[-1]))
            sums = torch.empty(queries.shape[:-1], device=queries.device, dtype=torch.float32)
            context.save_for_backward(*tensors, written, sums)
            return written

        @staticmethod
        def backward(context: Any, *_: Any) -> Any:
            return tuple(torch.empty_like(each) for each in context.saved_tensors[:3])

    groups = query.shape[1] // key.shape[1]
    # As transformers' own sdpa attention does it under a mask.
    key, value = (each.repeat_interleave(groups, dim=1) if groups > 1 else each for each in (key, value))
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None  # type: ignore[no-untyped-call]


def _count_step(model: Any, sequences: int, tokens: int) -> int:
    """Count the most bytes of activations and gradients that are alive at once in one step, without the logits."""
    import torch

    ids = torch.zeros((sequences, tokens), dtype=torch.long, device="meta")
    # With a finished mask nothing looks at its values.
    mask = torch.zeros((sequences, 1, tokens, tokens), dtype=torch.bool, device="meta")
    # Weights are counted elsewhere; a view of one has its storage.
    known = {each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers(), ids, mask)}
    with _make_counter(known) as counter:
        hidden = model.get_base_model().base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        loss = hidden.last_hidden_state.sum()
        del hidden
        loss.backward()
    return int(counter.peak) + mask.nbytes


def _make_counter(known: set[int]) -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Adds up the storages of meta tensors from their first appearance to their end."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now = self.peak = 0
            self._alive = known

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for each in tree_leaves(result):
                if getattr(getattr(each, "device", None), "type", "") == "meta":
                    self._add(each.untyped_storage())
            return result

        def _add(self, storage: Any) -> None:
            if (key := storage._cdata) in self._alive:
                return
            self._alive.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, storage.nbytes())

        def _remove(self, key: int, freed: int) -> None:
            self._alive.discard(key)
            self.now -= freed

    return _Counter()


def _count_weights(model: Any, recipe: AdapterRecipe) -> int:
    from peft.tuners.tuners_utils import BaseTunerLayer

    frozen = {id(each): each for each in model.parameters() if not each.requires_grad}
    total = sum(each.nbytes for each in frozen.values())
    if recipe.quantization is None:
        return int(total)
    linear = {id(each.weight): each.weight for each in model.modules() if isinstance(each, BaseTunerLayer)}
    return int(total - sum(each.nbytes - _BYTES_OF_4BIT * each.numel() for each in linear.values()))


def _count_head(head: Any, tokens: int, device: str) -> int:
    """Count the output layer's buffers: one tile of logits, and the gradient of its input in two fp32 copies.

    Without Triton TRL computes a tile's gradient in nine fp32 tensors and a mask, all alive at once.
    """
    words, hidden = head.shape
    tile = min(tokens, _HEAD_TOKENS) * min(words, _HEAD_WORDS)
    copies = 9 * 4 + 1 if device == "cpu" else 0
    return int(tile * (head.element_size() + copies) + 2 * 4 * tokens * hidden)
