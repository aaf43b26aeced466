"""Records runs and models in MLflow: one run per trained gold version, one model per application, two aliases.

`champion` is the model that serves, `challenger` the newest model that was proposed. Of a local store that was never
made, reading says that there is no model, without MLflow: neither days nor sensors need it before the first training.
The only module that imports
mlflow, and only inside functions: it costs 1.2 s, which sensors and the UI must not pay. Only the client is used, never
MLflow's global active run, so that nothing leaks from one run into another.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from flywheel_assets.errors import VersionConflictError
from flywheel_assets.extras import require_extra
from flywheel_assets.lake.fsck.models import StoredModel
from flywheel_assets.lake.tables.home import find_local_path
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.models.model_folder import hash_listing, is_plain_lightgbm
from flywheel_assets.models.rollout.events import BASE, ModelFacts
from flywheel_assets.models.rollout.traffic import RolloutState, StepKind

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
_DIGEST_CHARACTERS = 36  # MLflow's limit
_VERSION_TAG = "flywheel.gold_version"
_SHA256_TAG = "flywheel.adapter_sha256"
_ROLLOUT_TAG = "flywheel.rollout"
_DECISION_FOLLOWS_WITHIN = timedelta(hours=1)


@dataclass(frozen=True)
class EvaluatedDataset:
    """The rows a model was scored on, as MLflow records them."""

    name: str
    manifest_sha256: str
    iceberg_table: str
    iceberg_snapshot_id: int
    rows: Mapping[str, int]


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model version."""

    model_version: str
    gold_version: str
    model_dir: Path
    """The adapter's folder, or the classifier's."""
    run_id: str


