"""A base model by its id: the processes fetch it from the hub, and ask no hub for a model that is a folder."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.settings import build_subprocess_environment, read_settings
from flywheel_assets.training.requests import REPORT_FILE
from flywheel_assets_tests.training import small_world as world
from flywheel_assets_tests.training.hub import serve_hub


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("FLYWHEEL_HUB_OFFLINE", raising=False)
    read_settings.cache_clear()


def test_only_a_folder_keeps_a_child_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE=1 stood in every child's environment: an id on the hub failed with a network at hand."""
    assert build_subprocess_environment(base_model=str(tmp_path))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in build_subprocess_environment(base_model="acme/tiny")
    # Not even for a service: its own children inherit the variable.
    assert "HF_HUB_OFFLINE" not in build_subprocess_environment()
    monkeypatch.setenv("FLYWHEEL_HUB_OFFLINE", "true")
    read_settings.cache_clear()
    assert build_subprocess_environment(base_model="acme/tiny")["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("FLYWHEEL_HUB_OFFLINE", "false")
    read_settings.cache_clear()
    assert build_subprocess_environment(base_model=str(tmp_path))["HF_HUB_OFFLINE"] == "0"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert build_subprocess_environment(base_model="acme/tiny")["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_a_model_is_fetched_from_the_hub_by_its_id(tmp_path: Path) -> None:
    base = world.give_template(world.blank_base(), tmp_path / "base")
    rows = world.rows_of_a_week(1, pairs=8, accepted=2, holdout=2, regression=1)
    export = world.write_version(tmp_path / "export", rows)
    with serve_hub({"acme/tiny": base}) as (address, asked):
        for model in ("acme/tiny", str(base)):
            root = tmp_path / model.rpartition("/")[2]
            asked.clear()
            request = world.request(export, Path("unused"), root, preference_epochs=0.0, sft_epochs=1.0)
            path = world.write_request(root / "request.json", msgspec.structs.replace(request, base_model=model))
            environment = build_subprocess_environment(
                base_model=model, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1"
            )
            command = [sys.executable, "-m", "flywheel_assets.training.adapter", str(path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            assert (root / "training" / REPORT_FILE).exists()
            fetched = {each.rpartition("/")[2] for each in asked if "/resolve/" in each}
            if model == "acme/tiny":
                assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= fetched
            else:
                assert not asked
