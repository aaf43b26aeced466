"""The Dagster definitions; with `applications/` the only room that imports dagster."""

import warnings

# Single-run backfills are the reason for this project's range runs; Dagster says on every load that they are beta.
warnings.filterwarnings("ignore", message=".*is currently in beta", module="dagster|flywheel_assets")
