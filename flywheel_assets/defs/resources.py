"""Defines the resources: the places of an application's data, and the time."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from flywheel_assets import stores
from flywheel_assets.extras import require_extra
from flywheel_assets.settings import Settings, read_settings


class Stores(dg.ConfigurableResource[None], stores.Stores):
    """Opens landing zone, lake, gold versions and model registry by the settings (`FLYWHEEL_…`)."""

    home: str | None = Field(default=None, description="Overrides FLYWHEEL_HOME, for tests and for the demo.")

    @property
    def where(self) -> Settings:
        """The settings, with another home where one is configured."""
        return read_settings() if self.home is None else Settings(home=Path(self.home))

    def s3_client(self) -> Any:
        """Open S3 by dagster-aws's resource, as a team's other assets do, with bounded waits."""
        require_extra("s3", "S3")
        from dagster_aws.s3 import S3Resource

        bounded = super().s3_client

        class BoundedS3Resource(S3Resource):
            """Bounds the wait for a silent server: dagster-aws has no setting for it."""

            def get_client(self) -> Any:
                return bounded()

        return BoundedS3Resource(endpoint_url=self.where.s3_endpoint).get_client()


class Clock(dg.ConfigurableResource[None]):
    """The time that decides which landing days are closed."""

    fixed: str | None = Field(default=None, description="A fixed RFC 3339 time, for tests.")

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.fromisoformat(self.fixed) if self.fixed else datetime.now(UTC)
