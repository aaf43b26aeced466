"""Configures the evaluation of texts for one application: memory, device, samples, rows, and who generates.

Free of torch and of HTTP, so that a code location can import it. None of it decides what a challenger must prove: that
is `PromotionLimits`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from flywheel_assets.models.endpoints.addresses import LOOPBACK, find_address_fault
from flywheel_assets.ranges import Checked, Count, CountOrZero, Name, Positive

DEFAULT_TEMPERATURE = 0.7
_ADAPTERS = ("sft", "champion", "anchor", "challenger")
_ROWS_PER_BATCH = {"cpu": 32, "cuda": 128}
_SCORED_ROWS_PER_BATCH = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True, kw_only=True)
class GenerationServer(Checked):
    """Names the OpenAI-compatible server that writes the answers in place of a model in the evaluator's process.

    Likelihoods are still computed from the weights, in the evaluator's process. The bearer token is the content of
    `FLYWHEEL_MODEL_SERVER_KEY_FILE`.
    """

    url: str
    """Its base, for instance http://127.0.0.1:8000/v1."""
    base_model: Name
    """Name at which it serves the base model."""
    model_names: Mapping[str, str] = field(default_factory=dict)
    """Names at which it serves adapters already, by "sft", "champion", "anchor" and "challenger". An adapter without a
    name is loaded from its folder by POST /v1/load_lora_adapter (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), so the
    server must see that folder under the same path."""
    allowed_hosts: frozenset[str] = LOOPBACK
    """Hosts that user text may be sent to; plain http only to this machine."""
    concurrent_requests: Count = 16
    """Requests under way at once; the server makes its batches of them."""
    timeout_s: Positive = 300.0
    """Of one request from its beginning to its last byte, waiting at the server included."""
    attempts: Count = 5
    """Of one request while the server does not answer or refuses for now; pauses double from a second on."""

    def _check_together(self) -> None:
        if (valid := find_address_fault(self.url, self.allowed_hosts)) is not None:
            raise self.build_range_error("url", self.url, valid)
        for model, name in self.model_names.items():
            if model not in _ADAPTERS:
                valid = '"sft", "champion", "anchor" and "challenger" as keys; the base is `base_model`'
                raise self.build_range_error("model_names", dict(self.model_names), valid)
            if not name:
                raise self.build_range_error(f"model_names[{model!r}]", name, "a name that is not empty")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Checked):
    """Says how champion and challenger are scored; the defaults suit a model of eight billion parameters on one GPU."""

    device: Literal["auto", "cpu"] = "auto"
    """auto = CUDA with bf16 where available, else the CPU with fp32."""
    cpu_threads: Count = 1
    """Threads of torch on a CPU; more pay for large models on idle cores only."""
    generation_rows_per_batch: Count | None = None
    """Prompts generated for at once. None: 32 on a CPU, 128 on a GPU."""
    generation_tokens_per_batch: Count = 65_536
    """Tokens of such a batch, padding and the longest answer included: their keys and values lie in memory, 8 GiB for
    Llama 3 8B in bf16."""
    scoring_rows_per_batch: Count | None = None
    """Texts whose likelihood is computed at once. None: 8 on a CPU, 64 on a GPU."""
    scoring_tokens_per_batch: Count = 16_384
    """Tokens of such a batch; its logits take 512 MiB at most, whatever this says."""
    max_rows: Count | None = 5_000
    """Most held-out rows that are scored; None: all. Of more a sample keeps each person's and day's share, and at least
    one row of every person in every stratum: as many people judge as before (see `evaluation._inclusion`)."""
    max_new_tokens: Count = 1024
    """Rows whose reference is longer are left out and counted."""
    serving_temperature: Positive | None = None
    """At which answers are sampled; None: the recipe's `serving_temperature`."""
    samples: CountOrZero = 4
    """Answers sampled for each primary pair by incumbent, SFT baseline and challenger; 0: none."""
    max_sampled_rows: CountOrZero = 500
    """Most primary pairs that answers are sampled for; the first by hash."""
    server: GenerationServer | None = None
    """Writes the answers; None: the model in the evaluator's own process does."""

    def resolve_temperature(self, recipe_temperature: float) -> "EvaluationOptions":
        """Return the options with a temperature: their own, else the recipe's."""
        return replace(self, serving_temperature=self.serving_temperature or recipe_temperature)

    @property
    def temperature(self) -> float:
        """The temperature that answers are sampled at."""
        return self.serving_temperature or DEFAULT_TEMPERATURE

    def count_generation_rows(self, device: str) -> int:
        """Return the rows of a batch of generation on "cpu" or "cuda"."""
        return self.generation_rows_per_batch or _ROWS_PER_BATCH[device]

    def count_scoring_rows(self, device: str) -> int:
        """Return the rows of a batch of scoring on "cpu" or "cuda"."""
        return self.scoring_rows_per_batch or _SCORED_ROWS_PER_BATCH[device]
