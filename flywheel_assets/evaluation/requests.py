"""Defines the requests and reports of both evaluations: of an adapter and of a classifier.

It needs neither torch nor lightgbm, and no report holds a user's text.
"""

from enum import StrEnum

import msgspec

from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.measures import classifiers
from flywheel_assets.measures.texts import Interval
from flywheel_assets.models.rendering import Rendering
from flywheel_assets.promotion.classifier_evidence import ClassifierEvidence, MultiClassEvidence
from flywheel_assets.promotion.refit import RefitEvidence
from flywheel_assets.promotion.text_limits import Evidence
from flywheel_assets.records import make_stable_id
from flywheel_assets.screening.paired_judge import PairedJudge

REPORT_FILE = "evaluation.json"
ROWS_FILE = "rows.parquet"
CHALLENGER, INCUMBENT = "challenger", "incumbent"
"""The two models of a classifier's report."""


class Scored(StrEnum):
    """The models that are scored on the same rows."""

    BASE = "base"
    SFT = "sft"
    CHAMPION = "champion"
    ANCHOR = "anchor"
    """The champion that was promoted last by a proven gain, where it does not serve any more."""
    CHALLENGER = "challenger"
    DEPLOYED = "deployed"
    """Of a cross-fit: the adapter that would serve. It has learnt the rows, so it is only held against the challenger,
    which is the adapters that have not seen them."""


class Stratum(StrEnum):
    """The question that a row answers."""

    PRIMARY = "primary"
    """Held out, new since the champion's version, prompt unknown to both: the basis of the decision."""
    OLDER = "older"
    """Held out already for the champion's version: must not get worse."""
    SEEN_PROMPT = "seen_prompt"
    """Held out, but one of the models was trained on the same prompt, or the challenger on nearly the same: shown only.

    The operator's text does not count: a date in it makes no prompt new.
    """
    REGRESSION = "regression"
    """Outputs that held-out people accepted unedited: they must stay right."""


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a stratum that were scored, where there were more than `max_rows`."""

    rows: int
    of_rows: int
    subjects: int
    """All who had rows in it."""
    days: int
    of_days: int
    least_probability: float
    """Of a row to be in: the smallest of any person's; 1 where all rows are scored."""


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
    anchor_version: str | None = None
    """Version that was promoted last by a proven gain; it may be the champion's."""
    anchor_export_dir: str | None = None
    """Of the anchor, where it is another version than the champion's; as the next."""
    anchor_adapter: str | None = None
    challenger_folds: str | None = None
    """Folder of the results of a cross-fit's folds (`fold_1` and so on). Each row is judged by the adapters of its
    user's fold there; those above are the deployed ones. None: the only ones judge all rows. As the next two."""
    champion_folds: str | None = None
    anchor_folds: str | None = None
    output_dir: str
    """Appears by one rename."""
    work_dir: str
    """For error.json, and for the answers that are written already: a killed evaluation goes on from them."""
    rendering: Rendering = Rendering()
    """Of the challenger's recipe: the prompts that serving sends."""
    options: EvaluationOptions = EvaluationOptions()
    """Of the application."""
    server_key_file: str | None = None
    """Holds the bearer token of the server that generates."""
    fall_tolerance_nats: float = 0.1
    """A chosen text has fallen when its log p is lower by more: bf16 alone moves it by some hundredths."""
    bootstrap_draws: int = 4000
    """Random weightings of the held-out subjects behind the interval that is shown."""
    judge: PairedJudge | None = None
    """Compares the answers of challenger and incumbent, if it agrees with held-out people; None: none does."""
    canary_least_rows: int = 5
    """Generations that must share a new phrase before it is looked at."""


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
    wrong_answer_rate: float | None = None
    """Share of answers, sampled as the product samples, that still say what the user corrected; mean over subjects.

    None: not sampled. See `measures.texts.find_corrected`.
    """


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
    wrong_answers: dict[Scored, Interval] = {}
    """Rate of wrong answers on primary rows by sampled model, mean over subjects; empty in older reports."""
    wrong_answer_fall: Interval | None = None
    """Incumbent − challenger, paired by row. Shown, never decisive."""
    inclusion: dict[Stratum, Inclusion] = {}
    """The scored share of each stratum; empty in older reports, which scored all rows."""
    generated_by: str = "evaluator"
    """"server" where the answers came from the application's `GenerationServer`."""
    answers_taken_over: int = 0
    """Answers that a killed evaluation of the same request had written before."""
    schema_version: int = 1

    def describe_rows(self) -> str:
        """Say in one sentence how many held-out rows were scored."""
        scored, there = (sum(getattr(each, name) for each in self.inclusion.values()) for name in ("rows", "of_rows"))
        if not self.inclusion or scored == there:
            return "All held-out rows were scored."
        return (
            f"{scored:,} of {there:,} held-out rows were scored, in proportion to people and days, every judge among "
            "them; evaluation.max_rows changes that."
        )

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
        if (wins := self.evidence.likelihood.gain) is not None:
            flat["likelihood_gain"] = wins.mean
        if (cross_fit := self.evidence.cross_fit) is not None:
            flat["deployed_lost"] = cross_fit.deployed_lost.mean
        if self.evidence.canary_ratio is not None:
            flat["canary_ratio"] = self.evidence.canary_ratio
        found = {f"ned_gain/{name}": value for name, value in bounds.items()}
        sampled = {f"wrong_answer_rate/{model}": interval for model, interval in self.wrong_answers.items()}
        if self.wrong_answer_fall is not None:
            sampled["wrong_answer_fall"] = self.wrong_answer_fall
        for name, interval in sampled.items():
            found |= {f"{name}/mean": interval.mean, f"{name}/low": interval.low, f"{name}/high": interval.high}
        return flat | {name: value for name, value in found.items() if value is not None}


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
    """Score from which the application acts now."""
    alerts_per_day: float | None = None
    """Alerts that people can handle; None: as many as the incumbent gives from `threshold` on."""
    min_segment_positives: int = 50
    """Segments with fewer known positives get no interval."""
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
            self.alerts_per_day,
            self.min_segment_positives,
            self.cards_per_day,
            self.bootstrap_draws,
        )


