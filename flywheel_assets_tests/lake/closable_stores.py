"""Stores that a test opens and closes: a Postgres server ends only when no connection to it is left."""

from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores


class ClosableStores(Stores):
    """Stores whose pooled connections to a Postgres end with a test."""

    def __init__(self, given: Settings) -> None:
        super().__init__(given)
        self.lakes: list[Lake] = []

    def lake(self, application: str) -> Lake:
        self.lakes.append(super().lake(application))
        return self.lakes[-1]

    def close(self) -> None:
        for lake in self.lakes:
            if "catalog" in vars(lake):
                lake.catalog.engine.dispose()
