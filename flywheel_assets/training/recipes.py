"""Configures the training of an adapter; free of torch, so that a code location can import it.

Defaults that differ from TRL's, and why:

- `loss_types` apo_zero + sft (TRL: sigmoid): plain DPO lowers the likelihood of the chosen text most where an edit
  changed little; measured on edits, it collapsed to "claim is is is" at a reward accuracy of 1.00.
- The one stage's loss is normalised over the whole optimiser step, and rows without a rejected text are in it (TRL: by
  micro-batch, pairs only): accumulation must not change what a token weighs, and accepted outputs hold what works.
- `sft_learning_rate` 2e-4 (2e-5), `preference_learning_rate` 5e-5 (1e-6): a LoRA adapter wants ten times the rate of
  full tuning or more, and the weighted sft loss holds the likelihood.
- `warmup_ratio` 0.1 (none): a fresh adapter's first steps are its wildest.
- `gradient_checkpointing` by device (on): on a CPU it costs 15 % of the time and memory is seldom short.
- bf16 on CUDA only (everywhere): it costs 19 % on a CPU.
- `stages` one_stage (TRL: the preference loss alone, after an SFT of its own): it says what people corrected in .3 % of
  sampled answers at most, SFT with as much computing in 6 %, and is more exact than two stages (docs/training.md).
- No dropout in the adapter: `disable_dropout` would silently zero it wherever preferences are learnt.
- Reference log probabilities computed once (in every step): the same results for 21 % less CPU per step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flywheel_assets.models.rendering import Rendering
from flywheel_assets.ranges import Checked, Count, CountOrZero, NotNegative, Positive, ShareBelowOne

WrittenComparisons = Literal["confirmed", "all", "none"]
_NEVER = object()
_YOUNGER: Mapping[str, object] = {
    "quantization": None,
    "optimizer": "adamw_torch_fused",
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
    "use_rslora": False,
    "use_dora": False,
    "stages": "two_stages",
    "preference_loss": "apo_zero",
    "preference_weight": 1.0,
    # Not 0: trainings whose stages were compared by greedy answers alone stay finished.
    "serving_temperature": 0.7,
    "selection_samples": 4,
    "written_comparisons": "all",
    "objection_weight": 0.0,
    "objection_loss": "kto",
    "desirable_ratio": 1.0,
}
"""Fields that were added later, with the value that says what was done before: whatever the default becomes.

