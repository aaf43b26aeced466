"""flywheel_assets: a Dagster project that turns production feedback into a better model."""

__version__ = "0.2.0.dev0"
