"""Builds the assets of one gold version that every kind of application shares.

These are the snapshot, the evaluation and the promotion. Each kind passes its own way of cutting a version, of scoring
the models and of judging the scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.partitions import GROUP, build_version_partitions, map_no_days
from flywheel_assets.defs.presentation import build_checks_table, build_reasons_table
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.rollouts import announce_step
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.exports import Manifest, hash_manifest, read_manifest
from flywheel_assets.lake.versions.folders import Promotion, VersionFolder, Versions, read_promotion, record_promotion
from flywheel_assets.models.own_process import read_report
from flywheel_assets.models.registry import EvaluatedDataset, ModelRegistry
from flywheel_assets.promotion.text_limits import Decision, Route
from flywheel_assets.settings import read_settings

CutVersion = Callable[[Stores, Lake, Versions, str], Manifest]


def version_asset(application: FlywheelApplication, upstream: str, **more: Any) -> Callable[..., dg.AssetsDefinition]:
    """Make a decorator for one stage of a gold version, with the settings that all stages share."""
    decorator: Callable[..., dg.AssetsDefinition] = dg.asset(
        key_prefix=application.name,
        group_name=GROUP.format(application.name, "version"),
        owners=application.owners,
        tags=application.tags,
        partitions_def=build_version_partitions(application.name),
        **{"deps": [[application.name, upstream]], **more},
    )
    return decorator


def build_gold_snapshot_asset(
    application: FlywheelApplication, cut: CutVersion, code_version: str
) -> dg.AssetsDefinition:
    """Build `gold_snapshot`, which pins, tags, resolves and exports the gold table."""
    gold = application.tables.gold.name

    @version_asset(
        application,
        gold,
        code_version=code_version,
        kinds={"iceberg"},
        deps=[dg.AssetDep([application.name, gold], partition_mapping=map_no_days())],
    )
    def gold_snapshot(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        """A gold version: the tagged snapshot of all closed days, resolved and exported with its manifest."""
        with classify_failures(context):
            versions = stores.versions(application.name)
            manifest = cut(stores, stores.lake(application.name), versions, context.partition_key)
            export = versions.folder(context.partition_key).export
            return dg.MaterializeResult(
                data_version=dg.DataVersion(hash_manifest(export)),
                metadata={
                    **{f"rows/{which}": file.rows for which, file in manifest.files.items()},
                    **manifest.details,
                    "days": len(manifest.days),
                    "left_out": build_reasons_table(manifest.dropped),
                    "iceberg_snapshot_id": str(manifest.snapshot_id),
                    "manifest_sha256": hash_manifest(export),
                    "dagster/uri": str(export),
                },
            )

    return gold_snapshot


@dataclass(frozen=True)
class Opponents:
    """The models of an evaluation: the version's own and the champion that it may replace."""

    folder: VersionFolder
    serving: VersionFolder | None
    """The champion's version."""


def find_opponents(version: str, versions: Versions, registry: ModelRegistry) -> Opponents | str:
    """Find the models to score for `version`, or the reason why there is nothing to score."""
    folder = versions.folder(version)
    if folder.is_finished:
        # Against a later champion the report would no longer be the one that the decision used.
        return f"{version} was decided already"
    champion = registry.find_champion()
    serving = versions.folder(champion.gold_version) if champion else None
    if serving is not None and serving.version == version:
        return f"{version} serves already"
    return Opponents(folder, serving)


Evaluate = Callable[[dg.AssetExecutionContext, Stores, dg.PipesSubprocessClient, Opponents], dg.MaterializeResult[None]]
"""Scores both models, logs the scores and returns what the UI shows."""