`stages` is the one whose default has changed since: a recipe that was written without it means two stages.
"""


def add_younger_fields(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a recorded recipe what was done before there were some of its fields, whatever their default is now."""
    return {**_YOUNGER, **recorded}


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe(Checked):
    """Everything that decides an adapter besides its data and its base model."""

    lora_rank: Count = 16
    """Rank r of the adapter; vLLM serves it only up to its own maximum."""
    lora_alpha: Count = 32
    """Scale of the adapter's output is alpha / rank."""
    lora_targets: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter; never lm_head, which TRL refuses."""
    batch_size: Count = 16
    """Rows of one optimiser step, before `accumulation_steps`."""
    accumulation_steps: Count = 1
    """Batches summed into one optimiser step, where memory does not hold a larger batch."""
    max_length: Count = 1024
    """Most tokens of prompt and completion. Longer rows leave a version when it is cut; none is ever cut short."""
    wrap_text_prompts: bool = True
    """Send a prompt that is text as one user turn where the base model has a chat template, in training and
    evaluation, as a chat endpoint does. False: the text itself, for products that complete a text."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template, as serving sets them: {"enable_thinking": False}."""
    stages: Literal["one_stage", "two_stages", "sft"] = "one_stage"
    """"one_stage": chosen texts are written and preferred to the rejected ones in the same batches, against the frozen
    base. "two_stages": first SFT, then a preference stage against the SFT adapter. "sft": SFT alone. An SFT adapter is
    trained always: what the others are compared with."""
    sft_epochs: Positive = 3.0
    """Passes of SFT, and of the one stage, over chosen and accepted outputs."""
    sft_learning_rate: Positive = 2e-4
    """Peak rate of SFT and of the one stage; 2e-3 suits models below ten million parameters."""
    preference_epochs: NotNegative = 1.0
    """Passes of the preference stage over the pairs. 0 leaves every preference out, as `stages="sft"` does."""
    preference_learning_rate: Positive = 5e-5
    """Peak rate of the preference stage; 5e-4 suits models below ten million parameters."""
    loss_types: tuple[str, ...] = ("apo_zero", "sft")
    """TRL's losses of the preference stage, summed."""
    loss_weights: tuple[float, ...] = (0.2, 1.0)
    """One weight for each loss."""
    preference_loss: Literal["apo_zero", "sigmoid"] = "apo_zero"
    """Of the one stage, next to the loss of SFT; "sigmoid" is DPO."""
    preference_weight: NotNegative = 1.0
    """Of that loss, per row; the loss of SFT, per token, has 1."""
    written_comparisons: WrittenComparisons = "confirmed"
    """Which winners of comparisons are written, not only preferred to the losers: those whose text people accepted, too
    ("confirmed"), "all" or "none". Where a version has nothing else to write, all are."""
    objection_weight: NotNegative = 0.0
    """Of the loss of objections in the one stage, per row, as `preference_weight`; above 0 versions export the outputs
    that a reviewer confirmed as wrong, and the one stage learns from them."""
    objection_loss: Literal["kto", "apo_zero"] = "kto"
    """"kto" measures from a reference point, for a forward pass more in every step; "apo_zero" from the base."""
    desirable_ratio: NotNegative = 1.0
    """What all accepted outputs and demonstrations weigh together as desirable, over all objections (KTO: 1 to 1.5)."""
    beta: Positive = 0.1
    """Strength of the pull towards the reference: the base in the one stage, else the SFT adapter."""
    warmup_ratio: ShareBelowOne = 0.1
    """Share of each stage's steps in which its rate rises."""
    selection_share: ShareBelowOne = 0.08
    """Share of the training subjects kept out, to compare the other adapter with SFT's; 0 always takes the other."""
    selection_min_rows: CountOrZero = 10
    """With fewer pairs to keep back nothing could be compared: all are trained on, and only SFT is run."""
    selection_margin: NotNegative = 0.01
    """It is inferior where its mean NED, missing ends or wrong answers exceed the SFT adapter's by more than this."""
    selection_max_accepted_fallen: NotNegative = 0.02
    """It is also inferior where more than this share of the accepted outputs became less likely than under SFT."""
    serving_temperature: Positive = 0.7
    """At which the product samples its answers: evaluation and the comparison of the stages sample at it."""
    selection_samples: CountOrZero = 4
    """Answers sampled for each kept-back pair, to count those that people had corrected; 0: greedy answers only."""
    max_selection_rows: Count = 500
    """Most pairs, and most accepted outputs, that the stages write for to be compared; the first by hash."""
    checkpoint_every_steps: Count = 100
    """A killed trainer loses at most so many steps."""
    max_delta_rows: CountOrZero = 5_000
    """Training pairs (the first by hash) whose Δ log p is recorded."""
    gradient_checkpointing: bool | None = None
    """Trade 15 % of time for memory: activations are computed twice. None: on a GPU, not on a CPU."""
    quantization: Literal["4bit"] | None = None
    """"4bit": the frozen base is loaded in NF4 (QLoRA), in training and where the trainer scores; a GPU and the extra
    `gpu`. Evaluation and serving read the base as it is."""
    optimizer: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = (
        "adamw_torch_fused"
    )
    """One of transformers' `optim`. Those in 8 bits need a GPU and the extra `gpu`; they save little on an adapter."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """How a rate falls after its peak."""
    weight_decay: NotNegative = 0.0
    """AdamW's, on the adapter's weights."""
    use_rslora: bool = False
    """Scale by alpha / √rank (PEFT): a high rank learns no slower. vLLM reads it from the adapter's configuration."""
    use_dora: bool = False
    """Learn each layer's magnitude apart from its direction (PEFT's DoRA); slower, and vLLM does not serve it."""
    throughput_tflops: Positive | None = None
    """10¹² operations a second that a training reaches here, where that is known: the estimate of its time then needs
    no calibration. It decides nothing else."""
    device: Literal["auto", "cpu"] = "auto"
    """auto = CUDA with bf16 where available, else the CPU with fp32."""
    cpu_threads: Count = 1
    """Of torch, where it computes on the CPU. In the recipe because sums in another order give other weights; more pay
    only for larger models on idle cores (0.5 M parameters, two busy cores: two threads took 8 × as long)."""
    seed: int = 0
    """Of the adapter's first weights and the order of rows."""

    @property
    def trains_preferences(self) -> bool:
        """Return whether the recipe has more than SFT."""
        return self.stages != "sft" and self.preference_epochs > 0

    @property
    def rendering(self) -> Rendering:
        """The part that decides how a row is encoded."""
        return Rendering(
            wrap_text_prompts=self.wrap_text_prompts,
            chat_template_kwargs=self.chat_template_kwargs,
            max_length=self.max_length,
        )

    def uses_checkpointing(self, device: str) -> bool:
        """Return whether activations are computed twice on a device."""
        return device != "cpu" if self.gradient_checkpointing is None else self.gradient_checkpointing

    def list_deciding_fields(self) -> dict[str, Any]:
        """List what decides the adapter, for a digest.

        A field that is younger than recorded digests is left out where it says what was done before there was one. So
        a finished training still answers its request after an upgrade.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "throughput_tflops"}
        # It computes the same by another way; older digests hold it as a truth value.
        fields["gradient_checkpointing"] = bool(self.gradient_checkpointing)
        return {name: value for name, value in fields.items() if _YOUNGER.get(name, _NEVER) != value}

    def follow_recorded(self, recorded: Mapping[str, Any]) -> "AdapterRecipe":
        """Return the recipe that an older release would have asked for with the same application file.

        A field that the recorded recipe lacks, and whose value here is the default, says what was done before there
        was one: a default that changed later asks for no second training. A recipe that was recorded with all fields
        changes nothing.

        Args:
            recorded: the recipe's fields as the report of a finished training holds them.
        """
        if self.objection_weight and "objection_weight" not in recorded:
            # No older release learnt from objections: this recipe asks for another training, whatever it recorded.
            return self
        defaults = AdapterRecipe()
        unnamed: dict[str, Any] = {
            name: before
            for name, before in _YOUNGER.items()
            if name not in recorded and getattr(self, name) == getattr(defaults, name)
        }
        return replace(self, **unnamed)

    def _check_together(self) -> None:
        if not self.loss_types or len(self.loss_types) != len(self.loss_weights):
            raise self.build_range_error(
                "loss_weights", self.loss_weights, f"one weight for each loss of {self.loss_types}"
            )
        if self.objection_weight and not (self.stages == "one_stage" and self.trains_preferences):
            raise self.build_range_error(
                "objection_weight", self.objection_weight, 'above 0 only with stages="one_stage" and preference_epochs'
            )
