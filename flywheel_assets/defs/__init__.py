"""The Dagster definitions; with `applications/` the only room that imports dagster."""
