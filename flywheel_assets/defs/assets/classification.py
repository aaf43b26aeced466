"""Builds the assets of the classification flywheel: by day, by gold version, and the levers report."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.defs.assets._classifier_plots import (
    build_comparison_table,
    build_confusion_table,
    build_levers_tables,
    draw_levers,
    draw_small_drift,
    draw_small_plots,
    plot_ap_by_week,
    plot_calibration,
    plot_confusion,
    plot_drift,
    plot_floor_costs,
    plot_precision_recall,
    read_most_drifted,
)
from flywheel_assets.defs.assets.daily import (
    DayReport,
    daily_asset,
    find_seen_inputs,
    make_stamp,
    report_days,
    report_entries,
)
from flywheel_assets.defs.assets.example_reports import example_report
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
from flywheel_assets.defs.partitions import (
    PARTITION_TAG,
    REASON_TAG,
    list_partition_days,
    map_join_window,
    map_lookback,
)
from flywheel_assets.defs.piped import run_in_own_process
from flywheel_assets.defs.presentation import build_numbers_table, join_pictures
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.evaluation.classifier import read_evaluation
from flywheel_assets.evaluation.floor_costs import MAX_ROWS, MAX_SECONDS, try_floors
from flywheel_assets.evaluation.requests import ClassifierEvaluationReport, ClassifierEvaluationRequest
from flywheel_assets.lake.daily.ledger import hash_content, list_days
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.daily.quiet_days import join_quiet_days
from flywheel_assets.lake.daily.reports import FIRST_DAYS, WINDOW_DAYS, Reference, read_reference, report_drift
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS, GROUND_TRUTH, HARD_EXAMPLES, JOINED_LABELS, RAW_SCORES
from flywheel_assets.lake.versions.example_versions import cut_example_version
from flywheel_assets.lake.versions.exports import Manifest, hash_manifest, read_manifest, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, read_promotion
from flywheel_assets.lake.whatif.levers import report_levers
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.model_folder import MODEL_FOLDER, find_judged
from flywheel_assets.models.registry import ModelRegistry
from flywheel_assets.models.trainers.text_classifier import TextClassifierRecipe
from flywheel_assets.promotion.classifier_limits import StatedReason, decide_classifier
from flywheel_assets.promotion.refit import decide_refit
from flywheel_assets.promotion.text_limits import Check, Decision
from flywheel_assets.training.classifier import read_training
from flywheel_assets.training.requests import REFERENCE_FILE, ClassifierTrainingRequest

MINE_CODE_VERSION = "2"
RESOLVE_CODE_VERSION = "1"
DRIFT_CODE_VERSION = "2"
LEVERS_DAYS = 28


def build_example_assets(application: ClassificationApplication) -> list[dg.AssetsDefinition]:
    """Build the assets by day that only a classification application has, in data order."""
    return [_build_hard_examples_asset(application), _build_drift_report_asset(application)]


def build_classifier_assets(application: ClassificationApplication) -> list[dg.AssetsDefinition]:
    """Build the assets of a gold version of a classification application, in data order."""
    return [
        _build_gold_snapshot_asset(application),
        _build_trained_classifier_asset(application),
        _build_evaluation_asset(application),
        _build_promotion_asset(application),
    ]


def _build_hard_examples_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    reach = application.gold_lookback_days

    @daily_asset(
        application,
        HARD_EXAMPLES,
        "gold",
        f"{MINE_CODE_VERSION}-{application.mining.version}",
        reads={
            JOINED_LABELS.name: map_join_window(application.window),
            RAW_SCORES.name: map_lookback(reach[RAW_SCORES.name]),
            GROUND_TRUTH.name: map_lookback(reach[GROUND_TRUTH.name]),
        },
    )
    def hard_examples(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        """Gold: the labels that became complete on day D and the silence that matured on it, each with its π.

        See docs/hard_examples.md.
        """
        with classify_failures(context):
            seen = find_seen_inputs(context)
            lake, days, start = stores.lake(application.name), list_partition_days(context), application.start_date
            stamp = make_stamp(context, clock, MINE_CODE_VERSION)
            read = list_days(max(start, days[0] - timedelta(days=max(reach.values()))), days[-1])
            tables, window = application.tables, application.window
            join_quiet_days(lake, stores.landing(), tables, read, start, window, stamp)
            entries = mine_days(
                lake, days, start, window, application.contract, application.mining, stamp, application.breaker
            )
            return report_entries(context, seen, entries)

    return hard_examples


def _build_drift_report_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    @daily_asset(
        application,
        DRIFT_REPORTS,
        "monitoring",
        DRIFT_CODE_VERSION,
        reads={RAW_SCORES.name: map_lookback(WINDOW_DAYS - 1)},
    )
    def drift_report(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        """Compares features and scores of the week up to D with the champion's training rows.

        Before the first champion the first 28 served days are the reference.
        """
        with classify_failures(context):
            seen, lake, days = find_seen_inputs(context), stores.lake(application.name), list_partition_days(context)
            reference = _read_champion_reference(application, stores)
            stamp = make_stamp(context, clock, DRIFT_CODE_VERSION)
            reports = report_drift(
                lake, days, application.start_date, application.contract, application.drift, reference, stamp
            )
            day_reports: dict[date, DayReport] = {}
            for day, rows in reports.items():
                metadata = _build_drift_metadata(rows)
                if day == days[-1] and rows:
                    file = stores.scratch("plots", f"{application.name}_drift.png")
                    most = read_most_drifted(lake, day)
                    metadata = {"psi_by_day": draw_small_drift(most, application.drift), **metadata}
                    metadata["psi_by_day, large"] = plot_drift(most, application.drift, file)
                content = pa.Table.from_pylist(rows, schema=DRIFT_REPORTS.schema)
                day_reports[day] = DayReport(hash_content(content), metadata)
            return report_days(context, seen, day_reports)

    return drift_report


def _build_gold_snapshot_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    def cut(_: Stores, lake: Lake, versions: Versions, version: str) -> Manifest:
        return cut_example_version(lake, versions, version, application.examples, RESOLVE_CODE_VERSION)

    return build_gold_snapshot_asset(application, cut, RESOLVE_CODE_VERSION)


def _build_trained_classifier_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    @version_asset(application, "gold_snapshot", kinds={_name_trainer(application)})
    def trained_classifier(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """Trains the recipe's model from scratch on the export's weighted rows, in a process of its own.

        Once for the judged model, which knows nothing of the evaluation weeks, and once on all matured rows.
        """
        with classify_failures(context):
            versions = stores.versions(application.name)
            folder = versions.folder(context.partition_key)
            manifest = verify_manifest(folder.export)
            earlier = versions.find_last_trained()
            request = ClassifierTrainingRequest(
                application=application.name,
                version=folder.version,
                export_dir=str(folder.export),
                manifest_sha256=hash_manifest(folder.export),
                recipe=application.recipe.locate(stores.base_model),
                output_dir=str(folder.training),
                work_dir=str(stores.scratch("training", application.name, folder.version)),
                earlier_dir=str(earlier.training) if earlier else None,
            )
            if not was_trained_before_erasure(folder, manifest):
                run_in_own_process(context, pipes, "flywheel_assets.training.classifier", request)
            report = read_training(folder.training)
            return dg.MaterializeResult(
                metadata={
                    "training_rows": report.rows,
                    "positives": report.positives,
                    "hard_examples": report.hard_examples,
                    "rows_stood_for": round(report.rows_stood_for),
                    **({} if report.judged is None else {"judged_rows": report.judged.rows}),
                    "seconds": round(report.seconds, 2),
                    "gains": build_numbers_table(["feature", "share of gain"], list(report.gains.items())),
                    "model_sha256": report.model_sha256,
                    "dagster/uri": str(folder.training / "model"),
                }
            )

    return trained_classifier


def _build_evaluation_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    def evaluate(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient, opponents: Opponents
    ) -> dg.MaterializeResult[None]:
        folder, serving = opponents.folder, opponents.serving
        request = ClassifierEvaluationRequest(
            export_dir=str(folder.export),
            manifest_sha256=hash_manifest(folder.export),
            challenger_dir=str(folder.training),
            champion_version=serving.version if serving else None,
            champion_dir=str(serving.training) if serving else None,
            threshold=find_live_threshold(application, serving),
            alerts_per_day=application.limits.alerts_per_day,
            min_segment_positives=application.limits.min_segment_positives,
            cards_per_day=application.cards_per_day,
            output_dir=str(folder.evaluation),
            work_dir=str(stores.scratch("evaluation", application.name, folder.version)),
        )
        run_in_own_process(context, pipes, "flywheel_assets.evaluation.classifier", request)
        report = read_evaluation(folder.evaluation)
        of_classes: dict[str, Any] = {}
        if report.evidence.classes is not None:
            of_classes = {
                "confusion": build_confusion_table(report.evidence.classes),
                "confusion, plot": plot_confusion(report.evidence.classes, folder.path / "confusion.png"),
            }
        deployed = choose_deployed(application, folder, report)
        run_id = _log_to_mlflow(stores.registry(application.name), application, folder, report, deployed)
        return dg.MaterializeResult(
            metadata={
                "plots": draw_small_plots(report),
                "comparison": build_comparison_table(report),
                **of_classes,
                "plots, large": join_pictures(
                    plot_precision_recall(report, folder.path / "precision_recall.png"),
                    plot_calibration(report, folder.path / "calibration.png"),
                    plot_ap_by_week(report, folder.path / "ap_by_week.png"),
                ),
                "evaluated_rows": report.rows,
                **describe_population(read_manifest(folder.export)),
                "deployed": deployed.sentence,
                "mlflow_run": link_mlflow_run(stores.registry(application.name), run_id),
            }
        )

    description = "Scores champion and challenger on every matured row of the weeks after the training; logs to MLflow."
    return build_evaluation_asset(application, "classifier_evaluation", description, "trained_classifier", evaluate)


def describe_population(manifest: Manifest) -> dict[str, str]:
    """Say of whom the evaluation holds, where that is not of all predictions."""
    known = manifest.details.get("label_propensity_known")
    if known is None or known == 1:
        return {}
    sentence = (
        f"for labelled predictions only: silence is unknown, and {known:.0%} of the training rows have the "
        "`label_propensity` that lets a row stand for those without a label"
    )
    return {"evaluation_holds": sentence}


def _build_promotion_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    def judge(context: dg.AssetExecutionContext, _: Stores, folder: VersionFolder) -> Verdict:
        report = read_evaluation(folder.evaluation)
        reason = find_stated_reason(context, report.champion_version)
        decision = decide_classifier(report.evidence, application.limits, reason)
        deployed = choose_deployed(application, folder, report)
        decision = add_deployed(decision, deployed)
        announcement = {"model_dir": str(deployed.model_dir), "threshold": deployed.threshold}
        return Verdict(decision, report.champion_version, announcement, deployed.threshold)

    return build_promotion_asset(application, "classifier_evaluation", "the deployed model", judge)


def _name_trainer(application: ClassificationApplication) -> str:
    """Name the trainer for Dagster's `kinds`, which show as icons."""
    match application.recipe:
        case ClassifierRecipe():
            return "lightgbm"
        case TextClassifierRecipe():
            return "transformers"
    return "command"


