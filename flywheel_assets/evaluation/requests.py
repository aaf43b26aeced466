"""Defines the evaluation's request and report; free of torch, and without any user text."""

from enum import StrEnum
from typing import Literal

import msgspec

from flywheel_assets.promotion.text_limits import Evidence

REPORT_FILE = "evaluation.json"
ROWS_FILE = "rows.parquet"


class Scored(StrEnum):
    """The models that are scored on the same rows."""

    BASE = "base"
    SFT = "sft"
    CHAMPION = "champion"
    CHALLENGER = "challenger"


class Stratum(StrEnum):
    """The question that a row answers."""

    PRIMARY = "primary"
    """Held out, new since the champion's version, prompt unknown to both: the basis of the decision."""
    OLDER = "older"
    """Held out already for the champion's version: must not get worse."""
    SEEN_PROMPT = "seen_prompt"
    """Held out, but one of the models was trained on the same normalized prompt: shown only."""
    REGRESSION = "regression"
    """Outputs that held-out people accepted unedited: they must stay right."""


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation; champion_* are None together before the first promotion."""

    export_dir: str
    """Export of the version that the challenger was trained on."""
    manifest_sha256: str
    base_model: str
    sft_adapter: str
    challenger_adapter: str
    champion_version: str | None = None
    champion_export_dir: str | None = None
    champion_adapter: str | None = None
    output_dir: str
    """Appears by one rename."""
    work_dir: str
    """Only error.json is written there."""
    batch_size: int = 32
    """Prompts generated for at once; likelihoods take a quarter of it."""
    max_new_tokens: int = 1024
    """Rows whose reference is longer are left out and counted."""
    fall_tolerance_nats: float = 0.1
    """A chosen text has fallen when its log p is lower by more: bf16 alone moves it by some hundredths."""
    bootstrap_draws: int = 4000
    """Resamples of the held-out subjects behind the interval of the gain."""
    canary_least_rows: int = 5
    """Generations that must share a new phrase before it is looked at."""
    cpu_threads: int = 1
    """Threads of torch on a CPU; more pay for large models on idle cores only."""
    device: Literal["auto", "cpu"] = "auto"


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one stratum; means over rows."""

    rows: int
    subjects: int
    ned: float
    """Normalized edit distance of the greedy generation to the user's text; 0 = equal."""
    zero_edit: float
    """Share of generations that equal the user's text."""
    missing_end: float
    """Share of generations that never ended."""
    log_p_chosen: float
    """Of the user's text with its end token, in nats."""
    delta_log_p_chosen: float
    """Against the incumbent, in nats."""
    chosen_fallen: float
    """Share of rows whose log p(chosen) is lower than the incumbent's by more than the tolerance."""
    length_ratio: float
    """Code points of the generation over those of the user's text."""
    repetition: float
    """Share of word pairs that repeat earlier ones."""
    reward_accuracy: float | None
    """Share of pairs that it prefers more than the base does. Shown, never decisive: collapsed models reach 1.00."""


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of every model on the same rows, and the evidence for the promotion gate."""

    request_sha256: str
    """Digest of rows, base, adapters and settings, without the champion."""
    manifest_sha256: str
    champion_version: str | None
    champion_sha256: str | None
    """Weights of the champion's adapter."""
    base_weights_sha256: str
    challenger_sha256: str
    sft_sha256: str
    rows_sha256: str
    """Of rows.parquet."""
    rows_left_out: int
    """Rows whose prompt or reference is too long for the model or for `max_new_tokens`."""
    scores: dict[Scored, dict[Stratum, Scores]]
    """By model and stratum; strata without rows are absent."""
    evidence: Evidence
    seconds: float
    device: str

    def list_primary_ned(self) -> dict[str, float]:
        """Mean NED on primary rows by model."""
        return {model.value: by[Stratum.PRIMARY].ned for model, by in self.scores.items() if Stratum.PRIMARY in by}

    def list_metrics(self) -> dict[str, float]:
        """Return every score as `<stratum>/<model>/<score>`, and the interval of the gain, for a tracking server."""
        flat = {
            f"{stratum}/{model}/{name}": float(value)
            for model, by_stratum in self.scores.items()
            for stratum, scores in by_stratum.items()
            for name, value in msgspec.structs.asdict(scores).items()
            if value is not None
        }
        gain = self.evidence.ned_gain
        bounds = {"mean": gain.mean, "low": gain.low, "high": gain.high, "subjects": float(gain.clusters)}
        if self.evidence.canary_ratio is not None:
            flat["canary_ratio"] = self.evidence.canary_ratio
        return flat | {f"ned_gain/{name}": value for name, value in bounds.items() if value is not None}
