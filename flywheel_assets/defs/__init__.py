"""The Dagster definitions; with `applications/` the only room that imports dagster."""

import warnings

# Range runs rest on single-run backfills, trainers on Pipes; Dagster says on every load that parts of them may change.
warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)", module="dagster|flywheel_assets")
