"""What a base model's folder says about its tokenizer, read without a model library."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel_assets.errors import SettingsError
from flywheel_assets.models.base_model import BaseModelFiles, examine_base_model, fingerprint_tokenizer
from flywheel_assets_tests.models.chat_templates import make_tokenizer


def save(folder: Path, *, template: str | None = None) -> Path:
    """A model's folder as `save_pretrained` writes it; its weights are an empty file."""
    make_tokenizer("chatml", template).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").touch()
    return folder


def test_the_file_that_holds_the_chat_template_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "base")
    template = folder / "chat_template.jinja"
    assert examine_base_model(str(folder)) == BaseModelFiles(is_local=True, chat_template=template.name)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template.read_text()}))
    template.unlink()
    assert examine_base_model(str(folder)).chat_template == config.name
    assert examine_base_model(str(save(tmp_path / "plain", template=""))).chat_template is None
    assert examine_base_model("owner/name") == BaseModelFiles(is_local=False, chat_template=None)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("config.json", "is no model of transformers: it lacks config.json"),
        ("tokenizer.json", r"it lacks a tokenizer \(tokenizer.json\)"),
        ("model.safetensors", r"it lacks weights \(\*.safetensors\)"),
        (".", "does not exist; valid: a model's folder, or an id on the hub"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_what_it_lacks(tmp_path: Path, missing: str, sentence: str) -> None:
    folder = save(tmp_path / "base")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SettingsError, match=sentence):
        examine_base_model(str(folder))


def test_a_broken_tokenizer_config_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", template="")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(SettingsError, match=r"tokenizer_config.json is no JSON"):
        examine_base_model(str(folder))


def test_the_fingerprint_is_of_the_tokenizer_and_of_no_place(tmp_path: Path) -> None:
    folder = save(tmp_path / "base")
    before = fingerprint_tokenizer(str(folder))
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / "model.safetensors").write_text("other weights")
    (moved / "README.md").write_text("notes")
    assert fingerprint_tokenizer(str(moved)) == before
    template = moved / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert fingerprint_tokenizer(str(moved)) != before
    assert fingerprint_tokenizer("owner/name") != fingerprint_tokenizer("owner/other")


def test_nothing_of_it_needs_a_model_library() -> None:
    program = (
        "import sys; from flywheel_assets.models.base_model import examine_base_model; examine_base_model('a/b'); "
        "sys.exit(bool({'transformers', 'torch', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
