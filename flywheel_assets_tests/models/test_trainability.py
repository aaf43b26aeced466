"""The process that reads the rows of a version with the base model's tokenizer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel_assets.errors import ProcessDiedError, SettingsError
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet
from flywheel_assets.lake.versions.trainability import Untrainable
from flywheel_assets.models import trainability
from flywheel_assets.models.rendering import Rendering
from flywheel_assets.models.trainability import TrainabilityCheck
from flywheel_assets_tests.models.chat_templates import make_tokenizer
from flywheel_assets_tests.training.small_world import exported


def save(folder: Path, family: str, template: str | None = None) -> str:
    make_tokenizer(family, template).save_pretrained(folder)
    return str(folder)


def rows_of(*prompts: object) -> list[tuple[ExportSet, ExportedRow]]:
    return [
        (ExportSet.HOLDOUT, exported(number, json.dumps(prompt), "Done!", None, "u", prompt_format="messages"))
        for number, prompt in enumerate(prompts)
    ]


def test_the_process_names_the_rows_that_cannot_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainability, "ROWS_AT_ONCE", 2)
    fine, only_system = {"role": "user", "content": "Hi \u2028\n"}, {"role": "system", "content": "x"}
    rows = rows_of([fine], [only_system], [fine], [fine, fine], [fine])
    check = TrainabilityCheck(base_model=save(tmp_path, "gemma"), rendering=Rendering())
    refused = "the chat template refuses it: "
    assert list(check(rows)) == [
        Untrainable(ExportSet.HOLDOUT, rows[1][1].pair_id, "template_refused", f"{refused}System role not supported"),
        Untrainable(
            ExportSet.HOLDOUT,
            rows[3][1].pair_id,
            "template_refused",
            f"{refused}roles must alternate: user, assistant, user",
        ),
    ]


def test_the_process_imports_no_torch(tmp_path: Path) -> None:
    """The tokenizers' library imports torch wherever it is installed: a second and 300 MB for nothing."""
    program = (
        "import sys\n"
        "from flywheel_assets.models import trainability_process\n"
        "trainability_process.main()\n"
        "loaded = [name for name, module in sys.modules.items() if name.split('.')[0] == 'torch' and module]\n"
        "sys.exit(f'imported {loaded[:3]}' if loaded else 0)\n"
    )
    question = {"base_model": save(tmp_path, "chatml"), "rendering": {"max_length": 4}}
    row = {"pair_id": "a", "prompt": "Hi", "prompt_format": "text", "chosen": "Hello", "rejected": None}
    row |= {"subject": "u", "similarity": None, "prompt_hash": "", "completed_date": "", "model_version": None}
    lines = json.dumps(question) + "\n" + json.dumps([row]) + "\n"
    done = subprocess.run([sys.executable, "-c", program], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ready, answer = map(json.loads, done.stdout.splitlines())
    assert ready["refused"] == []
    assert answer["refused"][0][:2] == [0, "too_many_tokens"]


def test_a_base_without_a_tokenizer_is_a_setting_to_correct(tmp_path: Path) -> None:
    check = TrainabilityCheck(base_model=str(tmp_path), rendering=Rendering())
    with pytest.raises(SettingsError, match="has no tokenizer that can be loaded"):
        list(check(rows_of([{"role": "user", "content": "Hi"}])))


def test_missing_libraries_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.extras.find_spec", lambda _: None)
    check = TrainabilityCheck(base_model="base", rendering=Rendering())
    with pytest.raises(
        SettingsError, match=r"needs tokenizers, transformers, .*pip install 'flywheel_assets\[train\]'"
    ):
        list(check([]))


def fake(tmp_path: Path, then: str) -> str:
    """A program in the place of Python: it answers the first line as the process does, then does something else."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\nread line\necho '{{}}'\n{then}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("then", ["exec tail -f /dev/null", "read line; exec tail -f /dev/null"])
def test_a_process_that_hangs_fails_the_cut(then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat template may loop; a process that reads nothing more must not hold the writer either."""
    monkeypatch.setattr(sys, "executable", fake(tmp_path, then))
    check = TrainabilityCheck(base_model="base", rendering=Rendering(), timeout_s=0.2)
    with pytest.raises(ProcessDiedError, match=r"no answer within 0\.2 s, so no version was cut"):
        list(check(rows_of([{"role": "user", "content": "long " * 100_000}])))


def test_a_process_that_dies_fails_the_cut_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake(tmp_path, "read line; kill -9 $$"))
    check = TrainabilityCheck(base_model="base", rendering=Rendering())

    with pytest.raises(ProcessDiedError, match="ended without an answer, so no version was cut") as failure:
        list(check(rows_of([{"role": "user", "content": "Hi"}])))
    assert failure.value.is_transient


@pytest.mark.long
def test_messages_for_a_base_without_a_template_are_said_to_become_plain_turns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Serving may well send such conversations otherwise: the cut says what it did, and how to set a template."""
    check = TrainabilityCheck(base_model=save(tmp_path / "plain", "chatml", ""), rendering=Rendering())
    rows = rows_of([{"role": "user", "content": "Hi"}])
    assert list(check(rows)) == []
    (said,) = caplog.messages
    assert "the prompts of 1 rows are messages, and the base model's tokenizer has no chat template" in said
    assert "save it as chat_template.jinja in the base model's folder" in said
    caplog.clear()
    only_text = [(ExportSet.TRAIN, exported(1, "Hi", "Done!", None, "u"))]
    assert list(check(only_text)) == []
    assert list(TrainabilityCheck(base_model=save(tmp_path / "chat", "chatml"), rendering=Rendering())(rows)) == []
    assert not caplog.messages


def test_a_template_that_is_put_into_the_folder_is_the_one_that_is_used(tmp_path: Path) -> None:
    """As the sentence about the missing template advises."""
    base = save(tmp_path, "chatml", "")
    check = TrainabilityCheck(base_model=base, rendering=Rendering())
    before = check.judged_by
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('mine') }}")
    (refused,) = check(rows_of([{"role": "user", "content": "Hi"}]))
    assert refused.detail == "the chat template refuses it: mine"
    assert check.judged_by != before
    assert str(tmp_path) not in json.dumps(before)
