"""Builds one application's code location, for both kinds of flywheel, in data order."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from flywheel_assets.application import (
    ClassificationApplication,
    FlywheelApplication,
    PreferenceApplication,
    begin_with_history,
)
from flywheel_assets.defs._checks import (
    build_breaker_check,
    build_daily_checks,
    build_operator_text_check,
    build_version_checks,
)
from flywheel_assets.defs.assets.classification import (
    build_classifier_assets,
    build_example_assets,
    build_levers_report_asset,
)
from flywheel_assets.defs.assets.daily import build_feedback_assets
from flywheel_assets.defs.assets.label_delay import build_label_delay_asset, build_label_delay_check
from flywheel_assets.defs.assets.landed import build_landed_assets, name_landed_asset
from flywheel_assets.defs.assets.mlflow_traces import build_source_asset
from flywheel_assets.defs.assets.preference import build_adapter_assets, build_pair_assets
from flywheel_assets.defs.assets.production_watch import build_production_watch_asset
from flywheel_assets.defs.automation.alerts import build_alert_sensors
from flywheel_assets.defs.automation.inspection import (
    build_check_key,
    build_fsck_check,
    build_fsck_job,
    build_fsck_schedule,
)
from flywheel_assets.defs.automation.maintenance import build_maintenance_job, build_maintenance_schedule
from flywheel_assets.defs.automation.recovery import build_rollback_job
from flywheel_assets.defs.automation.rollout_steps import build_rollout_job, build_rollout_schedule, is_automatic
from flywheel_assets.defs.automation.supervision import build_supervision_sensor
from flywheel_assets.defs.automation.training_rules import TrainingRule, build_example_rule, build_pair_rule
from flywheel_assets.defs.automation.triggers import (
    build_daily_schedule,
    build_report_schedule,
    build_source_schedule,
    build_training_sensor,
)
from flywheel_assets.defs.classifier_checks import build_classifier_checks
from flywheel_assets.defs.partitions import DAILY_JOB, REPORTS_JOB, TURN_JOB
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.settings import keep_files_private, read_settings

_LONGEST_TURN_S = str(7 * 24 * 3600)


def preference_flywheel(
    application: PreferenceApplication, stores: Stores | None = None, clock: Clock | None = None
) -> dg.Definitions:
    """Build the definitions of one preference application.

    Args:
        application: the platform team's configuration.
        stores: the places of the data; from the settings unless a test passes others.
        clock: the time that closes days; the machine's unless a test passes another.
    """
    application = begin_with_history(application, stores or Stores())
    watch = application.watch
    rollout_jobs = [build_rollout_job(application, watch)] if watch and is_automatic(application) else []
    return _assemble(
        application,
        daily=[*build_feedback_assets(application), *build_pair_assets(application)],
        versions=build_adapter_assets(application),
        rule=build_pair_rule(application),
        stores=stores,
        clock=clock,
        more_assets=[build_source_asset(application, source) for source in application.sources],
        reports=[build_production_watch_asset(application, watch)] if watch else [],
        more_checks=[
            build_breaker_check(application),
            build_operator_text_check(application),
        ],
        more_schedules=[
            *(build_source_schedule(application, source) for source in application.sources),
            *(build_rollout_schedule(application, job) for job in rollout_jobs),
        ],
        more_jobs=rollout_jobs,
    )


def classification_flywheel(
    application: ClassificationApplication, stores: Stores | None = None, clock: Clock | None = None
) -> dg.Definitions:
    """Build the definitions of one classification application.

    Args:
        application: the platform team's configuration.
        stores: the places of the data; from the settings unless a test passes others.
        clock: the time that closes days; the machine's unless a test passes another.
    """
    application = begin_with_history(application, stores or Stores())
    reports = [build_levers_report_asset(application), build_label_delay_asset(application)]
    return _assemble(
        application,
        daily=[*build_feedback_assets(application), *build_example_assets(application)],
        versions=build_classifier_assets(application),
        rule=build_example_rule(application),
        stores=stores,
        clock=clock,
        reports=reports,
        more_checks=[
            *build_classifier_checks(application),
            build_label_delay_check(application),
            build_breaker_check(application),
        ],
    )


def _assemble(
    application: FlywheelApplication,
    daily: Sequence[dg.AssetsDefinition],
    versions: Sequence[dg.AssetsDefinition],
    rule: TrainingRule,
    stores: Stores | None,
    clock: Clock | None,
    more_assets: Sequence[dg.AssetsDefinition] = (),
    reports: Sequence[dg.AssetsDefinition] = (),
    more_checks: Sequence[dg.AssetChecksDefinition] = (),
    more_schedules: Sequence[dg.ScheduleDefinition] = (),
    more_jobs: Sequence[dg.JobDefinition] = (),
) -> dg.Definitions:
    """Put together the jobs, schedules, sensors, checks and resources of one application.

    Args:
        application: the platform team's configuration.
        daily: the assets by day, in data order.
        versions: the assets of a gold version, in data order.
        rule: decides when a version is cut.
        stores: the places of the data; from the settings unless a test passes others.
        clock: the time that closes days; the machine's unless a test passes another.
        more_assets: assets in none of these jobs.
        reports: assets without partitions that a daily job of their own makes.
        more_checks: checks of this kind of application only.
        more_schedules: schedules of this kind of application only.
        more_jobs: jobs of this kind of application only.
    """
    # Here, as every process that materializes something loads its definitions, and starts its trainer afterwards.
    keep_files_private()
    daily_job = dg.define_asset_job(
        DAILY_JOB.format(application.name),
        dg.AssetSelection.assets(*daily),
        description="Landing to gold for one day or a range of days.",
    )
    turn_job = dg.define_asset_job(
        TURN_JOB.format(application.name),
        dg.AssetSelection.assets(*versions),
        description="One turn of the wheel: cut a gold version, train, evaluate, decide.",
        # Its trainer and evaluator are ended when they are silent, see `defs.piped`; dagster.yaml's limit would end
        # a long training in the middle.
        run_tags={MAX_RUNTIME_SECONDS_TAG: _LONGEST_TURN_S},
    )
    upkeep_job = build_maintenance_job(application)
    landed = name_landed_asset(EventKind.FEEDBACK)
    report_jobs = []
    if reports:
        report_jobs.append(
            dg.define_asset_job(
                REPORTS_JOB.format(application.name),
                dg.AssetSelection.assets(*reports),
                description="Reports on closed days, once a day.",
            )
        )
    return dg.Definitions(
        assets=[*build_landed_assets(application), *daily, *versions, *more_assets, *reports],
        asset_checks=[
            *build_daily_checks(application),
            *build_version_checks(application),
            build_fsck_check(application, landed),
            *more_checks,
        ],
        jobs=[
            daily_job,
            turn_job,
            build_rollback_job(application),
            upkeep_job,
            build_fsck_job(application, landed),
            *report_jobs,
            *more_jobs,
        ],
        schedules=[
            build_daily_schedule(application, daily_job.name),
            build_maintenance_schedule(application, upkeep_job),
            build_fsck_schedule(application),
            *more_schedules,
            *(build_report_schedule(application, job.name) for job in report_jobs),
        ],
        sensors=[
            build_training_sensor(application, rule, turn_job.name),
            *build_alert_sensors(application, read_settings().alert_webhook),
            build_supervision_sensor(
                application, rule.retries, build_check_key(application, landed), read_settings().alert_webhook
            ),
        ],
        resources={
            "stores": stores or Stores(),
            "clock": clock or Clock(),
            "pipes": dg.PipesSubprocessClient(),
        },
        # The assets are light. Training and evaluation need processes of their own and start them.
        executor=dg.in_process_executor,
    )
