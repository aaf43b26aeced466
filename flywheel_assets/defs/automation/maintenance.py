"""Runs the weekly maintenance as a job: figures by stage and a plot of storage over time."""

from datetime import datetime
from pathlib import Path

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.presentation import build_numbers_table, draw_if_possible, embed_picture
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.upkeep.maintenance import (
    MAINTENANCE_CODE_VERSION,
    Upkeep,
    maintain_tables,
    read_storage_history,
)
from flywheel_assets.stores import Stores as AnyStores

MAINTENANCE_JOB = "{}_maintenance"


def run_maintenance(application: FlywheelApplication, stores: AnyStores, stamp: RunStamp) -> Upkeep:
    """Maintain one application; the job and the command line call it."""
    return maintain_tables(
        stores.lake(application.name),
        application.tables,
        stores.versions(application.name),
        stores.landing(),
        application.window,
        application.maintenance,
        stamp,
        stores.s3_client,
    )


def build_maintenance_job(application: FlywheelApplication) -> dg.JobDefinition:
    """Build `<application>_maintenance`: it trims, retires, expires, collects, and shows the storage used."""

    @dg.op(
        name="maintain",
        description="Deletes files that nothing needs; keeps every gold version. See docs/gold.md.",
    )
    def maintain_op(context: dg.OpExecutionContext, stores: Stores, clock: Clock) -> None:
        stamp = RunStamp(context.run_id, MAINTENANCE_CODE_VERSION, clock.now())
        upkeep = run_maintenance(application, stores, stamp)
        plot = stores.scratch("maintenance", f"{application.name}.png")
        context.add_output_metadata(
            {
                "snapshots_expired": upkeep.snapshots_expired,
                "files_deleted": upkeep.files_deleted.files,
                "bytes_deleted": upkeep.files_deleted.bytes,
                "files_waiting_for_their_grace": upkeep.files_waiting.files,
                "predictions_trimmed": sum(upkeep.predictions_trimmed.values()),
                "segments_removed": upkeep.segments_removed,
                "kept_versions_deleted": upkeep.versions_deleted.deleted,
                "kept_versions_refused": upkeep.versions_deleted.refused,
                "storage": build_numbers_table(
                    ["stage", "files before", "files after", "bytes before", "bytes after"], list_storage_rows(upkeep)
                ),
                "storage_over_time": _plot_storage(read_storage_history(stores.lake(application.name)), plot),
            }
        )

    @dg.job(
        name=MAINTENANCE_JOB.format(application.name),
        description="Maintains tables, landing and files every week; its output's metadata has figures and a plot.",
        executor_def=dg.in_process_executor,
    )
    def maintenance() -> None:
        maintain_op()

    return maintenance


def build_maintenance_schedule(application: FlywheelApplication, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Build the schedule of Sundays at 03:00 UTC, after the day's materialization."""
    return dg.ScheduleDefinition(
        name=f"{application.name}_weekly_maintenance",
        job=job,
        cron_schedule="0 3 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def list_storage_rows(upkeep: Upkeep) -> list[list[object]]:
    """List files and bytes by stage, before and after."""
    return [
        [stage, upkeep.before[stage].files, after.files, upkeep.before[stage].bytes, after.bytes]
        for stage, after in upkeep.after.items()
    ]


@draw_if_possible
def _plot_storage(history: dict[str, list[tuple[datetime, int]]], path: Path) -> dg.MarkdownMetadataValue:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    largest = sorted(history, key=lambda stage: -history[stage][-1][1])[:6]
    for stage in largest:
        times, sizes = zip(*history[stage], strict=True)
        axes.plot(times, [size / 2**20 for size in sizes], marker="o", markersize=3, label=stage)
    axes.set_ylabel("MiB after maintenance")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=110)
    return embed_picture(path, "storage by stage")
