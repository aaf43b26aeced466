"""Reads every setting from the environment (`FLYWHEEL_…`) or `.env`; no other module reads the environment."""

import getpass
import os
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flywheel_assets.errors import SettingsError


class Settings(BaseSettings):
    """Holds every setting; the defaults run everything on one machine."""

    model_config = SettingsConfigDict(env_prefix="FLYWHEEL_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(
        Path(".flywheel"), description="Folder of all lasting data; the settings below can move each part."
    )
    group_reads: bool = Field(
        False,
        description="Whether the group of its user may read what the flywheel writes; else only that user may.",
    )
    applications: str = Field(
        "",
        description="Modules of a team's own applications, package.module,…; the last word is the application's name. "
        "Default: the modules of installed entry points, else this package's examples.",
    )
    landing_dir: Path | None = Field(None, description="Landing zone. Default: <home>/landing.")
    landing_s3: str | None = Field(
        None,
        description="s3://BUCKET/PREFIX: capture ships sealed segments there, and Dagster reads them there; the "
        "landing folder is then only a waiting room. Default: the landing folder itself.",
    )
    # Addresses may hold passwords: printing the settings leaves them out.
    catalog_uri: str | None = Field(
        None, repr=False, description="Iceberg SQL catalog. Default: sqlite:///<home>/catalog.db."
    )
    warehouse: str | None = Field(None, description="Iceberg warehouse, a URI. Default: file://<home>/warehouse.")
    versions_dir: Path | None = Field(
        None, description="Exports, adapters and reports of gold versions. Default: <home>/versions."
    )
    models_dir: Path | None = Field(None, description="Base models addressed by name. Default: <home>/models.")
    hub_offline: bool | None = Field(
        None,
        description="Whether training and evaluation stay away from the hub: true, false, or as HF_HUB_OFFLINE says. "
        "Default: only where the base model is a folder.",
    )
    mlflow_uri: str | None = Field(
        None, repr=False, description="MLflow tracking server. Default: sqlite:///<home>/mlflow.db."
    )
    erasure_key: str | None = Field(
        None,
        repr=False,
        description="Secret of the hashes that erasures leave. Default: a file in <home> that the first erasure makes.",
    )
    s3_endpoint: str | None = Field(
        None, description="URL of an S3 server other than AWS; keys and region come from the standard AWS settings."
    )

    # The address of a webhook is a secret: everybody who has it can post to it.
    alert_webhook: str | None = Field(
        None,
        repr=False,
        description="http(s) URL that gets failed runs and tripped days as JSON; Slack's webhooks read it too.",
    )

    promotion_webhook_secret: str | None = Field(
        None,
        repr=False,
        description="whsec_…: signs what the webhook of `on_promotion` gets, as a Standard Webhook. Default: unsigned.",
    )

    capture_host: str = Field("127.0.0.1", description="Address the capture service listens on.")
    capture_port: int = Field(8700, ge=0, le=65535, description="Port of the capture service; 0 takes a free one.")
    capture_segment_bytes: int = Field(64 * 2**20, ge=1024, description="A segment is sealed at this size, in bytes.")
    capture_segment_age_s: float = Field(10.0, gt=0, description="A segment is sealed at this age, in seconds.")
    capture_event_bytes: int = Field(4 * 2**20, ge=1024, description="Largest single event, in bytes.")
    capture_request_bytes: int = Field(32 * 2**20, ge=1024, description="Largest request body, in bytes.")
    capture_batch_events: int = Field(10_000, ge=1, description="Most events in one request.")
    capture_queue_events: int = Field(
        20_000, ge=1, description="Events waiting for the disk before capture answers 503."
    )
    capture_in_progress_bytes: int = Field(
        128 * 2**20, ge=2**20, description="Bodies of all requests in progress, in bytes, before capture answers 503."
    )
    capture_any_clock: bool = Field(
        False, description="Start capture even where the machine's time contradicts the days on which events landed."
    )
    capture_min_free_bytes: int = Field(
        128 * 2**20, ge=0, description="Capture answers 503 while less is free on the landing zone's disk, in bytes."
    )
    queue: str = Field(
        "local",
        description="The first place of an acknowledged event: local (this disk), sqs://HOST/ACCOUNT/QUEUE or "
        "kafka://HOST:PORT/TOPIC; from a broker `flywheel drain` moves events into the landing zone.",
    )
    queue_properties_file: Path | None = Field(
        None, description="JSON object of librdkafka properties for a kafka queue, for instance credentials."
    )
    capture_keys_file: Path | None = Field(None, description="Keys of capture. Default: <home>/capture_keys.json.")
    capture_events_per_s: float = Field(
        2_000, gt=0, description="Rate limit of a key that has none of its own, in events per second and process."
    )
    capture_trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses and networks of proxies before capture, separated by commas: it believes their "
        "X-Forwarded-For and X-Forwarded-Proto, and bounds no connections of one of them.",
    )

    def list_trusted_proxies(self) -> tuple[str, ...]:
        """List the addresses and networks of proxies before capture."""
        return tuple(each.strip() for each in self.capture_trusted_proxies.split(",") if each.strip())

    dagster_url: str | None = Field(
        None, description="Address of Dagster's UI, for links on the page of the wheel. `flywheel dev` sets it."
    )
    mlflow_url: str | None = Field(
        None,
        description="Address of MLflow's UI, for links on the page of the wheel. `flywheel dev` sets it. Default: "
        "FLYWHEEL_MLFLOW_URI, where that is a server.",
    )
    price_cpu_hour: float | None = Field(
        None, ge=0, description="Price of an hour of training or evaluation on a CPU, for the page of the wheel."
    )
    price_gpu_hour: float | None = Field(None, ge=0, description="The same on a GPU.")
    price_gib_month: float | None = Field(None, ge=0, description="Price of storing a GiB for a month.")
    price_currency: str = Field("EUR", description="Currency of the prices.")
    review_sampled_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Part of the admitted pairs that the review pages offer for a second look, drawn by chance; the "
        "verdicts give the error rate on the page of the wheel. 0: none.",
    )
    review_proxy_header: str = Field(
        "",
        description="Header in which a reverse proxy names the reviewer whom it has signed in, for instance "
        "X-Forwarded-User. Default: none; reviewers sign in with a key.",
    )
    review_proxy_addresses: str = Field(
        "", description="Addresses and networks of that proxy, 10.0.3.4,10.0.4.0/24; the header of others is refused."
    )

    review_openid_issuer: str = Field(
        "",
        description="https address of the OpenID Connect provider that signs reviewers in. Default: none; reviewers "
        "sign in with a key.",
    )
    review_openid_client_id: str = Field("", description="This service's client id at that provider.")
    review_openid_client_secret: str = Field("", repr=False, description="The client's secret.")
    review_openid_reviewers: str = Field(
        "",
        description="Who may review: verified mail addresses, @domain, or sub:ID of an account, separated by commas.",
    )

    def resolve_home(self) -> Path:
        """Return the home as an absolute path."""
        return self.home.expanduser().resolve()

    def list_named_applications(self) -> tuple[str, ...]:
        """List the modules that FLYWHEEL_APPLICATIONS names, in its order."""
        return tuple(module.strip() for module in self.applications.split(",") if module.strip())

    def resolve_landing_dir(self) -> Path:
        """Return the landing zone's root."""
        return self.landing_dir or self.resolve_home() / "landing"

    def resolve_catalog_uri(self) -> str:
        """Return the SQLAlchemy URI of the Iceberg catalog.

        The timeout lets SQLite wait for its lock instead of failing.
        """
        return self.catalog_uri or f"sqlite:///{self.resolve_home()}/catalog.db?timeout=60"

    def resolve_warehouse(self) -> str:
        """Return the URI under which the tables' files lie."""
        return self.warehouse or f"file://{self.resolve_home()}/warehouse"

    def resolve_versions_dir(self) -> Path:
        """Return the folder of gold versions: exports, adapters and reports."""
        return self.versions_dir or self.resolve_home() / "versions"

    def resolve_models_dir(self) -> Path:
        """Return the folder of the base models that an application addresses by name."""
        return self.models_dir or self.resolve_home() / "models"

    def resolve_mlflow_uri(self) -> str:
        """Return MLflow's tracking and registry URI."""
        return self.mlflow_uri or f"sqlite:///{self.resolve_home()}/mlflow.db"

    def find_mlflow_url(self) -> str | None:
        """Return the address of MLflow's UI; None: it is not known."""
        is_server = (self.mlflow_uri or "").startswith(("http://", "https://")) and "@" not in (self.mlflow_uri or "")
        return self.mlflow_url or (self.mlflow_uri if is_server else None)

    def resolve_capture_keys_file(self) -> Path:
        """Return the private file that holds capture's keys."""
        return self.capture_keys_file or self.resolve_home() / "capture_keys.json"

    def resolve_review_dir(self) -> Path:
        """Return the folder of the review pages' indexes of decisions, one file per application."""
        return self.resolve_home() / "review"

    def list_local_places(self) -> list[Path]:
        """List the folders on this machine that hold users' texts; those that do not exist yet as well."""
        uri = self.resolve_warehouse()
        warehouse = [] if "://" in uri and not uri.startswith("file:") else [Path(uri.removeprefix("file://"))]
        return [self.resolve_home(), self.resolve_landing_dir(), *warehouse, self.resolve_versions_dir()]

    @property
    def closed_bits(self) -> int:
        """Return the permissions that nothing of the flywheel gives, as `umask` takes them."""
        return 0o027 if self.group_reads else 0o077

    def resolve_dagster_home(self) -> Path:
        """Return Dagster's instance folder: DAGSTER_HOME where it is set, else a folder in the home."""
        chosen = os.environ.get("DAGSTER_HOME")
        return Path(chosen) if chosen else self.resolve_home() / "dagster"


