"""Runs `flywheel demo`: engineers correct a coding assistant, and two turns of the wheel make it right."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import dagster as dg
from rich.console import Console

from flywheel_assets.application import PreferenceApplication, Trigger
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.assets.preference import read_evaluation_report
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock
from flywheel_assets.defs.resources import Stores as Resource
from flywheel_assets.defs.running import Ticked
from flywheel_assets.demo.assistant._production import DagsterProduction
from flywheel_assets.demo.assistant.demo import DemoPlan, prepare_base, run_demo
from flywheel_assets.demo.assistant.report import DayCounts, DemoReport, TurnReport
from flywheel_assets.demo.assistant.rollback import require_router
from flywheel_assets.demo.dagster_wheel import DagsterWheel, clear, open_home
from flywheel_assets.lake.daily.ledger import read_entries, sum_by_reason
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.lake.versions.pair_versions import read_trained_pair_ids
from flywheel_assets.models.generation import require_train_extra
from flywheel_assets.records import CURATION_STAGE
from flywheel_assets.settings import read_settings
from flywheel_assets.stores import Stores
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import read_training_report

# Rates that suit the demo's half a million parameters; the recipe's defaults are for models a thousand times as large.
DEMO_RECIPE = AdapterRecipe(
    max_length=128, sft_epochs=4.0, sft_learning_rate=2e-3, preference_learning_rate=2e-4, checkpoint_every_steps=200
)
_THRESHOLDS = (250, 120)
"""New pairs that start the first turn, and every later one."""


def configure_demo(base_model: str, turn: int) -> PreferenceApplication:
    """Configure the assistant of `applications/assistant.py` in the demo's size: a few hundred people."""
    return replace(
        APPLICATION,
        base_model=base_model,
        trigger=Trigger(min_new_pairs=_THRESHOLDS[min(turn, len(_THRESHOLDS) - 1)], min_new_partitions=5),
        # At this size a tenth of accepted outputs is a few dozen rows, which did not protect the neutral idioms.
        resolution=ResolutionRules(per_user_cap=15, holdout_share=0.20, accepted_min_ratio=0.4),
        recipe=DEMO_RECIPE,
    )


def run(seed: int, console: Console, *, rollback: bool = False) -> DemoReport:
    """Play the demo in a fresh home; only the base model is kept from one demo to the next.

    Args:
        seed: of the simulated world.
        console: gets the story.
        rollback: play the epilogue, too, in which a model that passed is taken back in production.

    Raises:
        TrainingError: a run failed; its logs are in the demo's Dagster instance.
        SettingsError: the extra `train` is not installed, or the epilogue's router is not.
    """
    require_train_extra("the demo")
    if rollback:
        require_router()
    where = read_settings()
    home = where.resolve_home()
    clear(home)
    plan = DemoPlan(first_day=APPLICATION.start_date, seed=seed)
    base = prepare_base(plan, where.resolve_models_dir(), console)

    def configured(turns: int, clock: Clock) -> tuple[PreferenceApplication, dg.Definitions]:
        application = configure_demo(str(base.path), turns)
        return application, preference_flywheel(application, clock=clock)

    with open_home(APPLICATION, plan.first_day) as (instance, door):
        wheel = DagsterWheel(instance, configured, _count_days, _report_turn)
        production = None
        if rollback:
            application = configure_demo(str(base.path), len(_THRESHOLDS))
            production = DagsterProduction(
                application, instance, Resource(home=str(home)), home / "demo" / "rollout_event.json", door.clock
            )
        return run_demo(wheel, base, door, plan, home / "demo", console, production=production)


def _count_days(days: Sequence[date]) -> DayCounts:
    entries = read_entries(Stores().lake(APPLICATION.name), CURATED_DPO_PAIRS.name, days).values()
    return DayCounts(
        joined=sum(entry.rows_in for entry in entries),
        kept=sum(entry.rows_kept for entry in entries),
        dropped=sum_by_reason(entries),
        refused_edits=_find_refused_edits(days),
    )


def _find_refused_edits(days: Sequence[date]) -> dict[str, str]:
    """Map the prediction id of every edit that did not become gold to its reason."""
    lake = Stores().lake(APPLICATION.name)
    quarantine = lake.read(QUARANTINE, days, ["stage", "row_id", "reason"]).to_pylist()
    reasons = {row["row_id"]: row["reason"] for row in quarantine if row["stage"] == CURATION_STAGE}
    joined = lake.read(JOINED_FEEDBACK, days, ["feedback_event_id", "prediction_id", "signal"]).to_pylist()
    return {
        row["prediction_id"]: reasons[row["feedback_event_id"]]
        for row in joined
        if row["signal"] == "edit" and row["feedback_event_id"] in reasons
    }


def _report_turn(ticked: Ticked, seconds: float) -> TurnReport:
    assert ticked.version is not None
    version, stores = ticked.version, Stores()
    folder = stores.versions(APPLICATION.name).folder(version)
    manifest = read_manifest(folder.export)
    evaluation, training = read_evaluation_report(folder), read_training_report(folder.training_report)
    ned = evaluation.list_primary_ned()
    promotion = read_promotion(folder.promotion)
    champion = stores.registry(APPLICATION.name).find_champion()
    return TurnReport(
        version=version,
        train_pairs=manifest.files[ExportSet.TRAIN].rows,
        accepted=manifest.files[ExportSet.ACCEPTED].rows,
        holdout_pairs=manifest.files[ExportSet.HOLDOUT].rows,
        regression_rows=manifest.files[ExportSet.REGRESSION].rows,
        reasons=manifest.dropped,
        challenger_stage=training.chosen_stage,
        stage_reason=training.why,
        ned_base=ned["base"],
        ned_champion=ned.get("champion", ned["base"]),
        ned_challenger=ned["challenger"],
        ned_sft=ned["sft"],
        wrong_answers={model.value: rate for model, rate in evaluation.wrong_answers.items()},
        promoted=promotion.promoted,
        sentence=promotion.sentence,
        seconds=seconds,
        champion_adapter=champion.model_dir if champion else None,
        train_pair_ids=frozenset(read_trained_pair_ids(folder)),
    )
