"""Configures one application per deployed model, typed and with safe defaults.

`PreferenceApplication` and `ClassificationApplication` add the settings of their kind of flywheel to
`FlywheelApplication`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.lake.daily.mine_days import compute_mining_lookback
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    FEEDBACK_SUMMARY,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    ApplicationTables,
)
from flywheel_assets.lake.upkeep.maintenance import MaintenanceRules
from flywheel_assets.lake.versions.example_versions import ExampleRules
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.rollout.traffic import RolloutPlan
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets.promotion.text_limits import PromotionLimits
from flywheel_assets.ranges import Checked, Count, CountOrZero, Name, NotNegative, Positive, Share
from flywheel_assets.screening.paired_judge import PairedJudge
from flywheel_assets.stores import Stores
from flywheel_assets.training.recipes import AdapterRecipe

# It names folders, Iceberg namespaces, MLflow models and URL paths.
APPLICATION_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}\Z")
# Dagster's rules for owners and tags, so that a mistake is refused here, in our words, before Dagster is loaded.
_OWNER = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+)\Z")
_TAG_KEY = re.compile(r"(?:[A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}\Z")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}\Z")


@dataclass(frozen=True, kw_only=True)
class Retries(Checked):
    """Limits the attempts to run a version again whose run failed transiently."""

    max_transient_attempts: Count = 4
    """A version whose run failed transiently is run again until this many attempts failed in a row."""
    retry_backoff_s: NotNegative = 60.0
    """Pause before the second attempt; it doubles with every further one."""


@dataclass(frozen=True, kw_only=True)
class Trigger(Retries):
    """Decides when a new gold version of preference pairs is cut and trained: both thresholds must be reached."""

    min_new_pairs: CountOrZero = 5_000
    """Training pairs that the last successfully trained version did not hold."""
    min_new_partitions: CountOrZero = 1
    """Closed gold days that it did not cover."""
    only_decidable: bool = True
    """Wait until enough held-out people would judge the version; False: train also what can not be promoted."""


@dataclass(frozen=True, kw_only=True)
class ExampleTrigger(Retries):
    """Decides when a new gold version of hard examples is cut and trained: the first valid reason counts."""

    min_new_positives: CountOrZero = 100
    """New matured positives, together with …"""
    min_new_hard_examples: CountOrZero = 200
    """… new discrepancies that the last successfully trained version did not hold."""
    min_calibration_ratio: NotNegative = 0.8
    """Σp / Σy of the served scores below this …"""
    max_calibration_ratio: NotNegative = 1.25
    """… or above this is a reason of its own, …"""
    calibration_days: Count = 28
    """… measured on this many matured days, …"""
    min_calibration_positives: CountOrZero = 100
    """… with at least so many positives among them."""
    max_age_days: Count | None = 7
    """Closed days since those of the last training that are a reason by themselves; None: age is no reason. A week of
    newer rows is worth more than most gains in recipe, and a refit costs seconds."""
    maintenance_pause_days: CountOrZero = 7
    """Closed days since the last training that calibration and age must wait for. Without them a nearly equal
    challenger would follow every day on one that was not promoted."""
    only_decidable: bool = True
    """Wait until the evaluation weeks hold enough positives; False: train also what can not be promoted."""

    def _check_together(self) -> None:
        if not self.min_calibration_ratio <= self.max_calibration_ratio:
            valid = f"at most max_calibration_ratio, here {self.max_calibration_ratio!r}: every ratio would be a reason"
            raise self.build_range_error("min_calibration_ratio", self.min_calibration_ratio, valid)


@dataclass(frozen=True, kw_only=True)
class PromotionHook(Checked):
    """Announces each change of the serving models to the serving side; it runs after the alias has moved.

    A promotion, a change of shares, a rollback and a rollback to the base model give one event each, in the schema of
    docs/rollout_event.schema.json.
    """

    command: tuple[str, ...] = ()
    """Run without a shell; the event is its standard input, as JSON."""
    webhook: str | None = None
    """URL that gets the event as a JSON POST, for instance a bridge to vLLM's /v1/load_lora_adapter. It is signed as a
    Standard Webhook where FLYWHEEL_PROMOTION_WEBHOOK_SECRET is set, and tried three times under one id."""
    timeout_s: Positive = 60.0


@dataclass(frozen=True, kw_only=True)
class MlflowTraceSource(Checked):
    """Reads the traces of an MLflow experiment, and what people say about them, into an application.

    Credentials of the server come from MLflow's own environment variables, for instance MLFLOW_TRACKING_TOKEN.
    """

    experiment: Name
    """The experiment's name in MLflow."""
    tracking_uri: str | None = None
    """MLflow's tracking server; None: that of `FLYWHEEL_MLFLOW_URI`."""
    name: str = "mlflow_traces"
    """Lower-case word: names the asset, its job and its schedule; two sources of an application need two."""
    every_minutes: Literal[1, 2, 3, 5, 10, 15, 20, 30, 60] = 5
    """How often it reads."""
    since: date | None = None
    """The first day of traces that are read, UTC; None: the application's first day."""
    reread_days: Count = 30
    """Feedback is found on traces that began at most this many days before the last complete reading: MLflow can list
    traces by the time when they began only, not by the time when they changed."""
    max_traces: Count = 10_000
    """New and changed traces of one run at most; the next run goes on."""

    def _check_together(self) -> None:
        if not APPLICATION_NAME.match(self.name):
            raise self.build_range_error("name", self.name, f"a name that matches {APPLICATION_NAME.pattern}")
        if self.tracking_uri is not None and urlsplit(self.tracking_uri).password is not None:
            # Not quoted: an error's text goes into logs.
            raise self.build_range_error(
                "tracking_uri",
                "an address with a password",
                "an address without; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
            )


