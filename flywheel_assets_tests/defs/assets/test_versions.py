"""The end of a turn, broken off at every point where it can break: a repeated run finishes it."""

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from flywheel_assets.application import PreferenceApplication, PromotionHook
from flywheel_assets.defs.assets import preference
from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, TRANSIENT
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest, Scored, Scores, Stratum
from flywheel_assets.lake.versions.exports import Manifest, encode_manifest
from flywheel_assets.lake.versions.folders import (
    Promotion,
    VersionFolder,
    count_looks,
    find_anchor,
    read_promotion,
    record_promotion,
)
from flywheel_assets.measures.texts import Interval, SubjectMeans
from flywheel_assets.promotion.text_limits import Evidence, Measured, PromotionLimits
from flywheel_assets_tests.models.tracked import client_of, empty_run

V1, V2 = "dpo_gold_v1", "dpo_gold_v2"
SCORES = Scores(
    rows=40,
    subjects=30,
    ned=0.2,
    zero_edit=0.5,
    missing_end=0.0,
    log_p_chosen=-1.0,
    delta_log_p_chosen=0.1,
    chosen_fallen=0.0,
    length_ratio=1.0,
    repetition=0.0,
    reward_accuracy=None,
)
EVIDENCE = Evidence(
    incumbent="base",
    ned_gain=Interval(0.3, 0.2, 0.4, 40, 30),
    likelihood=Measured(gain=SubjectMeans((1.0,) * 30, 40), lost=SubjectMeans((0.0,) * 30, 40)),
    missing_end=0.0,
    incumbent_missing_end=0.0,
    challenger_ned=0.2,
    sft_ned=0.2,
    canary_ratio=0.0,
)
APPLICATION = PreferenceApplication(
    name="assistant", description="test", start_date=date(2026, 9, 1), base_model="base"
)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    """Two trained versions, registered; what evaluates them writes down only whom it compared them with."""
    stores = Stores(home=str(tmp_path))
    for version in (V1, V2):
        folder = folder_of(stores, version)
        (folder.training / "adapter").mkdir(parents=True)
        (folder.training / "adapter" / "adapter_config.json").write_text("{}")
        folder.export.mkdir()
        manifest = Manifest(
            version=version,
            application="assistant",
            snapshot_id=1,
            files={},
            dropped={},
            days={},
            rules={},
            code_version="",
        )
        (folder.export / "manifest.json").write_bytes(encode_manifest(manifest))

    def evaluate(context: object, pipes: object, module: str, request: EvaluationRequest) -> None:
        report = EvaluationReport(
            request_sha256="",
            manifest_sha256="",
            champion_version=request.champion_version,
            champion_sha256=None,
            base_weights_sha256="",
            challenger_sha256="",
            sft_sha256="",
            rows_sha256="",
            rows_left_out=0,
            scores={Scored.BASE: {Stratum.PRIMARY: SCORES}},
            evidence=EVIDENCE,
            seconds=1.0,
            device="cpu",
        )
        Path(request.output_dir).mkdir(exist_ok=True)
        (Path(request.output_dir) / "evaluation.json").write_bytes(msgspec.json.encode(report))

    def log(registry, application, folder, report) -> str:
        run_id = empty_run(registry, folder.version)
        registry.register_adapter(folder.version, run_id, folder.training / "adapter", "a" * 64)
        return run_id

    monkeypatch.setattr(preference, "run_in_own_process", evaluate)
    monkeypatch.setattr(preference, "_log_to_mlflow", log)
    return stores


def folder_of(stores: Stores, version: str) -> VersionFolder:
    return stores.versions("assistant").folder(version)


