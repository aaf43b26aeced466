"""Deploys the assistant: the base model, alone or with the promoted adapter, behind one version name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from flywheel_assets.models.generation import generate, load_model, use_cpu_threads

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
        model, self._tokenizer = load_model(str(base_model), None if adapter is None else str(adapter), device="cpu")
        # Serving merges the adapter into the weights: the same answers without its extra matrix products.
        self._model = model if adapter is None else model.merge_and_unload()
        self._model_version = model_version

    @property
    def model_version(self) -> str:
        """The name that its predictions carry."""
        return self._model_version

    def answer(self, prompts: Sequence[str]) -> list[str]:
        """Write one output per prompt, in their order."""
        generations = generate(self._model, self._tokenizer, list(prompts), MAX_NEW_TOKENS, _BATCH_SIZE)
        return [generation.text for generation in generations]