@dataclass(frozen=True, kw_only=True)
class FlywheelApplication(Checked, ABC):
    """Describes the deployed model that either kind of flywheel improves."""

    name: str
    """Lower-case word; names its asset keys, Iceberg namespace, MLflow model and capture path."""
    description: str
    """One sentence for the UI."""
    start_date: date
    """First partition: the first day for which events may be landed (UTC)."""
    window: JoinWindow = field(default_factory=JoinWindow)
    on_promotion: PromotionHook = field(default_factory=PromotionHook)
    rollout: RolloutPlan = field(default_factory=RolloutPlan)
    maintenance: MaintenanceRules = field(default_factory=MaintenanceRules)
    review_sample_rows: CountOrZero = 50
    """Rows of the last four weeks of gold, drawn by chance, that reviewers are shown; 0: none. Their decisions give the
    error rate of gold on the page of the wheel."""
    owners: Sequence[str] = ()
    """Of its assets in the UI: e-mail addresses, or teams as `team:payments`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of its assets in the UI, to filter by: `{"domain": "payments"}`."""

    @property
    @abstractmethod
    def tables(self) -> ApplicationTables:
        """The tables of its daily assets."""

    @property
    @abstractmethod
    def version_prefix(self) -> str:
        """The prefix of its gold versions' names, before the number."""

    @property
    @abstractmethod
    def gold_lookback_days(self) -> Mapping[str, int]:
        """Per input of the gold table the days before D that its partition D reads."""

    @property
    def join_lookback_days(self) -> int:
        """Days before D on which the joined rows of D depend."""
        return self.window.compute_lookback_days(is_text=self.tables.is_text)

    @property
    def score_contract(self) -> ScoreContract | None:
        """The classifier's declaration of its events; None: predictions are texts."""
        return None

    @property
    def staleness_lookback_days(self) -> Mapping[str, Mapping[str, int]]:
        """Per derived table its inputs, with the days before D that its partition D reads."""
        raw = (self.tables.predictions.name, GROUND_TRUTH.name)
        return {
            self.tables.joined.name: dict.fromkeys(raw, self.join_lookback_days),
            self.tables.gold.name: self.gold_lookback_days,
        }

    def _check_together(self) -> None:
        if not APPLICATION_NAME.match(self.name):
            raise self.build_range_error("name", self.name, f"a name that matches {APPLICATION_NAME.pattern}")
        for owner in self.owners:
            if not _OWNER.match(owner):
                raise self.build_range_error(
                    "owners", owner, 'an e-mail address or a team, as in ("team:payments", "ada@example.com")'
                )
        for key, value in self.tags.items():
            if not (_TAG_KEY.match(key) and _TAG_VALUE.match(value)):
                raise self.build_range_error(
                    "tags",
                    {key: value},
                    "at most 63 letters, digits, '_', '-' and '.' each, as in {'domain': 'payments'}",
                )


@dataclass(frozen=True, kw_only=True)
class PreferenceApplication(FlywheelApplication):
    """The preference flywheel of one deployed assistant."""

    base_model: str
    """Path or hub id of the frozen base model; a bare name is looked up in the models folder."""
    gate: GateRules = field(default_factory=GateRules)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    resolution: ResolutionRules = field(default_factory=ResolutionRules)
    trigger: Trigger = field(default_factory=Trigger)
    recipe: AdapterRecipe = field(default_factory=AdapterRecipe)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    """How champion and challenger are scored: batches, device, samples, a cap of rows, and a server that generates."""
    limits: PromotionLimits = field(default_factory=PromotionLimits)
    judge: PairedJudge | None = None
    """Compares the answers of challenger and incumbent, if it agrees with held-out people's own choices; None: none."""
    watch: WatchLimits | None = field(default_factory=WatchLimits)
    """How the model that serves is compared with its predecessor on the same days' people; None: it is not."""
    sources: Sequence[MlflowTraceSource] = ()
    """Systems that its events are read from, in addition to what arrives at the capture service."""

    @property
    def tables(self) -> ApplicationTables:
        """The tables of its daily assets."""
        return PREFERENCE_TABLES

    @property
    def version_prefix(self) -> str:
        """The prefix of its gold versions' names, before the number."""
        return "dpo_gold_v"

    @property
    def gold_lookback_days(self) -> Mapping[str, int]:
        """A day of pairs reads the same day of joined feedback, and the row counts of the days before."""
        return {JOINED_FEEDBACK.name: self.breaker.trailing_days}

    @property
    def staleness_lookback_days(self) -> Mapping[str, Mapping[str, int]]:
        """Those of every application, and the summary's: it reads the same day."""
        return {**super().staleness_lookback_days, FEEDBACK_SUMMARY.name: {JOINED_FEEDBACK.name: 0}}

    def __post_init__(self) -> None:
        """Let versions export the objections that the recipe learns from, then check the fields."""
        if self.recipe.objection_weight:
            object.__setattr__(self, "resolution", replace(self.resolution, confirmed_objections=True))
        super().__post_init__()

    def _check_together(self) -> None:
        super()._check_together()
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise self.build_range_error("sources", names, "a `name` of its own for each source")


