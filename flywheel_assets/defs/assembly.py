"""One application's code location from its assets: jobs, schedule, sensor, checks and resources."""

from collections.abc import Sequence

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.automation.alerts import alert_sensors
from flywheel_assets.defs.automation.maintenance import maintenance_job, maintenance_schedule
from flywheel_assets.defs.automation.recovery import rollback_job
from flywheel_assets.defs.automation.training_rules import TrainingRule
from flywheel_assets.defs.automation.triggers import daily_schedule, training_threshold_sensor
from flywheel_assets.defs.checks import daily_checks, version_checks
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.tags import DAILY_JOB, TURN_JOB
from flywheel_assets.settings import read_settings


def assemble(
    application: FlywheelApplication,
    daily: Sequence[dg.AssetsDefinition],
    versions: Sequence[dg.AssetsDefinition],
    rule: TrainingRule,
    stores: Stores | None,
    clock: Clock | None,
    more_assets: Sequence[dg.AssetsDefinition] = (),
    more_checks: Sequence[dg.AssetChecksDefinition] = (),
) -> dg.Definitions:
    """Everything one application needs in its code location.

    Args:
        application: what the platform team configured.
        daily: the assets by day, in data order.
        versions: the assets of a gold version, in data order.
        rule: when a version is cut.
        stores: where the data lie; from the settings unless a test says otherwise.
        clock: what closes days; the machine's unless a test says otherwise.
        more_assets: in no job: a person asks for them.
        more_checks: of this kind of application only.
    """
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
    upkeep_job = maintenance_job(application)
    return dg.Definitions(
        assets=[*daily, *versions, *more_assets],
        asset_checks=[*daily_checks(application), *version_checks(application), *more_checks],
        jobs=[daily_job, turn_job, rollback_job(application), upkeep_job],
        schedules=[daily_schedule(application, daily_job.name), maintenance_schedule(application, upkeep_job)],
        sensors=[
            training_threshold_sensor(application, rule, turn_job.name),
            *alert_sensors(application, read_settings().alert_webhook),
        ],
        resources={
            "stores": stores or Stores(),
            "clock": clock or Clock(),
            "pipes": dg.PipesSubprocessClient(),
        },
        # The assets are light; only training and evaluation need processes of their own, and start them themselves.
        executor=dg.in_process_executor,
    )
