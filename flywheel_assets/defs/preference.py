"""The preference flywheel: `curated_dpo_pairs` by day, then one gold version from snapshot to promotion."""

from collections.abc import Sequence
from dataclasses import replace

import dagster as dg
import msgspec

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.automation import daily_schedule, training_threshold_sensor
from flywheel_assets.defs.checks import daily_checks, version_checks
from flywheel_assets.defs.failures import RETRY_TRANSIENT, failures_are_classified
from flywheel_assets.defs.feedback import feedback_assets, stamp_of
from flywheel_assets.defs.partitions import (
    ONE_RUN,
    daily_partitions,
    partition_days,
    pinned_by_version,
    version_partitions,
)
from flywheel_assets.defs.piped import run_in_own_process
from flywheel_assets.defs.presentation import (
    checks_table,
    column_schema,
    evaluation_plot,
    reasons_table,
    report_days,
    scores_table,
)
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest
from flywheel_assets.gate import Decision, decide
from flywheel_assets.lake.curate_days import curate_days
from flywheel_assets.lake.exports import Manifest, manifest_sha256, read_manifest, verify_manifest
from flywheel_assets.lake.promotions import Promotion, read_promotion, record_promotion
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions import VersionFolder, cut_version
from flywheel_assets.registry import EvaluatedDataset, ModelRegistry
from flywheel_assets.rollout import announce
from flywheel_assets.training.requests import TrainingReport, TrainingRequest

CURATE_CODE_VERSION = "1"
RESOLVE_CODE_VERSION = "1"
DAILY_JOB = "{}_daily"
TURN_JOB = "{}_turn"
SENSOR = "training_threshold_sensor"


def preference_flywheel(
    application: PreferenceApplication, stores: Stores | None = None, clock: Clock | None = None
) -> dg.Definitions:
    """Everything one preference application needs in its code location, stages in data order.

    Args:
        application: what the platform team configured.
        stores: where the data lie; from the settings unless a test says otherwise.
        clock: what closes days; the machine's unless a test says otherwise.
    """
    daily = [
        *feedback_assets(application.name, application.start_date, application.window),
        _curated_dpo_pairs(application),
    ]
    versions = [
        _gold_snapshot(application),
        _trained_adapter(application),
        _adapter_evaluation(application),
        _promotion(application),
    ]
    daily_job = dg.define_asset_job(
        DAILY_JOB.format(application.name),
        dg.AssetSelection.assets(*daily),
        description="Landing to gold for one day or a range of days.",
    )
    turn_job = dg.define_asset_job(
        TURN_JOB.format(application.name),
        dg.AssetSelection.assets(*versions),
        description="One turn of the wheel: cut a gold version, train, evaluate, decide.",
    )
    return dg.Definitions(
        assets=[*daily, *versions],
        asset_checks=[
            *daily_checks(application.name, application.start_date, application.window),
            *version_checks(application.name),
        ],
        jobs=[daily_job, turn_job],
        schedules=[daily_schedule(application.name, application.start_date, daily_job.name)],
        sensors=[training_threshold_sensor(application, turn_job.name)],
        resources={
            "stores": stores or Stores(),
            "clock": clock or Clock(),
            "pipes": dg.PipesSubprocessClient(),
        },
        # The assets are light; only training and evaluation need processes of their own, and start them themselves.
        executor=dg.in_process_executor,
    )