def finish(stores: Stores, version: str, application: PreferenceApplication = APPLICATION, *names: str) -> str | None:
    """Materialize evaluation and promotion (or `names`) in one run; the tag of its failure, None when it succeeded."""
    definitions = preference_flywheel(application, stores)
    chosen = names or ("adapter_evaluation", "promotion")
    assets = [definitions.resolve_assets_def(["assistant", name]) for name in chosen]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("assistant_gold_versions", [V1, V2])
        result = dg.materialize(assets, instance=instance, partition_key=version, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        return None if result.success else run.tags[FAILURE_TAG]


def serving(stores: Stores) -> str | None:
    champion = stores.registry("assistant").find_champion()
    return champion.gold_version if champion else None


@pytest.mark.long
def test_a_failed_turn_of_the_wheel_is_finished_by_running_it_again(stores: Stores, tmp_path: Path) -> None:
    told = tmp_path / "told"
    broken = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", "raise SystemExit(3)")))
    tells = replace(
        APPLICATION,
        # Meanwhile somebody tightened a limit: the alias has moved all the same.
        limits=PromotionLimits(min_subjects=1000),
        on_promotion=PromotionHook(command=(sys.executable, "-c", f"open({str(told)!r}, 'a').write('x')")),
    )
    assert finish(stores, V1, broken) == TRANSIENT
    assert serving(stores) == V1
    assert not folder_of(stores, V1).is_finished

    assert finish(stores, V1, tells) is None
    first = read_promotion(folder_of(stores, V1).promotion)
    assert (first.promoted, told.read_text()) == (True, "x")
    assert "limits of today" in first.sentence

    # V2 is evaluated against V1, but V1 is taken back to nothing before its promotion: a new run evaluates again.
    assert finish(stores, V2, APPLICATION, "adapter_evaluation") is None
    client_of(stores.registry("assistant")).delete_registered_model_alias("assistant", "champion")
    assert finish(stores, V2, APPLICATION, "promotion") == PERMANENT
    assert finish(stores, V2) is None
    second = read_promotion(folder_of(stores, V2).promotion)
    assert (second.promoted, second.champion_before, serving(stores)) == (True, None, V2)

    # The record holds what the decision can be computed again from.
    # By the limits of that day nothing was tested for the first.
    assert (first.look, second.route, second.look, second.alpha) == (None, "proven_gain", 1, 0.025)

    # A decided version is left as it was decided.
    before = (folder_of(stores, V1).evaluation / "evaluation.json").read_bytes()
    assert finish(stores, V1) is None
    assert (folder_of(stores, V1).evaluation / "evaluation.json").read_bytes() == before
    assert serving(stores) == V2
    challenger = stores.registry("assistant").find_challenger()
    assert challenger is not None
    assert challenger.gold_version == V2


def decided(stores: Stores, number: int, champion: str | None, **changes: object) -> VersionFolder:
    folder = folder_of(stores, f"dpo_gold_v{number}")
    folder.training.mkdir(parents=True, exist_ok=True)
    folder.training_report.write_text("{}")
    values = {"promoted": False, "route": None, "look": 1, **changes}
    record_promotion(
        folder.promotion,
        Promotion(version=folder.version, sentence="", champion_before=champion, checks=[], **values),  # type: ignore[arg-type]
    )
    return folder


def test_every_challenger_of_one_champion_spends_of_the_same_alpha(tmp_path: Path) -> None:
    stores = Stores(home=str(tmp_path))
    decided(stores, 1, None, promoted=True, route="proven_gain")
    decided(stores, 2, V1)
    decided(stores, 3, V1, look=None)  # too few people: nothing was tested
    versions, new = stores.versions("assistant"), folder_of(stores, "dpo_gold_v4")
    assert count_looks(versions, new, V1) == 2
    assert count_looks(versions, new, None) == 2
    assert count_looks(versions, new, V2) == 1


def test_a_promotion_by_newer_data_does_not_renew_alpha(tmp_path: Path) -> None:
    """It changed the champion without a gain: equal models would each be tested at the full level, turn after turn."""
    stores = Stores(home=str(tmp_path))
    decided(stores, 1, None, promoted=True, route="proven_gain")
    decided(stores, 2, V1, promoted=True, route="newer_data")
    decided(stores, 3, V2, promoted=True, route="newer_data")
    versions, new = stores.versions("assistant"), folder_of(stores, "dpo_gold_v4")
    assert count_looks(versions, new, "dpo_gold_v3") == 3
    assert count_looks(versions, new, V1) == 2


def test_the_anchor_is_the_last_version_that_was_promoted_by_a_proven_gain(tmp_path: Path) -> None:
    stores = Stores(home=str(tmp_path))
    first = decided(stores, 1, None, promoted=True, route="proven_gain")
    decided(stores, 2, V1, promoted=True, route="newer_data")
    third = decided(stores, 3, V2, promoted=True, route="newer_data")
    versions = stores.versions("assistant")
    assert find_anchor(versions, first) == first
    assert find_anchor(versions, third) == first
    first.training_report.unlink()
    assert find_anchor(versions, third) is None