@dataclass(frozen=True)
class ModelRegistry:
    """The experiment and the registered model of one application."""

    uri: str
    application: str
    artifacts: Path
    """Folder of this application's MLflow artifacts; MLflow's own default would be the working directory."""
    lock: Callable[[], AbstractContextManager[object]] = field(repr=False, compare=False)
    """Locked while an alias moves, since MLflow has no compare-and-swap: every machine that promotes must see it."""
    versions: Versions | None = None
    """The home's gold versions: where a home was moved, MLflow still names the models' folders at the old place."""

    @cached_property
    def _client(self) -> "MlflowClient":  # type: ignore[no-any-unimported]
        import logging

        require_extra("tracking", f"the model registry {self.uri.partition(':')[0]}", ("mlflow",))
        from mlflow import MlflowClient

        # Schema creation logs one line per migration; mlflow sets levels when it is imported, so ours come after.
        for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)

        if (database := self._find_database()) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def _is_begun(self) -> bool:
        """Return whether there can be a model: to ask a local store that was never made would make it."""
        path = self._find_database()
        return path is None or path.exists()

    def _find_database(self) -> Path | None:
        """Find the file of a local store; None: a server answers."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return Path(self.uri.removeprefix("sqlite:///").split("?")[0])

    @property
    def experiment(self) -> str:
        """MLflow's experiment name."""
        return f"flywheel/{self.application}"

    def find_champion(self) -> RegisteredModel | None:
        """Return the model that serves now; None before the first promotion."""
        return self._find_by_alias(CHAMPION)

    def find_challenger(self) -> RegisteredModel | None:
        """Return the newest model that was proposed."""
        return self._find_by_alias(CHALLENGER)

    def find_rollout(self) -> RolloutState:
        """Find the models that serve now, and the step that made it so.

        Where the alias was moved by other means than ours, all users have its model.
        """
        if not self._is_begun:
            return RolloutState(champion=None)
        models = self._client.search_registered_models(f"name = '{self.application}'")
        current = self.find_champion()
        champion = current.gold_version if current else None
        text = models[0].tags.get(_ROLLOUT_TAG) if models else None
        state = msgspec.json.decode(text, type=RolloutState) if text else None
        return state if state is not None and state.champion == champion else RolloutState(champion=champion)

    def describe_models(self, versions: Iterable[str | None]) -> dict[str | None, ModelFacts]:
        """Describe the models of gold versions as events do; None: the base model."""
        facts: dict[str | None, ModelFacts] = {None: BASE}
        for gold_version in versions:
            found = None if gold_version is None else self._find_version(gold_version)
            if found is not None:
                facts[gold_version] = ModelFacts(
                    gold_version=gold_version,
                    adapter_sha256=found.tags.get(_SHA256_TAG),
                    registry_version=str(found.version),
                    mlflow_run=str(found.run_id),
                    uri=str(self._client.get_model_version_download_uri(self.application, found.version)),
                )
        return facts

    def list_registered_versions(self) -> list[str]:
        """List the gold versions that a model is registered for."""
        if not self._is_begun:
            return []
        found = self._client.search_model_versions(f"name = '{self.application}'")
        return sorted(version.tags[_VERSION_TAG] for version in found)

    def list_stored_models(self) -> list[StoredModel]:
        """List every registered model with the places of its files."""
        if not self._is_begun:
            return []
        found = self._client.search_model_versions(f"name = '{self.application}'")
        state = self.find_rollout()
        # A promotion moves the alias before it writes the decision.
        is_recent = state.started_at is None or datetime.now(UTC) - state.started_at < _DECISION_FOLLOWS_WITHIN
        return [self._locate_model(version, None if is_recent else state.champion) for version in found]

    def _locate_model(self, version: "ModelVersion", serving: str | None) -> StoredModel:  # type: ignore[no-any-unimported]
        registered = self._to_registered_model(version)
        serves = registered.gold_version == serving and self.versions is not None
        uri = str(self._client.get_model_version_download_uri(self.application, version.version))
        return StoredModel(
            model_version=registered.model_version,
            gold_version=registered.gold_version,
            model_dir=registered.model_dir,
            sha256=version.tags.get(_SHA256_TAG),
            # The server's own scheme, mlflow-artifacts:/1/…, looks like a path otherwise.
            artifact=find_local_path(uri) if urlsplit(uri).scheme in ("", "file") else None,
            is_copy=uri.endswith("/adapter"),
            promotion=self.versions.folder(registered.gold_version).promotion if serves and self.versions else None,
        )

    def log_run(
        self,
        gold_version: str,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        datasets: Sequence[EvaluatedDataset],
        files: Sequence[Path] = (),
        tags: Mapping[str, str],
    ) -> str:
        """Record a training and its evaluation, once per gold version; return the MLflow run id.

        A repeated call writes into the same run: metrics get a new value, params must not have changed.
        """
        run_id = self._find_run(gold_version)
        client = self._client
        known = client.get_run(run_id).data.params
        for name, value in params.items():
            if name not in known:
                client.log_param(run_id, name, value)
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)
        for name, text in tags.items():
            client.set_tag(run_id, name, text)
        self._log_datasets(run_id, datasets)
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
        return run_id

    def register_adapter(
        self, gold_version: str, run_id: str, model_dir: Path, manifest_sha256: str
    ) -> RegisteredModel:
        """Store the adapter as a model version and give it the alias `challenger`; once per gold version."""

        def upload() -> str:
            self._client.log_artifacts(run_id, str(model_dir), "adapter")
            return "adapter"

        return self._register(gold_version, run_id, model_dir, manifest_sha256, upload)

    def register_classifier(
        self, gold_version: str, run_id: str, model_dir: Path, manifest_sha256: str
    ) -> RegisteredModel:
        """Store a classifier of any kind as a model version; `mlflow.pyfunc` loads it without pickle.

        Plain trees are stored in LightGBM's flavour and text. Any other kind is stored as its folder, with a module of
        this package as its loader: where it is loaded, `flywheel_assets` must be installed.

        Args:
            gold_version: the version that it was trained on.
            run_id: MLflow's run.
            model_dir: the trainer's `model` folder.
            manifest_sha256: of the version.
        """

        def upload_folder() -> str:
            import mlflow.pyfunc

            with TemporaryDirectory() as folder:
                mlflow.pyfunc.save_model(
                    f"{folder}/model",
                    loader_module="flywheel_assets.models.pyfunc_loader",
                    data_path=str(model_dir),
                    pip_requirements=["flywheel_assets"],
                )
                self._client.log_artifacts(run_id, f"{folder}/model", "model")
            return "model"

        def upload_lightgbm() -> str:
            import lightgbm
            import mlflow.lightgbm
            from mlflow.models import ModelSignature
            from mlflow.types import ColSpec, Schema

            with TemporaryDirectory() as folder:
                booster = lightgbm.Booster(model_file=model_dir / "model.txt")
                inputs = Schema([ColSpec("double", name) for name in booster.feature_name()])
                mlflow.lightgbm.save_model(
                    booster,
                    f"{folder}/model",
                    # Named, or MLflow would try out what the model needs, which takes a minute.
                    pip_requirements=[f"lightgbm=={lightgbm.__version__}"],
                    signature=ModelSignature(inputs, Schema([ColSpec("double")])),
                )
                self._client.log_artifacts(run_id, f"{folder}/model", "model")
            self._client.log_artifact(run_id, str(model_dir / "features.json"), "model")
            return "model"

        upload = upload_lightgbm if is_plain_lightgbm(model_dir) else upload_folder
        return self._register(gold_version, run_id, model_dir, manifest_sha256, upload)

    def _register(
        self, gold_version: str, run_id: str, model_dir: Path, manifest_sha256: str, upload: Callable[[], str]
    ) -> RegisteredModel:
        client = self._client
        with self.lock():
            registered = self._find_registered(gold_version)
            if registered is None:
                artifact = upload()
                self._ensure_model()
                version = client.create_model_version(
                    self.application,
                    source=f"{client.get_run(run_id).info.artifact_uri}/{artifact}",
                    run_id=run_id,
                    tags={
                        _VERSION_TAG: gold_version,
                        "flywheel.manifest_sha256": manifest_sha256,
                        "flywheel.model_dir": str(model_dir),
                        _SHA256_TAG: hash_listing(model_dir),
                    },
                ).version
                registered = RegisteredModel(str(version), gold_version, model_dir, run_id)
            client.set_registered_model_alias(self.application, CHALLENGER, registered.model_version)
        return registered

    def promote(
        self,
        gold_version: str,
        expected_champion: str | None,
        *,
        share: float = 1.0,
        kind: StepKind = StepKind.PROMOTION,
        now: datetime | None = None,
    ) -> RegisteredModel:
        """Move `champion` to the model of `gold_version`, if the champion is still the one it was scored against.

        Args:
            gold_version: the version whose model is promoted.
            expected_champion: gold version of the champion that was evaluated; None: there was none.
            share: part of the users that get it; the others keep the model that most users have.
            kind: a promotion or a rollback.
            now: begin of the step; None: the present.

        Raises:
            VersionConflictError: another model became champion meanwhile, or none is registered for `gold_version`.
        """
        with self.lock():
            current = self.find_champion()
            serving = current.gold_version if current else None
            registered = self._find_registered(gold_version)
            if registered is None:
                raise VersionConflictError(f"no model is registered for {gold_version}; materialize its evaluation")
            if serving == gold_version:
                return registered
            if serving != expected_champion:
                raise VersionConflictError(
                    f"{gold_version} was evaluated against {expected_champion or 'the base model'}, but "
                    f"{serving or 'nothing'} serves now. Evaluate it again against the new champion."
                )
            # The state first: until the alias follows, it names another champion and counts for nothing.
            self._write_rollout(
                RolloutState(
                    champion=gold_version,
                    predecessor=serving if kind is StepKind.ROLLBACK else self.find_rollout().find_opponent(),
                    share=share,
                    kind=kind,
                    replaces=serving,
                    started_at=now or datetime.now(UTC),
                    is_announced=False,
                )
            )
            self._client.set_registered_model_alias(self.application, CHAMPION, registered.model_version)
            return registered

    def retire_champion(self, expected_champion: str, *, now: datetime) -> None:
        """Take the alias `champion` away, so that the base model serves; without a champion nothing changes.

        Raises:
            VersionConflictError: another model became champion meanwhile.
        """
        with self.lock():
            current = self.find_champion()
            if current is None:
                return
            if current.gold_version != expected_champion:
                raise VersionConflictError(
                    f"{current.gold_version} serves now, and {expected_champion} when the plan was made. Plan again."
                )
            self._write_rollout(
                RolloutState(
                    champion=None,
                    predecessor=expected_champion,
                    kind=StepKind.ROLLBACK_TO_BASE,
                    replaces=expected_champion,
                    started_at=now,
                    is_announced=False,
                )
            )
            self._client.delete_registered_model_alias(self.application, CHAMPION)

    def replace_rollout(self, expected: RolloutState, changed: RolloutState) -> None:
        """Put a changed state in the place of the expected one; the champion stays.

        Raises:
            VersionConflictError: the state has changed since it was read.
        """
        with self.lock():
            found = self.find_rollout()
            if found != expected:
                raise VersionConflictError(
                    f"the rollout of {self.application} has changed meanwhile: {found.champion or 'the base model'} "
                    f"serves {found.share:.0%} of the users now. Look at it with `flywheel rollout`, then decide again."
                )
            self._write_rollout(changed)

    def _write_rollout(self, state: RolloutState) -> None:
        self._ensure_model()
        text = msgspec.json.encode(state).decode()
        self._client.set_registered_model_tag(self.application, _ROLLOUT_TAG, text)

    def find_experiment(self, run_id: str) -> str:
        """Find the id of the experiment that a run belongs to."""
        return str(self._client.get_run(run_id).info.experiment_id)

    def _find_run(self, gold_version: str) -> str:
        client = self._client
        experiment = client.get_experiment_by_name(self.experiment)
        location = (self.artifacts / self.application).absolute().as_uri()
        if experiment is not None and self._is_of_another_place(experiment.artifact_location, location):
            # MLflow cannot change it, and runs would write into the folder that this home was copied from.
            old = experiment.experiment_id
            client.rename_experiment(old, f"{self.experiment} (experiment {old}, before the home moved)")
            experiment = None
        if experiment is None:
            experiment_id = client.create_experiment(self.experiment, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        found = client.search_runs([experiment_id], f"tags.`{_VERSION_TAG}` = '{gold_version}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        created = client.create_run(experiment_id, run_name=gold_version, tags={_VERSION_TAG: gold_version})
        return str(created.info.run_id)

    def _log_datasets(self, run_id: str, datasets: Sequence[EvaluatedDataset]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for dataset in datasets:
            source = {"table": dataset.iceberg_table, "snapshot_id": dataset.iceberg_snapshot_id}
            entity = Dataset(
                name=dataset.name,
                # MLflow's own digest covers the first 10,000 rows only.
                digest=dataset.manifest_sha256[:_DIGEST_CHARACTERS],
                source_type="iceberg",
                source=json.dumps(source),
                profile=json.dumps(dict(dataset.rows)),
            )
            tags = [
                InputTag("mlflow.data.context", "eval"),
                InputTag("iceberg.snapshot_id", str(dataset.iceberg_snapshot_id)),
            ]
            inputs.append(DatasetInput(entity, tags))
        self._client.log_inputs(run_id, inputs)

    def _is_of_another_place(self, found: str, location: str) -> bool:
        """Return whether an experiment of this home's own database stores its files elsewhere on disk."""
        own = f"sqlite:///{self.artifacts.absolute().parent}/"
        return self.uri.startswith(own) and found.startswith("file:") and found.rstrip("/") != location

    def _ensure_model(self) -> None:
        if not self._client.search_registered_models(f"name = '{self.application}'"):
            self._client.create_registered_model(self.application)

    def _find_registered(self, gold_version: str) -> RegisteredModel | None:
        found = self._find_version(gold_version)
        return self._to_registered_model(found) if found is not None else None

    def _find_version(self, gold_version: str) -> "ModelVersion | None":  # type: ignore[no-any-unimported]
        if not self._is_begun:
            return None
        of_version = f"name = '{self.application}' AND tags.`{_VERSION_TAG}` = '{gold_version}'"
        found = self._client.search_model_versions(of_version)
        return found[0] if found else None

    def _find_by_alias(self, alias: str) -> RegisteredModel | None:
        if not self._is_begun:
            return None
        models = self._client.search_registered_models(f"name = '{self.application}'")
        if not models or alias not in models[0].aliases:
            return None
        return self._to_registered_model(self._client.get_model_version_by_alias(self.application, alias))

    def _to_registered_model(self, version: object) -> RegisteredModel:
        tags: dict[str, str] = getattr(version, "tags")  # noqa: B009  (mlflow's entities are untyped)
        gold_version, model_dir = tags[_VERSION_TAG], Path(tags["flywheel.model_dir"])
        if self.versions is not None:
            here = self.versions.folder(gold_version).training / model_dir.name
            model_dir = here if here.is_dir() else model_dir
        return RegisteredModel(
            model_version=str(getattr(version, "version")),  # noqa: B009
            gold_version=gold_version,
            model_dir=model_dir,
            run_id=str(getattr(version, "run_id")),  # noqa: B009
        )
