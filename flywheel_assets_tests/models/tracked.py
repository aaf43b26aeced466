"""A registry's runs and models as MLflow's own client shows them."""

from typing import TYPE_CHECKING

from flywheel_assets.models.registry import ModelRegistry

if TYPE_CHECKING:
    from mlflow import MlflowClient


def client_of(registry: ModelRegistry) -> "MlflowClient":
    """A client of the registry's MLflow; open the registry first, which creates the database."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=registry.uri, registry_uri=registry.uri)


def empty_run(registry: ModelRegistry, gold_version: str) -> str:
    """The id of the version's run, made without any figure where there is none yet."""
    return registry.log_run(gold_version, params={}, metrics={}, datasets=(), tags={})
