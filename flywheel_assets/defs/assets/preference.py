"""Builds the assets of the preference flywheel: gold pairs by day, then a gold version up to its promotion."""

from datetime import date

import dagster as dg
import msgspec

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.curation.texts.operator_findings import OperatorFinding
from flywheel_assets.defs.assets._adapter_plots import (
    build_comparison_table,
    build_scores_table,
    draw_small_plot,
    plot_evaluation,
)
from flywheel_assets.defs.assets._analytics import build_feedback_summary_asset
from flywheel_assets.defs.assets.daily import daily_asset, find_seen_inputs, make_stamp, report_entries
from flywheel_assets.defs.assets.versions import (
    Opponents,
    Verdict,
    build_evaluation_asset,
    build_gold_snapshot_asset,
    build_promotion_asset,
    describe_dataset,
    link_mlflow_run,
    locate_evaluation_report,
    version_asset,
    was_trained_before_erasure,
)
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.partitions import list_partition_days
from flywheel_assets.defs.piped import run_in_own_process
from flywheel_assets.defs.presentation import describe_findings
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK
from flywheel_assets.lake.versions.exports import Manifest, count_folds, hash_manifest, read_manifest, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, count_looks, find_anchor
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.models.own_process import read_report
from flywheel_assets.models.registry import ModelRegistry
from flywheel_assets.models.trainability import TrainabilityCheck
from flywheel_assets.promotion.text_limits import decide
from flywheel_assets.settings import read_settings
from flywheel_assets.training.requests import TrainingRequest, read_training_report

CURATE_CODE_VERSION = "4"
RESOLVE_CODE_VERSION = "5"


def build_pair_assets(application: PreferenceApplication) -> list[dg.AssetsDefinition]:
    """Build the assets by day that only a preference application has, in data order."""
    return [build_feedback_summary_asset(application), _build_curated_dpo_pairs_asset(application)]


def build_adapter_assets(application: PreferenceApplication) -> list[dg.AssetsDefinition]:
    """Build the assets of a gold version of a preference application, in data order."""
    return [
        _build_gold_snapshot_asset(application),
        _build_trained_adapter_asset(application),
        _build_evaluation_asset(application),
        _build_promotion_asset(application),
    ]


def _build_curated_dpo_pairs_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    code_version = f"{CURATE_CODE_VERSION}-{application.gate.policy.version}"

    @daily_asset(application, CURATED_DPO_PAIRS, "gold", code_version, reads={JOINED_FEEDBACK.name: None})
    def curated_dpo_pairs(
        context: dg.AssetExecutionContext, stores: Stores, clock: Clock
    ) -> dg.MaterializeResult[None]:
        """Gold: the pairs that passed the edit gate on day D; the rest is in quarantine with its reason."""
        with classify_failures(context):
            seen, stamp = find_seen_inputs(context), make_stamp(context, clock, CURATE_CODE_VERSION)
            lake, days, start = stores.lake(application.name), list_partition_days(context), application.start_date
            findings: dict[date, tuple[OperatorFinding, ...]] = {}
            entries = curate_days(lake, days, start, application.gate, application.breaker, stamp, findings)
            return report_entries(context, seen, entries, {day: describe_findings(findings[day]) for day in days})

    return curated_dpo_pairs


def _build_gold_snapshot_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    def cut(stores: Stores, lake: Lake, versions: Versions, version: str) -> Manifest:
        base_model = stores.base_model(application.base_model)
        check = TrainabilityCheck(base_model=base_model, rendering=application.recipe.rendering)
        rules = application.resolution
        return cut_pair_version(lake, versions, version, rules, RESOLVE_CODE_VERSION, check, check.judged_by)

    return build_gold_snapshot_asset(application, cut, RESOLVE_CODE_VERSION)


