"""Builds the Dagster definitions: assets, jobs, schedules, sensors, checks and resources of each application.

Every body calls one function of a lower room. Only this room, `applications/` and the demo's entrances import
dagster; it may import every room below `review`.
"""

import warnings

# Range runs use single-run backfills and trainers use Pipes. On every load Dagster warns that both may change.
warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)", module="dagster|flywheel_assets")
