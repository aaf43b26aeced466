"""Opens every store that the settings name: lake, versions, landing zone, registry, S3, folders.

No other module turns `FLYWHEEL_…` into stores. A room that builds one by hand forgets a setting sooner or later: the
review pages once opened the lake without `FLYWHEEL_S3_ENDPOINT`, and asked AWS for tables that lay on a MinIO. A store
connects at its first use, and opening it imports no heavy library.
"""

import shutil
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from flywheel_assets.errors import LandingUnavailableError, SettingsError
from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.storage.commits import hold_lock
from flywheel_assets.lake.storage.s3 import make_s3_client
from flywheel_assets.lake.tables.home import refuse_newer_home
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.models.mlflow_traces import MlflowTraces
from flywheel_assets.models.registry import ModelRegistry
from flywheel_assets.settings import Settings, read_settings

_ALIAS_TIMEOUT_S = 60.0


class Stores:
    """Opens landing zone, lake, gold versions and model registry by one set of settings."""

    def __init__(self, given: Settings | None = None) -> None:
        """Take `given`, or the settings of the process."""
        self._given = given

    @property
    def where(self) -> Settings:
        """Return the settings."""
        return self._given or read_settings()

    def landing(self) -> LandingPlace:
        """Open the landing zone of all applications: a folder, or a prefix of an S3 bucket."""
        uri = self.where.landing_s3
        return DiskLanding(self.landing_folder()) if uri is None else ObjectLanding.from_uri(uri, self.s3_client())

    def find_first_day(self, application: str, start: date) -> date:
        """Find an application's first day: `start`, or the earlier day on which its imported history begins.

        Loading a code location asks for it. On a disk that reads one small file; on S3 one small object, whose last
        answer is kept on this machine for as long as S3 does not answer.
        """
        landing = self.landing()
        if landing.find_folder(application) is not None:
            first = landing.read_first_day(application)
        else:
            kept = DiskLanding(self.where.resolve_home() / "first_days")
            try:
                first = landing.read_first_day(application)
            except (LandingUnavailableError, SettingsError):
                first = kept.read_first_day(application)
            else:
                if first is not None:
                    kept.note_first_day(application, first)
        return start if first is None else min(start, first)

    def landing_folder(self) -> Path:
        """Return the landing folder on this machine's disk: the zone itself, or capture's way to S3.

        Raises:
            NewerReleaseError: a newer release made or upgraded this home.
        """
        refuse_newer_home(self.where.resolve_home())
        return self.where.resolve_landing_dir()

    def shipping(self) -> ObjectLanding | None:
        """Open the S3 landing zone that this machine ships sealed segments to.

        None: the segments' folder is the landing zone itself.

        Raises:
            SettingsError: `FLYWHEEL_LANDING_S3` cannot be understood, or boto3 is not installed.
        """
        uri = self.where.landing_s3
        if uri is None:
            return None
        # These timeouts are shorter than elsewhere, so that a service that stops while S3 is silent does not hang: the
        # segments are safe on this disk.
        return ObjectLanding.from_uri(uri, make_s3_client(self.where.s3_endpoint, connect_s=3.0, attempts=2))

    def lake(self, application: str) -> Lake:
        """Open the Iceberg tables of one application."""
        where = self.where
        return Lake(
            application,
            where.resolve_catalog_uri(),
            where.resolve_warehouse(),
            self.scratch(),
            where.erasure_key,
            {"s3.endpoint": where.s3_endpoint} if where.s3_endpoint else {},
        )

    def versions(self, application: str) -> Versions:
        """Open the gold versions of one application."""
        return Versions(self.where.resolve_versions_dir(), application)

    def registry(self, application: str) -> ModelRegistry:
        """Open the MLflow experiment and registered model of one application."""
        where = self.where
        # One lock serialises the lake's commits and the aliases: machines that share the one share the other.
        lock = partial(
            hold_lock, where.resolve_catalog_uri(), self.scratch("locks"), f"{application}.models", _ALIAS_TIMEOUT_S
        )
        artifacts, versions = where.resolve_home() / "mlartifacts", self.versions(application)
        return ModelRegistry(where.resolve_mlflow_uri(), application, artifacts, lock, versions)

    def mlflow_traces(self, experiment: str, uri: str | None) -> MlflowTraces:
        """Open the traces of an experiment; of the server that the settings name where `uri` is None."""
        return MlflowTraces(uri or self.where.resolve_mlflow_uri(), experiment)

    def source_memory(self, application: str, source: str) -> Path:
        """Return the file in which a source of events remembers what it has landed; see `capture.polling`."""
        return self.where.resolve_home() / "sources" / application / f"{source}.db"

    def base_model(self, name: str) -> str:
        """Return a base model's local path where it exists, else its name as a hub id."""
        local = self.where.resolve_models_dir() / name
        return str(local if local.exists() else name)

    def s3_client(self) -> Any:
        """Open boto3's client, by the standard AWS settings and `FLYWHEEL_S3_ENDPOINT`."""
        return make_s3_client(self.where.s3_endpoint)

    def review_index(self, application: str) -> Path:
        """Return the file in which this machine remembers reviewers' decisions; see `review.decisions`."""
        return self.where.resolve_review_dir() / f"{application}.jsonl"

    def scratch(self, *parts: str) -> Path:
        """Return a folder for work in progress."""
        return self.where.resolve_home().joinpath("scratch", *parts)


def prepare_dagster_home(dagster_home: Path, template: Path = Path("dagster.yaml")) -> None:
    """Make DAGSTER_HOME; an existing dagster.yaml there is the operator's and stays.

    Raises:
        SettingsError: there is no dagster.yaml to copy.
    """
    dagster_home.mkdir(parents=True, exist_ok=True)
    target = dagster_home / "dagster.yaml"
    if not target.exists():
        if not template.exists():
            raise SettingsError(f"{template.absolute()} does not exist; run from the project's folder")
        shutil.copyfile(template, target)