@dataclass(frozen=True, kw_only=True)
class ClassificationApplication(FlywheelApplication):
    """The classification flywheel of one deployed classifier."""

    contract: ScoreContract
    """Features, label words and field names of its events."""
    window: JoinWindow = field(default_factory=lambda: JoinWindow(join_days=180))
    """How far apart a prediction and its label may be. Card disputes take up to 120 days; a label that comes later
    than the window is joined, too, and reported as `label_after_window`."""
    mining: MiningRules = field(default_factory=MiningRules)
    breaker: LabelBreakerLimits = field(default_factory=LabelBreakerLimits)
    """Keeps the labels of an unusual day out of gold until a person has looked."""
    evaluation_weeks: Count = 2
    """Matured weeks after the training rows on which champion and challenger meet."""
    threshold: Share | None = 0.5
    """Score from which the application alerts or blocks; None: it acts on no threshold."""
    cards_per_day: Count = 100
    """Entities that people can look at per day: k of the precision at k."""
    trigger: ExampleTrigger = field(default_factory=ExampleTrigger)
    recipe: TrainerRecipe = field(default_factory=ClassifierRecipe)
    """How a classifier is trained: `ClassifierRecipe`, `TextClassifierRecipe`, or `CommandRecipe` for a team's own."""
    limits: ClassifierLimits = field(default_factory=ClassifierLimits)
    drift: DriftLimits = field(default_factory=DriftLimits)

    @property
    def tables(self) -> ApplicationTables:
        """The tables of its daily assets."""
        return CLASSIFICATION_TABLES

    @property
    def version_prefix(self) -> str:
        """The prefix of its gold versions' names, before the number."""
        return f"{self.name}_gold_v"

    @property
    def score_contract(self) -> ScoreContract:
        """The declaration that capture checks its events against."""
        return replace(self.contract, trusted_sources=self.mining.labels.trusted_sources)

    @property
    def examples(self) -> ExampleRules:
        """The rules that turn its examples into a version."""
        return ExampleRules(contract=self.contract, mining=self.mining, evaluation_weeks=self.evaluation_weeks)

    def _check_together(self) -> None:
        super()._check_together()
        if self.contract.classes and not isinstance(self.recipe, ClassifierRecipe):
            valid = "a ClassifierRecipe where contract.classes are declared: the other trainers learn two classes"
            raise self.build_range_error("recipe", type(self.recipe).__name__, valid)
        if self.contract.classes and self.recipe.recalibration != "none":
            valid = '"none" where contract.classes are declared: it corrects one score, not a probability of each class'
            raise self.build_range_error("recipe.recalibration", self.recipe.recalibration, valid)
        self.recipe.check_features({name: kind.value for name, kind in self.contract.features.items()})
        maturity_days, join_days = self.mining.maturity_days, self.window.join_days
        if maturity_days > join_days:
            valid = (
                f"at most window.join_days, here {join_days}: silence would become a negative after labels stopped "
                "joining; raise JoinWindow.join_days"
            )
            raise self.build_range_error("mining.maturity_days", maturity_days, valid)
        if self.evaluation_weeks < self.limits.min_weeks:
            valid = (
                f"at least limits.min_weeks, here {self.limits.min_weeks}: no version could ever have enough evidence"
            )
            raise self.build_range_error("evaluation_weeks", self.evaluation_weeks, valid)

    @property
    def gold_lookback_days(self) -> Mapping[str, int]:
        """A day of examples reads labels, silence, and the labelled predictions."""
        return compute_mining_lookback(self.window, self.mining, self.breaker)


_Application = TypeVar("_Application", bound=FlywheelApplication)


def begin_with_history(application: _Application, stores: Stores) -> _Application:
    """Return the application with its first day moved to where its imported history begins, if that is earlier.

    Every reader of `start_date` gets the application from here: `load_application` and the code location.
    """
    first = stores.find_first_day(application.name, application.start_date)
    return application if first == application.start_date else replace(application, start_date=first)
