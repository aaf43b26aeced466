"""The MLflow registry on SQLite: idempotent logging, and aliases that move only from where they were seen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

from flywheel_assets.errors import VersionConflictError
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.models.boosting import ClassifierRecipe, fit_classifier
from flywheel_assets.models.recalibration import Recalibration
from flywheel_assets.models.registry import EvaluatedDataset, ModelRegistry, RegisteredModel
from flywheel_assets.models.trainers.fitting import RecalibratedModel
from flywheel_assets_tests.models.test_boosting import world
from flywheel_assets_tests.models.tracked import client_of

DATASET = EvaluatedDataset(
    name="dpo_gold_v1.holdout",
    manifest_sha256="a" * 64,
    iceberg_table="assistant.curated_dpo_pairs",
    iceberg_snapshot_id=2**62 + 1,
    rows={"holdout": 40, "regression": 12},
)


def registry_in(folder: Path) -> ModelRegistry:
    return ModelRegistry(
        f"sqlite:///{folder}/mlflow.db", "assistant", folder / "artifacts", lambda: FileLock(folder / "models.lock")
    )


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    client_of(registry_in(folder)).search_registered_models()
    return folder / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, migrated: Path) -> ModelRegistry:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return registry_in(tmp_path)


def log(registry: ModelRegistry, gold_version: str, ned: float = 0.25, **params: object) -> str:
    return registry.log_run(
        gold_version,
        params={"r": 16, "loss_type": "apo_zero,sft", **params},
        metrics={"challenger/ned": ned},
        datasets=[DATASET],
        tags={"flywheel.decision": "promote"},
    )


def register(registry: ModelRegistry, gold_version: str) -> RegisteredModel:
    adapter = registry.artifacts.parent / gold_version / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_config.json").write_text("{}")
    return registry.register_adapter(gold_version, log(registry, gold_version), adapter, "a" * 64)


def serving(registry: ModelRegistry) -> str | None:
    champion = registry.find_champion()
    return champion.gold_version if champion else None


def test_a_store_that_was_never_made_holds_no_model_and_is_not_made_by_reading(tmp_path: Path) -> None:
    """`turn --now` of a new home ran MLflow's migrations, seconds of them, to hear that nothing serves."""
    registry = registry_in(tmp_path)
    assert registry.find_champion() is None
    assert registry.find_rollout().champion is None
    assert (registry.list_registered_versions(), registry.list_stored_models()) == ([], [])
    assert list(registry.describe_models(["v1"])) == [None]
    assert not (tmp_path / "mlflow.db").exists()


def test_nothing_serves_at_first(registry: ModelRegistry) -> None:
    assert (registry.find_champion(), registry.find_challenger()) == (None, None)


def test_a_run_holds_what_was_evaluated_on_what(registry: ModelRegistry, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("{}")
    run_id = registry.log_run(
        "dpo_gold_v1",
        params={"r": 16},
        metrics={"challenger/ned": 0.25, "base/ned": 0.5},
        datasets=[DATASET],
        files=[report],
        tags={"flywheel.decision": "promote"},
    )
    run = client_of(registry).get_run(run_id)
    assert (run.data.params, run.data.metrics) == ({"r": "16"}, {"challenger/ned": 0.25, "base/ned": 0.5})
    assert run.data.tags["flywheel.gold_version"] == "dpo_gold_v1"
    assert run.data.tags["flywheel.decision"] == "promote"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "dpo_gold_v1")
    [used] = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("dpo_gold_v1.holdout", "a" * 36)
    assert json.loads(used.dataset.source)["snapshot_id"] == 2**62 + 1
    assert {tag.key: tag.value for tag in used.tags}["iceberg.snapshot_id"] == str(2**62 + 1)
    assert [each.path for each in client_of(registry).list_artifacts(run_id)] == ["report.json"]
    assert str(registry.artifacts) in run.info.artifact_uri


def test_logging_again_writes_into_the_same_run(registry: ModelRegistry) -> None:
    first = log(registry, "dpo_gold_v1", ned=0.25)
    assert log(registry, "dpo_gold_v1", ned=0.5, later=1) == first
    assert log(registry, "dpo_gold_v10") != first
    run = client_of(registry).get_run(first)
    assert (run.data.metrics["challenger/ned"], run.data.params["later"]) == (0.5, "1")
    assert len(run.inputs.dataset_inputs) == 1


def test_registering_again_is_the_same_model_version(registry: ModelRegistry, tmp_path: Path) -> None:
    first = register(registry, "dpo_gold_v1")
    assert first == RegisteredModel("1", "dpo_gold_v1", tmp_path / "dpo_gold_v1" / "adapter", first.run_id)
    assert register(registry, "dpo_gold_v1") == first == registry.find_challenger()
    second = register(registry, "dpo_gold_v2")
    assert (second.model_version, registry.find_challenger()) == ("2", second)
    assert serving(registry) is None
    assert [each.path for each in client_of(registry).list_artifacts(first.run_id, "adapter")] == [
        "adapter/adapter_config.json"
    ]


