"""Resources: where an application's data lie, and what time it is."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.storage.commits import commit_lock
from flywheel_assets.lake.storage.s3 import s3_client
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.models.registry import ModelRegistry
from flywheel_assets.settings import Settings, settings

_ALIAS_TIMEOUT_S = 60.0


class Stores(dg.ConfigurableResource[None]):
    """Landing zone, lake, gold versions and model registry, from the settings (`FLYWHEEL_…`)."""

    home: str | None = Field(default=None, description="Overrides FLYWHEEL_HOME, for tests and for the demo.")

    def _settings(self) -> Settings:
        return settings() if self.home is None else Settings(home=Path(self.home))

    def landing(self) -> LandingPlace:
        """The landing zone of all applications: a folder, or a prefix of an S3 bucket."""
        where = self._settings()
        if where.landing_s3 is None:
            return DiskLanding(where.resolved_landing_dir())
        return ObjectLanding.at(where.landing_s3, self.s3_client())

    def lake(self, application: str) -> Lake:
        """The Iceberg tables of one application."""
        where = self._settings()
        return Lake(
            application,
            where.resolved_catalog_uri(),
            where.resolved_warehouse(),
            where.resolved_home() / "scratch",
            where.erasure_key,
            {"s3.endpoint": where.s3_endpoint} if where.s3_endpoint else {},
        )

    def versions(self, application: str) -> Versions:
        """The gold versions of one application."""
        return Versions(self._settings().resolved_versions_dir(), application)

    def registry(self, application: str) -> ModelRegistry:
        """The MLflow experiment and registered model of one application."""
        where = self._settings()
        # Where the lake's commits are serialised the aliases are, too: whoever shares the one shares the other.
        lock = partial(
            commit_lock, where.resolved_catalog_uri(), self.scratch("locks"), f"{application}.models", _ALIAS_TIMEOUT_S
        )
        return ModelRegistry(where.resolved_mlflow_uri(), application, where.resolved_home() / "mlartifacts", lock)

    def base_model(self, name: str) -> str:
        """A base model as a local path where the models folder or the disk has it, else as the hub id it may be."""
        local = self._settings().resolved_models_dir() / name
        return str(local if local.exists() else name)

    def s3_client(self) -> Any:
        """S3's client, by the standard AWS settings and `FLYWHEEL_S3_ENDPOINT`."""
        from dagster_aws.s3 import S3Resource

        class BoundedS3Resource(S3Resource):
            """dagster-aws has no setting for how long a silent server is waited for."""

            def get_client(self) -> Any:
                return s3_client(self.endpoint_url)

        return BoundedS3Resource(endpoint_url=self._settings().s3_endpoint).get_client()

    def landing_folder(self) -> Path:
        """Landing on this machine's disk: the zone itself, or capture's way to S3."""
        return self._settings().resolved_landing_dir()

    def review_index(self, application: str) -> Path:
        """Where this machine remembers what reviewers decided; see `review.decisions`."""
        return self._settings().resolved_review_dir() / f"{application}.jsonl"

    def scratch(self, *parts: str) -> Path:
        """A folder for work in progress."""
        return self._settings().resolved_home().joinpath("scratch", *parts)


class Clock(dg.ConfigurableResource[None]):
    """The time that decides which landing days are closed."""

    fixed: str | None = Field(default=None, description="An RFC 3339 time to stand still at, for tests.")

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.fromisoformat(self.fixed) if self.fixed else datetime.now(UTC)
