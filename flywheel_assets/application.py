"""What a platform team configures: one `PreferenceApplication` per deployed assistant, typed and with safe defaults."""

import re
from dataclasses import dataclass, field
from datetime import date

from flywheel_assets.curation.pairs import GateRules
from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.errors import SettingsError
from flywheel_assets.gate import PromotionLimits
from flywheel_assets.joining import JoinWindow
from flywheel_assets.training.recipes import AdapterRecipe

# It names folders, Iceberg namespaces, MLflow models and URL paths.
APPLICATION_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}\Z")


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a new gold version is cut and trained: both thresholds must be reached."""

    min_new_pairs: int = 5_000
    """Training pairs that the last successfully trained version did not hold."""
    min_new_partitions: int = 1
    """Closed gold days that it did not cover."""
    max_transient_attempts: int = 4
    """A version whose run failed transiently is run again until this many attempts failed in a row."""
    retry_backoff_s: float = 60.0
    """Pause before the second attempt; it doubles with every further one."""


@dataclass(frozen=True, kw_only=True)
class PromotionHook:
    """What tells the serving side about a new champion; it runs after the alias has moved."""

    command: tuple[str, ...] = ()
    """Run without a shell; the event is its standard input, as JSON."""
    webhook: str | None = None
    """URL that gets the event as a JSON POST, for instance a bridge to vLLM's /v1/load_lora_adapter."""
    timeout_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class PreferenceApplication:
    """The preference flywheel of one deployed assistant."""

    name: str
    """Lower-case word; names its asset keys, Iceberg namespace, MLflow model and capture path."""
    description: str
    """One sentence for the UI."""
    start_date: date
    """First partition: the first day for which events may be landed (UTC)."""
    base_model: str
    """Path or hub id of the frozen base model; a bare name is looked up in the models folder."""
    window: JoinWindow = field(default_factory=JoinWindow)
    gate: GateRules = field(default_factory=GateRules)
    resolution: ResolutionRules = field(default_factory=ResolutionRules)
    trigger: Trigger = field(default_factory=Trigger)
    recipe: AdapterRecipe = field(default_factory=AdapterRecipe)
    limits: PromotionLimits = field(default_factory=PromotionLimits)
    on_promotion: PromotionHook = field(default_factory=PromotionHook)

    def __post_init__(self) -> None:
        if not APPLICATION_NAME.match(self.name):
            raise SettingsError(f"application name {self.name!r} must match {APPLICATION_NAME.pattern}")