@cache
def read_settings() -> Settings:
    """Read the process's settings, once.

    Raises:
        SettingsError: some are unreadable or out of their range; names all of them, never what they hold.
    """
    try:
        return Settings()
    except ValidationError as error:
        # The message leaves out the values: a setting may hold a password. So pydantic's error is not its cause either.
        wrong = [
            f"FLYWHEEL_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
    raise SettingsError(f"{'; '.join(wrong)}. Correct the environment or .env.")


def keep_files_private() -> int:
    """Let this process and its children write files that others cannot read; return the umask before.

    Files below the home hold users' texts. A umask that is narrower already stays.
    """
    before = os.umask(0o077)
    os.umask(before | read_settings().closed_bits)
    return before


def explain_unwritable(settings: Settings) -> str | None:
    """Say why this user cannot write to the home, and what to do; None: it can, or can make it."""
    home, user = settings.resolve_home(), getpass.getuser()
    # Not `Path.exists`, which raises where a folder above may not be entered.
    nearest = next(folder for folder in (home, *home.parents) if os.path.lexists(folder))
    elsewhere = f"or set FLYWHEEL_HOME, which is {home}, to another folder."
    if not nearest.is_dir():
        return f"{nearest} is no folder: remove it, {elsewhere}"
    place: Path | None = None
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        place = nearest
    elif nearest == home:
        parts = [part for part in sorted(home.iterdir()) if part.is_dir() or part.suffix == ".db"]
        place = next((part for part in parts if not os.access(part, os.W_OK)), None)
    if place is None:
        return None
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} lies on a disk that is mounted read-only: mount it for writing, {elsewhere}"
    if place == nearest != home:
        return f"{user} may not make a folder in {place}: make {home} there and give it to {user}, {elsewhere}"
    return f"{user} may not write to {place}: give it to {user} (`sudo chown -R {user} {place}`), {elsewhere}"


def isolate_settings(home: Path) -> Settings:
    """Return settings whose every place lies in `home`, whatever places the environment names; no alert is sent."""
    return Settings(
        home=home,
        landing_dir=None,
        landing_s3=None,
        catalog_uri=None,
        warehouse=None,
        versions_dir=None,
        models_dir=None,
        mlflow_uri=None,
        erasure_key=None,
        s3_endpoint=None,
        alert_webhook=None,
        queue="local",
        queue_properties_file=None,
        capture_keys_file=None,
    )


def build_subprocess_environment(*, base_model: str | None = None, **extra: str) -> dict[str, str]:
    """Copy this process's environment for a child of ours, by default without telemetry.

    Args:
        base_model: folder or hub id that the child loads; a folder needs no hub, so that nothing is asked there.
        extra: further variables.
    """
    offline = read_settings().hub_offline
    if offline is None and base_model is not None and Path(base_model).exists():
        offline = True
    quiet = {
        **({} if offline is None else {"HF_HUB_OFFLINE": str(int(offline))}),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    return {**quiet, **os.environ, **extra}
