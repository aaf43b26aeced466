"""Defines the request and report of a classifier's evaluation; free of lightgbm and of personal data."""

import msgspec

from flywheel_assets.measures.classifiers import CurvePoint, PrecisionAtK, ReliabilityBin, Scores
from flywheel_assets.promotion.classifier_limits import ClassifierEvidence
from flywheel_assets.records import make_stable_id

REPORT_FILE = "evaluation.json"
CHALLENGER, INCUMBENT = "challenger", "incumbent"


class ClassifierEvaluationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation; without a champion the scores that were served stand for the incumbent."""

    export_dir: str
    """Export of the version that the challenger was trained on; its evaluation rows are scored."""
    manifest_sha256: str
    challenger_dir: str
    """The trainer's result."""
    champion_version: str | None = None
    champion_dir: str | None = None
    threshold: float | None = None
    """Score from which the application acts."""
    cards_per_day: int = 100
    """k of the precision at k: entities that can be looked at per day."""
    bootstrap_draws: int = 1000
    output_dir: str
    """Appears by one rename."""
    work_dir: str
    """Only error.json is written there."""

    def compute_digest(self) -> str:
        """Hash everything that decides the result except the models' files."""
        return make_stable_id(
            "evaluation",
            self.manifest_sha256,
            self.champion_version,
            self.threshold,
            self.cards_per_day,
            self.bootstrap_draws,
        )


class ModelScores(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the evaluation rows."""

    overall: Scores
    by_week: dict[str, Scores]
    """Prequential: each week of the evaluation by itself, by its first day."""
    by_segment: dict[str, Scores]
    precision_at_k: PrecisionAtK
    alerts: int | None
    """Rows from the threshold on; None without a threshold."""
    curve: list[CurvePoint]
    reliability: list[ReliabilityBin]


class ClassifierEvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Challenger and incumbent on the same matured, unsampled rows, and the evidence for the promotion gate."""

    request_digest: str
    manifest_sha256: str
    challenger_sha256: str
    champion_version: str | None
    champion_sha256: str | None
    incumbent: str
    """"champion", or "deployed model" where the served scores stand for it."""
    rows: int
    scores: dict[str, ModelScores]
    """`challenger` and `incumbent`."""
    evidence: ClassifierEvidence
    seconds: float

    def list_metrics(self) -> dict[str, float]:
        """Return every number as `<model>/<score>`, for a tracking server."""
        flat: dict[str, float | None] = {}
        for model, each in self.scores.items():
            flat |= {f"{model}/{name}": value for name, value in vars(each.overall).items()}
            flat |= {f"{model}/precision_at_{each.precision_at_k.k}": each.precision_at_k.mean}
            flat |= {f"{model}/alerts": each.alerts}
            flat |= {f"{model}/ap_week_{week}": scores.average_precision for week, scores in each.by_week.items()}
        gain = self.evidence.ap_gain
        flat |= {"ap_gain/mean": gain.mean, "ap_gain/low": gain.low, "ap_gain/high": gain.high}
        return {name: float(value) for name, value in flat.items() if value is not None}
