"""Builds the Dagster definitions; besides `applications/` and the demo no room imports dagster."""

import warnings

# Range runs use single-run backfills and trainers use Pipes. On every load Dagster warns that both may change.
warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)", module="dagster|flywheel_assets")
