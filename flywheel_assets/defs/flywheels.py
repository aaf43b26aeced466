"""The two kinds of flywheel, each as a contents page of one application's code location, in data order."""

import dagster as dg

from flywheel_assets.application import ClassificationApplication, PreferenceApplication
from flywheel_assets.defs.assembly import assemble
from flywheel_assets.defs.assets.classification import (
    build_classifier_assets,
    build_drift_check,
    build_example_assets,
    build_levers_report_asset,
)
from flywheel_assets.defs.assets.feedback import build_feedback_assets
from flywheel_assets.defs.assets.preference import build_adapter_assets, build_pair_assets
from flywheel_assets.defs.automation.training_rules import build_example_rule, build_pair_rule
from flywheel_assets.defs.checks import build_breaker_check
from flywheel_assets.defs.resources import Clock, Stores


def preference_flywheel(
    application: PreferenceApplication, stores: Stores | None = None, clock: Clock | None = None
) -> dg.Definitions:
    """Build the definitions of one preference application.

    Args:
        application: what the platform team configured.
        stores: where the data lie; from the settings unless a test says otherwise.
        clock: what closes days; the machine's unless a test says otherwise.
    """
    return assemble(
        application,
        daily=[*build_feedback_assets(application), *build_pair_assets(application)],
        versions=build_adapter_assets(application),
        rule=build_pair_rule(application),
        stores=stores,
        clock=clock,
        more_checks=[build_breaker_check(application)],
    )


def classification_flywheel(
    application: ClassificationApplication, stores: Stores | None = None, clock: Clock | None = None
) -> dg.Definitions:
    """Build the definitions of one classification application.

    Args:
        application: what the platform team configured.
        stores: where the data lie; from the settings unless a test says otherwise.
        clock: what closes days; the machine's unless a test says otherwise.
    """
    return assemble(
        application,
        daily=[*build_feedback_assets(application), *build_example_assets(application)],
        versions=build_classifier_assets(application),
        rule=build_example_rule(application),
        stores=stores,
        clock=clock,
        more_assets=[build_levers_report_asset(application)],
        more_checks=[build_drift_check(application)],
    )
