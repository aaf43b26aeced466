"""The two kinds of flywheel, each as a contents page of one application's code location, in data order."""

import dagster as dg

from flywheel_assets.application import ClassificationApplication, PreferenceApplication
from flywheel_assets.defs.assembly import assemble
from flywheel_assets.defs.assets.classification import (
    classifier_assets,
    drift_check,
    example_assets,
    levers_report_asset,
)
from flywheel_assets.defs.assets.feedback import feedback_assets
from flywheel_assets.defs.assets.preference import adapter_assets, pair_assets
from flywheel_assets.defs.automation.training_rules import example_rule, pair_rule
from flywheel_assets.defs.checks import breaker_check
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
        daily=[*feedback_assets(application), *pair_assets(application)],
        versions=adapter_assets(application),
        rule=pair_rule(application),
        stores=stores,
        clock=clock,
        more_checks=[breaker_check(application)],
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
        daily=[*feedback_assets(application), *example_assets(application)],
        versions=classifier_assets(application),
        rule=example_rule(application),
        stores=stores,
        clock=clock,
        more_assets=[levers_report_asset(application)],
        more_checks=[drift_check(application)],
    )
