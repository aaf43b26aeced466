"""Resources: where an application's data lie, and what time it is."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from flywheel_assets import stores
from flywheel_assets.lake.storage.s3 import make_s3_client
from flywheel_assets.settings import Settings, settings


class Stores(dg.ConfigurableResource[None], stores.Stores):
    """Landing zone, lake, gold versions and model registry, from the settings (`FLYWHEEL_…`)."""

    home: str | None = Field(default=None, description="Overrides FLYWHEEL_HOME, for tests and for the demo.")

    @property
    def where(self) -> Settings:
        """The settings, at another home where one is configured."""
        return settings() if self.home is None else Settings(home=Path(self.home))

    def s3_client(self) -> Any:
        """Open S3 by dagster-aws's resource, as a team's other assets do, with bounded waits."""
        from dagster_aws.s3 import S3Resource

        class BoundedS3Resource(S3Resource):
            """dagster-aws has no setting for how long a request waits for a silent server."""

            def get_client(self) -> Any:
                return make_s3_client(self.endpoint_url)

        return BoundedS3Resource(endpoint_url=self.where.s3_endpoint).get_client()


class Clock(dg.ConfigurableResource[None]):
    """The time that decides which landing days are closed."""

    fixed: str | None = Field(default=None, description="An RFC 3339 time to stand still at, for tests.")

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.fromisoformat(self.fixed) if self.fixed else datetime.now(UTC)
