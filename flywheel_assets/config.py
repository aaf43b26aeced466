"""Gathers every type that a team configures its application with, so that one import line finds them all.

`from flywheel_assets.config import …` is stable: the modules behind it may move. Importing it loads neither Dagster
nor a model library. The Dagster definitions of an application come from `flywheel_assets.defs.flywheels`.
"""

from flywheel_assets.application import (
    ClassificationApplication,
    ExampleTrigger,
    FlywheelApplication,
    MlflowTraceSource,
    PreferenceApplication,
    PromotionHook,
    Trigger,
)
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.discrepancies import DiscrepancyRules
from flywheel_assets.curation.labels.emphasis import EmphasisRules
from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits
from flywheel_assets.curation.labels.label_resolution import LabelRules
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.curation.policy.policy import Policy, build_default_policy
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import EditBands, GateRules
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.evaluation.options import EvaluationOptions, GenerationServer
from flywheel_assets.lake.upkeep.maintenance import MaintenanceRules
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.rollout.traffic import RolloutPlan
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.text_classifier import TextClassifierRecipe
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets.promotion.text_limits import PromotionLimits
from flywheel_assets.screening.paired_judge import PairedJudge
from flywheel_assets.training.recipes import AdapterRecipe

__all__ = [
    "AdapterRecipe",
    "BreakerLimits",
    "ClassificationApplication",
    "ClassifierLimits",
    "ClassifierRecipe",
    "CommandRecipe",
    "DiscrepancyRules",
    "DriftLimits",
    "EditBands",
    "EmphasisRules",
    "EvaluationOptions",
    "ExampleTrigger",
    "FeatureType",
    "FieldMapping",
    "FlywheelApplication",
    "GateRules",
    "GenerationServer",
    "JoinWindow",
    "LabelBreakerLimits",
    "LabelRules",
    "MaintenanceRules",
    "MiningRules",
    "MlflowTraceSource",
    "PairedJudge",
    "Policy",
    "PreferenceApplication",
    "PromotionHook",
    "PromotionLimits",
    "ResolutionRules",
    "RolloutPlan",
    "SamplingRules",
    "ScoreContract",
    "TextClassifierRecipe",
    "Trigger",
    "WatchLimits",
    "build_default_policy",
]