@dataclass(frozen=True)
class Deployed:
    """The model of a version that is registered and, if the version is promoted, deployed."""

    model_dir: Path
    threshold: float | None
    """Score from which it gives as many alerts as the incumbent; None without alerts."""
    sentence: str
    checks: tuple[Check, ...]
    """Those of the refit; a failed one costs the refit, not the promotion."""


def choose_deployed(
    application: ClassificationApplication, folder: VersionFolder, report: ClassifierEvaluationReport
) -> Deployed:
    """Choose the refit where its own checks hold, else the judged model."""
    refit = decide_refit(report.refit, application.limits)
    if refit.deploy_refit and report.refit is not None:
        threshold = report.refit.against_judged.threshold
        return Deployed(folder.training / MODEL_FOLDER, threshold, refit.sentence, refit.checks)
    return Deployed(find_judged(folder.training), report.evidence.threshold, refit.sentence, refit.checks)


def add_deployed(decision: Decision, deployed: Deployed) -> Decision:
    """Add to a promotion which model is deployed, and the refit's checks.

    Of a refused version nothing is deployed: its refit's checks refused nothing, and none is named as the reason.
    """
    if not decision.promote:
        return decision
    sentence = f"{decision.sentence} {deployed.sentence}"
    return replace(decision, sentence=sentence, checks=(*decision.checks, *deployed.checks))