def test_the_champion_moves_from_the_one_that_was_evaluated(registry: ModelRegistry) -> None:
    first, second = register(registry, "dpo_gold_v1"), register(registry, "dpo_gold_v2")
    assert registry.promote("dpo_gold_v1", None) == first
    assert registry.promote("dpo_gold_v2", "dpo_gold_v1") == second == registry.find_champion()


@pytest.mark.parametrize("expected", [None, "dpo_gold_v3"])
def test_the_champion_does_not_move_from_another(registry: ModelRegistry, expected: str | None) -> None:
    for gold_version in ("dpo_gold_v1", "dpo_gold_v2"):
        register(registry, gold_version)
    registry.promote("dpo_gold_v1", None)
    with pytest.raises(VersionConflictError, match=r"but dpo_gold_v1 serves now\. Evaluate it again"):
        registry.promote("dpo_gold_v2", expected)
    assert serving(registry) == "dpo_gold_v1"


def test_a_champion_that_is_gone_is_another_one_too(registry: ModelRegistry) -> None:
    register(registry, "dpo_gold_v2")
    with pytest.raises(VersionConflictError, match="evaluated against dpo_gold_v1, but nothing serves now"):
        registry.promote("dpo_gold_v2", "dpo_gold_v1")


def test_promoting_again_is_a_success(registry: ModelRegistry) -> None:
    """The run crashed after the alias had moved: it is run again with the champion that it had evaluated."""
    register(registry, "dpo_gold_v1")
    assert registry.promote("dpo_gold_v1", None) == registry.promote("dpo_gold_v1", None)
    assert serving(registry) == "dpo_gold_v1"


def test_what_was_never_registered_is_not_promoted(registry: ModelRegistry) -> None:
    with pytest.raises(VersionConflictError, match="no model is registered for dpo_gold_v1"):
        registry.promote("dpo_gold_v1", None)


def test_applications_do_not_see_each_other(registry: ModelRegistry) -> None:
    other = ModelRegistry(registry.uri, "assist", registry.artifacts, registry.lock)
    register(registry, "dpo_gold_v1")
    registry.promote("dpo_gold_v1", None)
    assert (other.find_champion(), other.find_challenger()) == (None, None)
    assert register(other, "dpo_gold_v1").model_version == "1"
    assert serving(other) is None


def test_versions_behind_the_first_page_are_found(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow answers in pages: registering an old version again must not make a second model of it."""
    first = register(registry, "dpo_gold_v1")
    client = client_of(registry)
    for number in range(2, 12):
        tags = {"flywheel.gold_version": f"dpo_gold_v{number}", "flywheel.model_dir": "x"}
        client.create_model_version("assistant", source="file:///x", run_id=first.run_id, tags=tags)
    search = type(client).search_model_versions
    monkeypatch.setattr(type(client), "search_model_versions", lambda client, where: search(client, where, 3))
    assert registry.promote("dpo_gold_v1", None) == first
    assert register(registry, "dpo_gold_v1") == first


def test_a_classifier_of_another_kind_is_loaded_by_pyfunc_as_it_was_stored(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    """Recalibrated trees are no plain LightGBM: its flavour would give the scores before the last step."""
    import mlflow.pyfunc

    features, labels, _ = world(2000)
    model = fit_classifier(features, labels, None, ClassifierRecipe(trees=5))
    recalibration = Recalibration(method="platt", slope=2.0, intercept=-1.0)
    RecalibratedModel(model, recalibration).save(tmp_path / "model")
    registered = registry.register_classifier(
        "fraud_gold_v1", log(registry, "fraud_gold_v1"), tmp_path / "model", "a" * 64
    )
    assert registered.model_dir == tmp_path / "model"
    version = client_of(registry).get_model_version("assistant", registered.model_version)
    stored = Path(urlsplit(version.source).path)
    assert not list(stored.rglob("*.pkl"))
    loaded = mlflow.pyfunc.load_model(str(stored))
    expected = recalibration.apply(model.predict(features))
    assert loaded.predict(features.to_pandas()).tolist() == expected.tolist()


def test_a_moved_home_finds_its_models_and_writes_nothing_at_the_old_place(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    """MLflow keeps absolute paths: runs of a copied home were logged into the original's folder."""
    adapter = tmp_path / "versions" / "assistant" / "dpo_gold_v1" / "training" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_text("weights")
    registry.register_adapter("dpo_gold_v1", log(registry, "dpo_gold_v1"), adapter, "a" * 64)
    registry.promote("dpo_gold_v1", None)
    copied = tmp_path / "copy"
    shutil.copytree(tmp_path, copied, ignore=shutil.ignore_patterns("copy"))
    before = sorted(str(path) for path in (tmp_path / "artifacts").rglob("*"))

    moved = replace(registry_in(copied), versions=Versions(copied / "versions", "assistant"))
    champion = moved.find_champion()
    assert champion is not None
    assert champion.model_dir == copied / "versions" / "assistant" / "dpo_gold_v1" / "training" / "adapter"
    run = log(moved, "dpo_gold_v2")
    assert client_of(moved).get_run(run).info.artifact_uri.startswith(f"file://{copied}/artifacts/assistant/")
    assert log(moved, "dpo_gold_v2") == run, "the experiment is begun once"
    assert sorted(str(path) for path in (tmp_path / "artifacts").rglob("*")) == before
