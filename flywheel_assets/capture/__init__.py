"""The HTTP service that takes events in; it knows nothing of Dagster."""