def build_levers_report_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    """Build `levers_report`: what other thresholds and sampling rates would select, cost and save."""

    @example_report(
        application,
        f"Shows what other thresholds and sampling rates would select from the last {LEVERS_DAYS} matured "
        f"days, and by fitting at most {MAX_ROWS:,} rows for about {MAX_SECONDS:g} s what a sampling floor costs in "
        "average precision and saves in seconds, as `flywheel levers` does. It writes nothing.",
    )
    def levers_report(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            lake, rules = stores.lake(application.name), application.mining
            report = report_levers(lake, application.contract, rules, LEVERS_DAYS)
            if report is None:
                return dg.MaterializeResult(metadata={"state": "nothing has matured yet"})
            costs = try_floors(lake, application.contract, rules, application.recipe, LEVERS_DAYS)
            measured: dict[str, Any] = {}
            if costs is not None:
                plot = stores.scratch("plots", f"{application.name}_floor_costs.png")
                measured = {"summary": costs.describe(), "floor costs": plot_floor_costs(costs, plot)}
            return dg.MaterializeResult(
                metadata={
                    **measured,
                    "first_day": report.first_day.isoformat(),
                    "last_day": report.last_day.isoformat(),
                    "rows": report.rows,
                    "positives": report.positives,
                    "floor_in_force": report.floor,
                    "levers": draw_levers(report),
                    **build_levers_tables(report, costs),
                }
            )

    return levers_report


def find_live_threshold(application: ClassificationApplication, serving: VersionFolder | None) -> float | None:
    """Return the score from which the serving model alerts: the one that it was promoted with, else the configured."""
    if serving is not None and serving.is_finished:
        promoted_with = read_promotion(serving.promotion).threshold
        if promoted_with is not None:
            return promoted_with
    return application.threshold


def find_stated_reason(context: dg.AssetExecutionContext, champion_version: str | None) -> StatedReason:
    """Find the reason that asks least of this version, among those for which it was cut, by its runs' tags.

    New examples is the reason where a person started it. Age is none before there is a champion.
    """
    runs = context.instance.get_run_records(_select_runs_of_version(context), ascending=True)
    named = {
        tag.removeprefix(f"{REASON_TAG}.")
        for record in runs
        for tag in record.dagster_run.tags
        if tag.startswith(f"{REASON_TAG}.")
    }
    order = [StatedReason.CALIBRATION, StatedReason.DRIFT, StatedReason.NEW_EXAMPLES]
    if champion_version is not None:
        order.insert(0, StatedReason.AGE)
    return next((reason for reason in order if reason.value in named), StatedReason.NEW_EXAMPLES)


def _select_runs_of_version(context: dg.AssetExecutionContext) -> dg.RunsFilter:
    """Select all runs of this run's version."""
    return dg.RunsFilter(job_name=context.run.job_name, tags={PARTITION_TAG: context.partition_key})


def _read_champion_reference(application: ClassificationApplication, stores: Stores) -> Reference | None:
    champion = stores.registry(application.name).find_champion()
    if champion is None:
        return None
    folder = stores.versions(application.name).folder(champion.gold_version)
    return read_reference(champion.gold_version, folder.training / REFERENCE_FILE)


def _build_drift_metadata(rows: list[dict[str, object]]) -> dict[str, Any]:
    if not rows:
        return {"state": f"nothing can be compared: no predictions, or no champion and {FIRST_DAYS} days at most"}
    header = ["field", "rows", "missing", "PSI", "Wasserstein", "Jensen–Shannon", "breach"]
    names = ("field", "rows", "missing_share", "psi", "wasserstein", "jensen_shannon", "breach")
    distances = {str(row["field"]): psi for row in rows if isinstance(psi := row["psi"], float)}
    ordered = sorted(rows, key=lambda row: -distances.get(str(row["field"]), -1.0))
    cells = [["" if row[name] is None else row[name] for name in names] for row in ordered]
    return {
        "reference": rows[0]["reference_version"],
        "drifted": sum(row["breach"] is not None for row in rows),
        "largest_psi": round(max(distances.values()), 3) if distances else "too few rows to compare",
        "fields": build_numbers_table(header, cells),
    }


def _log_to_mlflow(
    registry: ModelRegistry,
    application: ClassificationApplication,
    folder: VersionFolder,
    report: ClassifierEvaluationReport,
    deployed: Deployed,
) -> str:
    sha256 = hash_manifest(folder.export)
    tags = {"flywheel.manifest_sha256": sha256, "flywheel.deployed": deployed.model_dir.name}
    if deployed.threshold is not None:
        tags["flywheel.threshold"] = repr(deployed.threshold)
    run_id = registry.log_run(
        folder.version,
        params=read_training(folder.training).to_parameters(),
        metrics=report.list_metrics(),
        datasets=[describe_dataset(application, folder)],
        files=[folder.training_report, locate_evaluation_report(folder)],
        tags=tags,
    )
    registry.register_classifier(folder.version, run_id, deployed.model_dir, sha256)
    return run_id