class ModelScores(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the evaluation rows."""

    overall: classifiers.Scores
    by_week: dict[str, classifiers.Scores]
    """Prequential: each week of the evaluation by itself, by its first day."""
    by_segment: dict[str, classifiers.Scores]
    precision_at_k: classifiers.PrecisionAtK
    alerts: int | None
    """Rows from the live threshold on; None without one."""
    curve: list[classifiers.CurvePoint]
    reliability: list[classifiers.ReliabilityBin]


class ClassifierEvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Challenger and incumbent on the same matured, unsampled rows, and the evidence for the promotion gate.

    The challenger is the version's judged model, a champion's is its version's: both are what they were before the
    evaluation weeks began.
    """

    request_sha256: str = msgspec.field(name="request_digest")
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
    refit: RefitEvidence | None = None
    """Of the model that is deployed in place of the judged one; None: there is none."""
    seconds: float
    schema_version: int = 1

    def list_metrics(self) -> dict[str, float]:
        """Return every number as `<model>/<score>`, for a tracking server."""
        flat: dict[str, float | None] = {}
        for model, each in self.scores.items():
            flat |= {f"{model}/{name}": value for name, value in vars(each.overall).items()}
            flat |= {f"{model}/precision_at_{each.precision_at_k.k}": each.precision_at_k.mean}
            flat |= {f"{model}/alerts": each.alerts}
            flat |= {f"{model}/ap_week_{week}": scores.average_precision for week, scores in each.by_week.items()}
        evidence = self.evidence
        gains: dict[str, Interval | None] = {
            "ap_gain": evidence.ap_gain,
            "calibration": evidence.calibration,
            "value_ap_gain": evidence.value_ap_gain,
        }
        if evidence.alerts is not None:
            gains |= {"capture_gain": evidence.alerts.capture_gain, "value_gain": evidence.alerts.value_gain}
            for model, capture in ((CHALLENGER, evidence.alerts.challenger), (INCUMBENT, evidence.alerts.incumbent)):
                flat |= {f"{model}/{name}_at_budget": value for name, value in vars(capture).items()}
        if self.refit is not None:
            flat["refit/score_shift"] = self.refit.score_shift
            flat["refit/average_precision"] = self.refit.against_judged.average_precision
            gains |= {
                "refit_ap_gain": self.refit.against_judged.ap_gain,
                "refit_calibration": self.refit.against_judged.calibration,
            }
        if evidence.classes is not None:
            gains["macro_ap_gain"] = evidence.classes.macro_ap_gain
            flat |= _list_class_metrics(evidence.classes)
        for name, gain in gains.items():
            if gain is not None:
                flat |= {f"{name}/mean": gain.mean, f"{name}/low": gain.low, f"{name}/high": gain.high}
        return {name: float(value) for name, value in flat.items() if value is not None}


_MOST_LOGGED_CLASSES = 10
"""Classes up to which each cell of the confusion matrix is a metric; of more there are too many to look at."""


def _list_class_metrics(found: MultiClassEvidence) -> dict[str, float | None]:
    flat: dict[str, float | None] = {
        f"{CHALLENGER}/macro_average_precision": found.macro_average_precision,
        f"{INCUMBENT}/macro_average_precision": found.incumbent_macro_average_precision,
    }
    for each in found.by_class:
        flat[f"{CHALLENGER}/ap_class_{each.segment}"] = each.average_precision
        flat[f"{INCUMBENT}/ap_class_{each.segment}"] = each.incumbent_average_precision
    if len(found.names) > _MOST_LOGGED_CLASSES:
        return flat
    for model, matrix in ((CHALLENGER, found.confusion), (INCUMBENT, found.incumbent_confusion)):
        for true, row in zip(found.names, matrix, strict=True):
            flat |= {f"{model}/{true} as {said}": rows for said, rows in zip(found.names, row, strict=True)}
    return flat
