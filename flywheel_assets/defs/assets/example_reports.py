"""Declares assets without partitions that report on gold examples."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.defs.partitions import GROUP
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES


def example_report(
    application: ClassificationApplication, description: str
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare a report on an application's `hard_examples`; it has the name of the function."""
    return dg.asset(
        key_prefix=application.name,
        group_name=GROUP.format(application.name, "monitoring"),
        owners=application.owners,
        tags=application.tags,
        kinds={"duckdb"},
        deps=[dg.AssetDep([application.name, HARD_EXAMPLES.name])],
        description=description,
    )