def _build_trained_adapter_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    @version_asset(application, "gold_snapshot", pool="gpu", kinds={"pytorch", "huggingface"})
    def trained_adapter(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """Trains a fresh LoRA adapter of the pinned base on the whole export, in a process of its own.

        Of a cross-fitted version it trains one more for each fold, before that.
        """
        with classify_failures(context):
            folder = stores.versions(application.name).folder(context.partition_key)
            manifest = verify_manifest(folder.export)
            request = TrainingRequest(
                application=application.name,
                version=folder.version,
                export_dir=str(folder.export),
                manifest_sha256=hash_manifest(folder.export),
                base_model=stores.base_model(application.base_model),
                recipe=application.recipe,
                output_dir=str(folder.training),
                work_dir=str(stores.scratch("training", application.name, folder.version)),
            )
            if not was_trained_before_erasure(folder, manifest):
                # The folds first, so that a version that is trained has all of them; a finished one is only verified.
                for fold in range(1, 1 + (count_folds(manifest) or 0)):
                    of_fold = msgspec.structs.replace(
                        request,
                        fold=fold,
                        output_dir=str(folder.fold(fold)),
                        work_dir=str(stores.scratch("training", application.name, folder.version, f"fold_{fold}")),
                    )
                    run_in_own_process(context, pipes, "flywheel_assets.training.adapter", of_fold)
                run_in_own_process(context, pipes, "flywheel_assets.training.adapter", request)
            report = read_training_report(folder.training_report)
            return dg.MaterializeResult(
                metadata={
                    "challenger_stage": report.chosen_stage,
                    "why": report.why,
                    "coverage": report.coverage.describe() if report.coverage else "not recorded",
                    "training_pairs": report.pairs_used,
                    "accepted_outputs": report.accepted_used,
                    "objections": report.rows.objections_used,
                    "winners_preferred_but_not_written": report.rows.winners_not_written,
                    "seconds": round(report.seconds, 1),
                    "time": report.describe_time(),
                    "mean_delta_log_p_chosen": report.mean_delta_chosen,
                    "mean_delta_log_p_rejected": report.mean_delta_rejected,
                    "adapter_sha256": report.adapter_sha256,
                    "dagster/uri": str(folder.training / "adapter"),
                }
            )

    return trained_adapter


def _build_evaluation_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    def evaluate(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient, opponents: Opponents
    ) -> dg.MaterializeResult[None]:
        folder, serving = opponents.folder, opponents.serving
        anchor = find_anchor(stores.versions(application.name), serving) if serving else None
        key_file = read_settings().model_server_key_file
        request = EvaluationRequest(
            export_dir=str(folder.export),
            manifest_sha256=hash_manifest(folder.export),
            base_model=stores.base_model(application.base_model),
            sft_adapter=str(folder.training / "sft_adapter"),
            challenger_adapter=str(folder.training / "adapter"),
            champion_version=serving.version if serving else None,
            champion_export_dir=str(serving.export) if serving else None,
            champion_adapter=str(serving.training / "adapter") if serving else None,
            challenger_folds=_locate_folds(folder),
            champion_folds=_locate_folds(serving) if serving else None,
            anchor_folds=_locate_folds(anchor) if anchor and anchor != serving else None,
            anchor_version=anchor.version if anchor else None,
            anchor_export_dir=str(anchor.export) if anchor and anchor != serving else None,
            anchor_adapter=str(anchor.training / "adapter") if anchor and anchor != serving else None,
            rendering=application.recipe.rendering,
            judge=application.judge,
            options=application.evaluation.resolve_temperature(application.recipe.serving_temperature),
            server_key_file=None if key_file is None else str(key_file.expanduser().absolute()),
            output_dir=str(folder.evaluation),
            work_dir=str(stores.scratch("evaluation", application.name, folder.version)),
        )
        run_in_own_process(context, pipes, "flywheel_assets.evaluation.adapter", request)
        report = read_evaluation_report(folder)
        plot = plot_evaluation(report, folder.path / "ned_by_model.png")
        run_id = _log_to_mlflow(stores.registry(application.name), application, folder, report)
        return dg.MaterializeResult(
            metadata={
                "figure": draw_small_plot(report),
                "comparison": build_comparison_table(report),
                "scores": build_scores_table(report),
                "ned_by_model": plot,
                "rows": report.describe_rows(),
                "held_out_subjects": report.evidence.ned_gain.clusters,
                "same_text_pairs": report.evidence.same_text_pairs,
                "judge": "none" if report.evidence.judge is None else report.evidence.judge.describe(),
                "mlflow_run": link_mlflow_run(stores.registry(application.name), run_id),
            }
        )

    description = (
        "Base, SFT baseline, champion and challenger on the same held-out rows; everything is logged to MLflow."
    )
    return build_evaluation_asset(
        application, "adapter_evaluation", description, "trained_adapter", evaluate, pool="gpu"
    )


def _build_promotion_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    def judge(_: dg.AssetExecutionContext, stores: Stores, folder: VersionFolder) -> Verdict:
        report = read_evaluation_report(folder)
        announcement = {
            "adapter_dir": str(folder.training / "adapter"),
            "base_model": stores.base_model(application.base_model),
        }
        look = count_looks(stores.versions(application.name), folder, report.champion_version)
        return Verdict(decide(report.evidence, application.limits, look), report.champion_version, announcement)

    return build_promotion_asset(application, "adapter_evaluation", "the base model", judge)


def _locate_folds(folder: VersionFolder) -> str | None:
    """Return the folder of the adapters that judge a cross-fitted version; None: its only adapter does."""
    return str(folder.folds) if count_folds(read_manifest(folder.export)) else None


def read_evaluation_report(folder: VersionFolder) -> EvaluationReport:
    """Read the evaluation's report of a version."""
    return read_report(locate_evaluation_report(folder), EvaluationReport)


def _log_to_mlflow(
    registry: ModelRegistry, application: PreferenceApplication, folder: VersionFolder, report: EvaluationReport
) -> str:
    sha256 = hash_manifest(folder.export)
    training = read_training_report(folder.training_report)
    run_id = registry.log_run(
        folder.version,
        params={**training.to_parameters(), "base_model": application.base_model},
        metrics=report.list_metrics(),
        datasets=[describe_dataset(application, folder)],
        files=[folder.training_report, locate_evaluation_report(folder)],
        tags={"flywheel.challenger_stage": training.chosen_stage, "flywheel.manifest_sha256": sha256},
    )
    registry.register_adapter(folder.version, run_id, folder.training / "adapter", sha256)
    return run_id
