"""Defines what the trainers' processes are asked for and what they report.

Free of torch and lightgbm, so that a code location can import it.
"""

from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.errors import DamagedFileError
from flywheel_assets.lake.storage.files import decode_file
from flywheel_assets.lake.storage.schema_versions import read_version, refuse_newer
from flywheel_assets.lake.versions.folders import TRAINING_REPORT
from flywheel_assets.models.own_process import advise_on_report
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.records import make_stable_id
from flywheel_assets.training.recipes import AdapterRecipe, add_younger_fields

REPORT_FILE = TRAINING_REPORT
REFERENCE_FILE = "reference.json"
SCORE = "score"
"""The name of the score among the drift reference's fields."""


class TrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One training: everything that decides its result, and where files go."""

    application: str
    version: str
    export_dir: str
    """Folder of the gold version's export."""
    manifest_sha256: str
    """The export is refused when its manifest, or a file under it, is another one."""
    base_model: str
    """Path or hub id of the frozen base model."""
    recipe: AdapterRecipe
    output_dir: str
    """Appears by one rename when everything is done."""
    work_dir: str
    """Checkpoints and error.json; the trainer deletes its files there at the end."""
    fold: int | None = None
    """Of a cross-fitted version, from 1: learn from the rows of this fold's model; None: from the training rows."""


class RowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of exported rows: exported = used + kept back, for pairs, accepted outputs and demonstrations.

    For objections, too, where the recipe weighs them; else none is used or kept back.
    """

    pairs_exported: int
    accepted_exported: int
    pairs_used: int
    accepted_used: int
    pairs_kept_back: int
    """Of subjects kept out of training, to choose between the stages."""
    accepted_kept_back: int
    demonstrations_exported: int = 0
    demonstrations_used: int = 0
    demonstrations_kept_back: int = 0
    winners_not_written: int = 0
    """Of the pairs used: comparisons whose winner is preferred only, because people did not accept its text."""
    objections_exported: int = 0
    objections_used: int = 0
    objections_kept_back: int = 0


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One finished stage."""

    steps: int
    resumed_from_step: int
    """0: it ran in one go."""
    loss: float
    """Mean over the steps of the process that finished it."""
    seconds: float
    """Wall time of that process."""
    micro_batch: int | None = None
    """Rows that went through the model at once, after halving where memory was too small; None: an older report."""


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that one step of a stage is estimated to need, in bytes (see `memory`)."""

    sequences: int
    """Of one batch; a pair is two."""
    tokens: int
    """Of the longest sequence, to which the others are padded."""
    weights_bytes: int
    """Of the frozen base."""
    adapter_bytes: int
    """Of the adapter, its gradients and the optimizer's state."""
    activations_bytes: int
    logits_bytes: int
    """Of the output layer's buffers."""

    @property
    def total_bytes(self) -> int:
        """Everything at once."""
        return self.weights_bytes + self.adapter_bytes + self.activations_bytes + self.logits_bytes

    def describe(self, free_bytes: int | None) -> str:
        """Say in a sentence what is needed for what, and how much is free."""
        parts = (
            (self.weights_bytes, "weights"),
            (self.adapter_bytes, "adapter and optimizer"),
            (self.activations_bytes, "activations"),
            (self.logits_bytes, "logits"),
        )
        listed = ", ".join(f"{name} {_to_gib(size)}" for size, name in parts)
        free = "" if free_bytes is None else f"; {_to_gib(free_bytes)} are free"
        return (
            f"{self.sequences} sequences of {self.tokens} tokens are estimated to need {_to_gib(self.total_bytes)} "
            f"({listed}){free}."
        )


class TimeEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a stage is estimated to take (see `duration`)."""

    steps: int
    """Of the optimizer."""
    tokens: int
    """That go through the model in all epochs, padding included."""
    flops: float
    """Floating-point operations, forward and backward."""
    seconds: float | None
    """None: too little work to be worth a calibration, or none fitted into memory."""
    flops_per_s: float | None
    source: str | None
    """Of the throughput: "calibration" or "recipe"."""

    def describe(self) -> str:
        """Say in a sentence what there is to do, and how long it is expected to take."""
        work = f"{self.steps:,} steps over {self.tokens:,} tokens ({self.flops / 1e12:,.3g} TFLOP)"
        if self.seconds is None or self.flops_per_s is None:
            return f"{work}; the time is not estimated."
        return (
            f"{work} are estimated to take {_describe_seconds(self.seconds)} at {self.flops_per_s / 1e12:.3g} TFLOP/s "
            f"({self.source}), without loading, reference values and the comparison of the stages."
        )


def _describe_seconds(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _to_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


class SelectionScore(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one stage's adapter on the rows that compare the stages (see `_selection`)."""

    ned: float
    """Mean normalized edit distance of greedy generations to the users' texts, on pairs kept back."""
    missing_end: float
    """Share of those generations that never ended."""
    accepted_ned: float | None
    """The same on accepted outputs of the training data; None where there are none."""
    accepted_missing_end: float | None
    accepted_fallen: float | None
    """Share of those whose log p is lower than under the SFT adapter by more than the tolerance."""
    wrong_answers: float | None = None
    """Share of answers, sampled on pairs kept back, that still say what people had corrected; None: not sampled."""


class AdapterCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """Says which weight matrices of the base the adapter changes, without norms, biases and embeddings."""

    adapted: dict[str, int]
    """Matrices with an adapter by their name without the layer's number: {"self_attn.q_proj": 32}."""
    left_alone: dict[str, int]
    """Parameters of the matrices without one, by their name: {"experts.gate_up_proj": 1990656000}."""
    share_left_alone: float
    """Share of all these parameters."""

    def describe(self) -> str:
        """Say in one sentence what the adapter leaves alone."""
        if not self.left_alone:
            return "The adapter covers every linear layer of the base."
        return (
            f"The adapter leaves {self.share_left_alone:.0%} of the base's weights alone, embeddings not counted: "
            f"{', '.join(self.left_alone)}."
        )


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a finished training, its rows, and the stage whose adapter is the challenger."""

    application: str
    version: str
    request_sha256: str
    """Digest of data, base weights and recipe; a finished output answers no other request."""
    manifest_sha256: str
    base_model: str
    base_weights_sha256: str
    recipe: AdapterRecipe
    chosen_stage: str
    """"sft", "preference" or "one_stage": whose adapter is the challenger."""
    why: str
    """One sentence on the choice of the stage."""
    rows: RowCounts
    stages: dict[str, StageReport]
    selection: dict[str, SelectionScore]
    """By stage; empty where nothing was compared."""
    delta_rows: int
    """Training pairs whose change of log p is recorded in deltas.parquet."""
    mean_delta_chosen: float
    """Mean change of log p(chosen), challenger − base, over those pairs, in nats."""
    mean_delta_rejected: float
    share_chosen_fallen: float
    """Share of those pairs whose chosen text became less likely."""
    adapter_sha256: str
    sft_adapter_sha256: str
    seconds: float
    """Wall time of the process that finished."""
    device: str
    libraries: dict[str, str]
    coverage: AdapterCoverage | None = None
    """None: an older report."""
    memory: dict[str, MemoryEstimate] = {}
    """By stage, estimated before it began; empty in older reports and where the steps depend on data."""
    time: dict[str, TimeEstimate] = {}
    """As `memory`."""
    fold: int | None = None
    """Of a cross-fitted version: the fold whose users the adapter has not seen; None: it saw all training rows."""
    schema_version: int = 1

    def compute_time_ratios(self) -> dict[str, float]:
        """Compute actual over estimated seconds by stage, of those that were estimated and ran in one go."""
        return {
            stage: report.seconds / estimate.seconds
            for stage, report in self.stages.items()
            if (estimate := self.time.get(stage)) is not None and estimate.seconds and not report.resumed_from_step
        }

    def describe_time(self) -> str:
        """Say in one sentence how long the stages took, and how long they were estimated to take."""
        ratios = self.compute_time_ratios()
        parts = [
            f"{stage} {_describe_seconds(report.seconds)}"
            + (f" ({ratios[stage]:.2f} of the estimate)" if stage in ratios else "")
            for stage, report in self.stages.items()
        ]
        return f"{', '.join(parts)}; {_describe_seconds(self.seconds)} in all."

    @property
    def pairs_used(self) -> int:
        """Pairs trained on."""
        return self.rows.pairs_used

    @property
    def accepted_used(self) -> int:
        """Accepted outputs trained on."""
        return self.rows.accepted_used

    def to_parameters(self) -> dict[str, str | int | float]:
        """Return the run's parameters for a tracking server: the recipe and its data."""
        recipe = {
            name: value if isinstance(value, int | float) else str(value) for name, value in vars(self.recipe).items()
        }
        return {
            **recipe,
            "pairs_used": self.pairs_used,
            "accepted_used": self.accepted_used,
            "base_weights_sha256": self.base_weights_sha256,
            "trained_on_device": self.device,
        }