def _curated_dpo_pairs(application: PreferenceApplication) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=application.name,
        group_name="gold",
        partitions_def=daily_partitions(application.start_date),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=f"{CURATE_CODE_VERSION}-{application.gate.policy.version}",
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(CURATED_DPO_PAIRS.schema)},
        deps=[[application.name, "joined_feedback"]],
    )
    def curated_dpo_pairs(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> None:
        """Gold: what passed edit bands, duplicates and policy on day D; the rest is in quarantine with its reason."""
        with failures_are_classified(context):
            stamp = stamp_of(context, clock, CURATE_CODE_VERSION)
            lake = stores.lake(application.name)
            report_days(context, curate_days(lake, partition_days(context), application.gate, stamp))

    return curated_dpo_pairs


def _gold_snapshot(application: PreferenceApplication) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=application.name,
        group_name="version",
        partitions_def=version_partitions(application.name),
        code_version=RESOLVE_CODE_VERSION,
        kinds={"iceberg"},
        deps=[dg.AssetDep([application.name, "curated_dpo_pairs"], partition_mapping=pinned_by_version())],
    )
    def gold_snapshot(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        """A gold version: the tagged snapshot of all closed days, resolved and exported with its manifest."""
        with failures_are_classified(context):
            versions = stores.versions(application.name)
            version = context.partition_key
            lake = stores.lake(application.name)
            manifest = cut_version(lake, versions, version, application.resolution, RESOLVE_CODE_VERSION)
            return dg.MaterializeResult(
                metadata={
                    **{f"rows/{which}": file.rows for which, file in manifest.files.items()},
                    "days": len(manifest.days),
                    "left_out": reasons_table(manifest.dropped),
                    "iceberg_snapshot_id": str(manifest.snapshot_id),
                    "manifest_sha256": manifest_sha256(versions.folder(version).export),
                    "dagster/uri": str(versions.folder(version).export),
                }
            )

    return gold_snapshot


def _trained_adapter(application: PreferenceApplication) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=application.name,
        group_name="version",
        partitions_def=version_partitions(application.name),
        pool="gpu",
        kinds={"pytorch", "huggingface"},
        deps=[[application.name, "gold_snapshot"]],
    )
    def trained_adapter(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """A fresh LoRA adapter from the pinned base, trained in its own process on everything in the export."""
        with failures_are_classified(context):
            folder = stores.versions(application.name).folder(context.partition_key)
            verify_manifest(folder.export)
            request = TrainingRequest(
                application=application.name,
                version=folder.version,
                export_dir=str(folder.export),
                manifest_sha256=manifest_sha256(folder.export),
                base_model=stores.base_model(application.base_model),
                recipe=application.recipe,
                output_dir=str(folder.training),
                work_dir=str(stores.scratch("training", application.name, folder.version)),
            )
            run_in_own_process(context, pipes, "flywheel_assets.training.adapter", request)
            report = read_training_report(folder)
            return dg.MaterializeResult(
                metadata={
                    "challenger_stage": report.chosen_stage,
                    "why": report.why,
                    "training_pairs": report.pairs_used,
                    "accepted_outputs": report.accepted_used,
                    "seconds": round(report.seconds, 1),
                    "mean_delta_log_p_chosen": report.mean_delta_chosen,
                    "mean_delta_log_p_rejected": report.mean_delta_rejected,
                    "adapter_sha256": report.adapter_sha256,
                    "dagster/uri": str(folder.training / "adapter"),
                }
            )

    return trained_adapter


def _adapter_evaluation(application: PreferenceApplication) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=application.name,
        group_name="version",
        partitions_def=version_partitions(application.name),
        pool="gpu",
        kinds={"mlflow"},
        deps=[[application.name, "trained_adapter"]],
    )
    def adapter_evaluation(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """Base, SFT baseline, champion and challenger on the same held-out rows; everything is logged to MLflow."""
        with failures_are_classified(context):
            versions, registry = stores.versions(application.name), stores.registry(application.name)
            folder = versions.folder(context.partition_key)
            if folder.is_finished:
                # Scored again against a later champion, the report would no longer be what the decision rests on.
                return dg.MaterializeResult(metadata={"state": f"{folder.version} was decided already"})
            champion = registry.champion()
            serving = versions.folder(champion.gold_version) if champion else None
            if serving is not None and serving.version == folder.version:
                return dg.MaterializeResult(metadata={"state": f"{folder.version} serves already"})
            request = EvaluationRequest(
                export_dir=str(folder.export),
                manifest_sha256=manifest_sha256(folder.export),
                base_model=stores.base_model(application.base_model),
                sft_adapter=str(folder.training / "sft_adapter"),
                challenger_adapter=str(folder.training / "adapter"),
                champion_version=serving.version if serving else None,
                champion_export_dir=str(serving.export) if serving else None,
                champion_adapter=str(serving.training / "adapter") if serving else None,
                output_dir=str(folder.evaluation),
                work_dir=str(stores.scratch("evaluation", application.name, folder.version)),
            )
            run_in_own_process(context, pipes, "flywheel_assets.evaluation.adapter", request)
            report = read_evaluation_report(folder)
            plot = evaluation_plot(report, folder.path / "ned_by_model.png")
            run_id = _log_to_mlflow(registry, application, folder, report)
            return dg.MaterializeResult(
                metadata={
                    "scores": scores_table(report),
                    "ned_by_model": plot,
                    "held_out_subjects": report.evidence.ned_gain.clusters,
                    "mlflow_run": run_id,
                }
            )

    return adapter_evaluation


def _promotion(application: PreferenceApplication) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=application.name,
        group_name="version",
        partitions_def=version_partitions(application.name),
        kinds={"mlflow"},
        deps=[[application.name, "adapter_evaluation"]],
    )
    def promotion(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        """The decision: the alias `champion` moves to the challenger, or one sentence says why not."""
        with failures_are_classified(context):
            folder = stores.versions(application.name).folder(context.partition_key)
            if folder.is_finished:
                return _shown(read_promotion(folder.promotion))
            report = read_evaluation_report(folder)
            registry = stores.registry(application.name)
            decision = _decision(folder, report, application, registry)
            announced: Sequence[str] = ()
            if decision.promote:
                registry.promote(folder.version, report.champion_version)
                announced = _announce(application, stores, folder, report)
            return _shown(record_promotion(folder.promotion, _as_record(folder, report, decision, announced)))

    return promotion


def read_training_report(folder: VersionFolder) -> TrainingReport:
    """The trainer's report of a version."""
    return msgspec.json.decode((folder.training / "training.json").read_bytes(), type=TrainingReport)


def read_evaluation_report(folder: VersionFolder) -> EvaluationReport:
    """The evaluation's report of a version."""
    return msgspec.json.decode((folder.evaluation / "evaluation.json").read_bytes(), type=EvaluationReport)


def _decision(
    folder: VersionFolder, report: EvaluationReport, application: PreferenceApplication, registry: ModelRegistry
) -> Decision:
    decision = decide(report.evidence, application.limits)
    champion = registry.champion()
    if decision.promote or champion is None or champion.gold_version != folder.version:
        return decision
    # An earlier run moved the alias and ended before it could announce and record that.
    sentence = f"It serves since an earlier run of this version; by the limits of today: {decision.sentence}"
    return replace(decision, promote=True, sentence=sentence)


def _log_to_mlflow(
    registry: ModelRegistry, application: PreferenceApplication, folder: VersionFolder, report: EvaluationReport
) -> str:
    manifest, sha256 = read_manifest(folder.export), manifest_sha256(folder.export)
    training = read_training_report(folder)
    run_id = registry.log_run(
        folder.version,
        params={**training.parameters(), "base_model": application.base_model},
        metrics=report.metrics(),
        datasets=[_dataset(application.name, manifest, sha256)],
        files=[folder.training / "training.json", folder.evaluation / "evaluation.json"],
        tags={"flywheel.challenger_stage": training.chosen_stage, "flywheel.manifest_sha256": sha256},
    )
    registry.register(folder.version, run_id, folder.training / "adapter", sha256)
    return run_id


def _dataset(application: str, manifest: Manifest, sha256: str) -> EvaluatedDataset:
    return EvaluatedDataset(
        name=f"{application}.{manifest.version}",
        manifest_sha256=sha256,
        iceberg_table=f"{application}.{CURATED_DPO_PAIRS.name}",
        iceberg_snapshot_id=manifest.snapshot_id,
        rows={which.value: file.rows for which, file in manifest.files.items()},
    )


def _announce(
    application: PreferenceApplication, stores: Stores, folder: VersionFolder, report: EvaluationReport
) -> Sequence[str]:
    hook = application.on_promotion
    event = {
        "application": application.name,
        "gold_version": folder.version,
        "adapter_dir": str(folder.training / "adapter"),
        "base_model": stores.base_model(application.base_model),
        "replaces": report.champion_version,
    }
    return announce(event, command=hook.command, webhook=hook.webhook, timeout_s=hook.timeout_s)


def _as_record(
    folder: VersionFolder, report: EvaluationReport, decision: Decision, announced: Sequence[str]
) -> Promotion:
    return Promotion(
        version=folder.version,
        promoted=decision.promote,
        sentence=decision.sentence,
        champion_before=report.champion_version,
        checks=[vars(check) for check in decision.checks],
        announced=list(announced),
    )


def _shown(promotion: Promotion) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "promoted": promotion.promoted,
            "decision": promotion.sentence,
            "champion_before": promotion.champion_before or "the base model",
            "checks": checks_table(promotion.checks),
            "announced": ", ".join(promotion.announced) or "nobody",
        }
    )
