"""Stored recipes of every kind are read back, those of earlier releases too, and digests stay what they were."""

from pathlib import Path

import msgspec
import pytest

from flywheel_assets.errors import DamagedFileError, TrainingError
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.own_process import read_report, write_report
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.fitting import load_model
from flywheel_assets.models.trainers.text_classifier import TextClassifierRecipe
from flywheel_assets.records import make_stable_id
from flywheel_assets.training.requests import ClassifierTrainingReport
from flywheel_assets_tests.models.test_own_process import REPORT, REQUEST

RECIPES = [
    ClassifierRecipe(trees=7),
    ClassifierRecipe(recalibration="platt"),
    TextClassifierRecipe(base_model="tiny", lora_rank=4),
    CommandRecipe(command=("python", "train.py"), options={"C": 0.5, "name": "x", "fast": True, "n": 3}),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_report_keeps_the_recipe_of_its_kind(tmp_path: Path, recipe: TrainerRecipe) -> None:
    report = msgspec.structs.replace(REPORT, recipe=recipe)
    write_report(tmp_path / "training.json", report)
    assert read_report(tmp_path / "training.json", ClassifierTrainingReport) == report
    assert all(isinstance(value, int | float | str) for value in report.to_parameters().values())


def test_a_report_of_an_earlier_release_is_one_of_trees(tmp_path: Path) -> None:
    write_report(tmp_path / "training.json", REPORT)
    stored = msgspec.json.decode((tmp_path / "training.json").read_bytes())
    del stored["recipe"]["recalibration"]
    (tmp_path / "training.json").write_bytes(msgspec.json.encode(stored))
    assert read_report(tmp_path / "training.json", ClassifierTrainingReport) == REPORT


def test_the_digest_of_trees_is_that_of_earlier_releases() -> None:
    earlier = {
        "trees": 120,
        "leaves": 15,
        "learning_rate": 0.08,
        "min_leaf_hessian": 5.0,
        "max_bins": 4095,
        "l2": 0.0,
        "seed": 0,
        "threads": 1,
    }
    assert REQUEST.compute_digest() == make_stable_id("classifier", REQUEST.manifest_sha256, earlier)
    recalibrated = msgspec.structs.replace(REQUEST, recipe=ClassifierRecipe(recalibration="platt"))
    assert recalibrated.compute_digest() != REQUEST.compute_digest()


def test_a_recipe_of_a_later_release_is_named(tmp_path: Path) -> None:
    write_report(tmp_path / "training.json", REPORT)
    stored = msgspec.json.decode((tmp_path / "training.json").read_bytes()) | {"recipe": {"kind": "quantum"}}
    (tmp_path / "training.json").write_bytes(msgspec.json.encode(stored))
    # With the file and the way back, as of every other file of ours.
    with pytest.raises(
        DamagedFileError, match=r"training\.json .*kind is 'quantum'; valid are command, text_classifie"
    ):
        read_report(tmp_path / "training.json", ClassifierTrainingReport)


@pytest.mark.parametrize(("stored", "said"), [("{}", "says no kind"), ('{"kind": "quantum"}', "kind 'quantum'")])
def test_a_folder_of_an_unknown_kind_is_refused(tmp_path: Path, stored: str, said: str) -> None:
    (tmp_path / "model.json").write_text(stored)
    with pytest.raises(TrainingError, match=said):
        load_model(tmp_path)