def read_training_report(report_file: Path) -> TrainingReport:
    """Read an adapter trainer's report of this release or an older one.

    Raises:
        DamagedFileError: the file holds something else.
        NewerReleaseError: a newer release wrote it.
    """
    found = decode_file(report_file, dict[str, Any], advise_on_report(report_file))
    refuse_newer(found.get("schema_version", 1), read_version(TrainingReport) or 1, str(report_file))
    try:
        return msgspec.convert({**found, "recipe": add_younger_fields(found.get("recipe", {}))}, TrainingReport)
    except msgspec.ValidationError as error:
        raise DamagedFileError(f"{report_file} is damaged ({error}): {advise_on_report(report_file)}") from None


def follow_finished(request: TrainingRequest, content: bytes) -> TrainingRequest:
    """Return what a request would have been in the release that wrote a finished training's report.

    Raises:
        msgspec.DecodeError: the report is damaged.
    """
    recorded = msgspec.json.decode(content, type=dict[str, Any]).get("recipe", {})
    return msgspec.structs.replace(request, recipe=request.recipe.follow_recorded(recorded))


class ClassifierTrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One training of a classifier."""

    application: str
    version: str
    export_dir: str
    manifest_sha256: str
    recipe: TrainerRecipe
    output_dir: str
    """Appears by one rename."""
    work_dir: str
    """For error.json, and for the files of a trainer that is a command."""
    earlier_dir: str | None = None
    """Result of the training before this one. A judged model that was fitted there on the same rows by the same recipe
    is taken over; it decides nothing, so it is not in the digest."""

    def compute_digest(self) -> str:
        """Hash everything that decides the result."""
        return make_stable_id("classifier", self.manifest_sha256, self.recipe.describe())


class FitReport(msgspec.Struct, frozen=True, kw_only=True):
    """One fitted model and its rows."""

    rows: int
    positives: int
    model_sha256: str
    seconds: float
    """Of fitting, wall time; of an earlier training where the model was taken over from there."""
    rows_sha256: str | None = None
    """Of the exported file that holds the rows; None: they are no file of their own."""


class ClassifierTrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one training and its data: of the refit, and of the judged model where there are two."""

    application: str
    version: str
    request_sha256: str = msgspec.field(name="request_digest")
    """Digest of everything that decides the result; a finished output answers no other request."""
    manifest_sha256: str
    recipe: TrainerRecipe
    rows: int
    positives: int
    hard_examples: int
    """Rows with a discrepancy, of either class."""
    rows_stood_for: float
    """Sum of the sample weights: the rows that the sample represents."""
    gains: dict[str, float]
    """Share of each feature's splits in the fall of the training loss, largest first."""
    model_sha256: str
    seconds: float
    """Of fitting, wall time."""
    judged: FitReport | None = None
    """The model that is tested on the newest block of evaluation weeks; None: the export had no rows for a refit, and
    `model` is it."""
    blocks: dict[str, str] = msgspec.field(default_factory=dict)
    """The judged models' folders by the first day, ISO, that each is tested on; it knows only what was known before."""
    judged_fits: dict[str, FitReport] = msgspec.field(default_factory=dict)
    """The judged models by folder, the newest included."""
    stand_ins: list[FitReport] = msgspec.field(default_factory=list)
    """The models that stand for the refit on the evaluation weeks, by fold."""
    schema_version: int = 1

    def to_parameters(self) -> dict[str, str | int | float]:
        """Return the run's parameters for a tracking server: the recipe and its data."""
        judged = {} if self.judged is None else {"judged_rows": self.judged.rows}
        return {
            **judged,
            **self.recipe.list_parameters(),
            "rows": self.rows,
            "positives": self.positives,
            "hard_examples": self.hard_examples,
        }