def build_evaluation_asset(
    application: FlywheelApplication, name: str, description: str, upstream: str, evaluate: Evaluate, **more: Any
) -> dg.AssetsDefinition:
    """Build the evaluation of champion and challenger on the same rows.

    A version that was decided is not scored again.
    """

    @version_asset(application, upstream, name=name, description=description, kinds={"mlflow"}, **more)
    def evaluation(
        context: dg.AssetExecutionContext, stores: Stores, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            registry = stores.registry(application.name)
            opponents = find_opponents(context.partition_key, stores.versions(application.name), registry)
            if isinstance(opponents, str):
                return dg.MaterializeResult(metadata={"state": opponents})
            return evaluate(context, stores, pipes, opponents)

    return evaluation


def describe_dataset(application: FlywheelApplication, folder: VersionFolder) -> EvaluatedDataset:
    """Describe a version's export as MLflow records it."""
    manifest = read_manifest(folder.export)
    return EvaluatedDataset(
        name=f"{application.name}.{manifest.version}",
        manifest_sha256=hash_manifest(folder.export),
        iceberg_table=f"{application.name}.{application.tables.gold.name}",
        iceberg_snapshot_id=manifest.snapshot_id,
        rows={which.value: file.rows for which, file in manifest.files.items()},
    )


@dataclass(frozen=True)
class Verdict:
    """The promotion gate's answer to an evaluation."""

    decision: Decision
    scored_against: str | None
    """Gold version of the champion that was scored; None: there was none."""
    announcement: Mapping[str, object]
    """The facts that the serving side needs to load the model."""
    threshold: float | None = None
    """Score from which the model alerts once it serves; None: it alerts on no score."""


def build_promotion_asset(
    application: FlywheelApplication,
    upstream: str,
    incumbent: str,
    judge: Callable[[dg.AssetExecutionContext, Stores, VersionFolder], Verdict],
) -> dg.AssetsDefinition:
    """Build `promotion`: it moves the alias and announces it to the serving side, or gives the reason.

    Args:
        application: the owner of the asset.
        upstream: the evaluation's asset.
        incumbent: the model before the first promotion, in words.
        judge: reads a version's evaluation and applies the application's limits.
    """

    @version_asset(application, upstream, kinds={"mlflow"})
    def promotion(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        """The promotion gate's decision: the alias `champion` moves to the challenger, or a sentence says why not."""
        with classify_failures(context):
            folder = stores.versions(application.name).folder(context.partition_key)
            if folder.is_finished:
                return _show_promotion(read_promotion(folder.promotion), incumbent)
            registry = stores.registry(application.name)
            verdict = judge(context, stores, folder)
            decision = _confirm_interrupted_promotion(verdict.decision, folder, registry)
            announced: Sequence[str] = ()
            if decision.promote:
                plan = application.rollout
                registry.promote(folder.version, verdict.scored_against, share=plan.compute_share(plan.steps[0]))
                announced = announce_step(application, stores, verdict.announcement)
            record = Promotion(
                version=folder.version,
                promoted=decision.promote,
                sentence=decision.sentence,
                champion_before=verdict.scored_against,
                checks=[vars(check) for check in decision.checks],
                announced=list(announced),
                threshold=verdict.threshold,
                route=decision.route,
                measure=decision.measure,
                look=decision.look,
                alpha=decision.alpha,
                anchor=decision.anchor,
            )
            return _show_promotion(record_promotion(folder.promotion, record), incumbent)

    return promotion


class _TrainedOn(msgspec.Struct):
    """The part of both trainers' reports that names the export."""

    manifest_sha256: str
    schema_version: int = 1


def was_trained_before_erasure(folder: VersionFolder, manifest: Manifest) -> bool:
    """Return whether an erasure has rewritten the export since the training.

    The trainer would take such a result for another version's. People decide about that model, which the erasure's
    receipt lists; a repeated run leaves it as it is.
    """
    if not folder.is_trained:
        return False
    trained_on = read_report(folder.training_report, _TrainedOn).manifest_sha256
    return trained_on in {revised.manifest_sha256_before for revised in manifest.erasures}


def link_mlflow_run(registry: ModelRegistry, run_id: str) -> dg.MetadataValue[Any]:
    """Show an MLflow run as a link where the address of MLflow's pages is known, else as its id."""
    address = read_settings().find_mlflow_url()
    if address is None:
        return dg.MetadataValue.text(run_id)
    return dg.MetadataValue.url(f"{address.rstrip('/')}/#/experiments/{registry.find_experiment(run_id)}/runs/{run_id}")


def locate_evaluation_report(folder: VersionFolder) -> Path:
    """Return the path of the evaluation's report of a version."""
    return folder.evaluation / "evaluation.json"


def _confirm_interrupted_promotion(decision: Decision, folder: VersionFolder, registry: ModelRegistry) -> Decision:
    champion = registry.find_champion()
    if decision.promote or champion is None or champion.gold_version != folder.version:
        return decision
    # An earlier run moved the alias and ended before it could announce and record the promotion.
    sentence = f"It serves since an earlier run of this version; by the limits of today: {decision.sentence}"
    # By which route it was promoted is not known; of the two, newer data leaves the anchor where it was.
    route = decision.route if decision.anchor is None else Route.NEWER_DATA.value
    return replace(decision, promote=True, sentence=sentence, route=route)


def _show_promotion(promotion: Promotion, incumbent: str) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "promoted": promotion.promoted,
            "decision": promotion.sentence,
            "champion_before": promotion.champion_before or incumbent,
            "checks": build_checks_table(promotion.checks),
            "announced": ", ".join(promotion.announced) or "none",
            **{name: found for name in ("route", "measure", "look", "anchor") if (found := getattr(promotion, name))},
            **({"alpha": f"{promotion.alpha:.3g}"} if promotion.alpha else {}),
        }
    )
