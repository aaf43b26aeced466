"""The training process from request to result: what it refuses, what it reports, what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from flywheel_assets.errors import EmptyVersionError, ManifestMismatchError, TrainingError, VersionConflictError
from flywheel_assets.lake.versions.exports import ExportSet
from flywheel_assets.models.generation import generate, hash_adapter, load_model
from flywheel_assets.models.rendering import RowEncoder
from flywheel_assets.training.adapter import main, train_adapter
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import TrainingReport, TrainingRequest
from flywheel_assets_tests.training import small_world as world


def small_week(**sizes: int) -> Any:
    return world.rows_of_a_week(1, **{"pairs": 24, "accepted": 6, "holdout": 4, "regression": 2, **sizes})


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return world.write_version(tmp_path / "export", small_week())


@pytest.fixture
def asked(export: Path, tmp_path: Path) -> TrainingRequest:
    return second_long(export, tmp_path)


def second_long(export: Path, root: Path, **recipe: Any) -> TrainingRequest:
    """A training of a second, on a base model that writes noise."""
    request: TrainingRequest = world.request(
        export, world.blank_base(), root, sft_epochs=1.0, selection_min_rows=1, selection_share=0.2, **recipe
    )
    return request


@dataclass(frozen=True)
class Trained:
    """What `asked` leaves behind; tests that write train or copy it to folders of their own."""

    export: Path
    output: Path
    work: Path
    report: TrainingReport

    def copied(self, root: Path) -> Path:
        """Its result under `root`, as a training there would have left it."""
        return Path(shutil.copytree(self.output, root / "training"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    export = world.write_version(root / "export", small_week())
    request = second_long(export, root)
    return Trained(export, root / "training", root / "work", train_adapter(request))


def changed(asked: TrainingRequest, **fields: Any) -> TrainingRequest:
    return msgspec.structs.replace(asked, **fields)


def test_everything_exported_is_accounted_for_and_reported(trained: Trained) -> None:
    report = trained.report
    rows = report.rows
    assert rows.pairs_exported == rows.pairs_used + rows.pairs_kept_back == 24
    assert rows.accepted_exported == rows.accepted_used + rows.accepted_kept_back == 6
    assert rows.pairs_kept_back > 0
    assert set(report.stages) == {"sft", "preference"}
    assert report.chosen_stage in report.why.lower() or "second stage" in report.why
    deltas = pq.read_table(trained.output / "deltas.parquet")
    assert deltas.num_rows == rows.pairs_used == report.delta_rows
    exported = {row.pair_id for row in small_week()[ExportSet.TRAIN]}
    assert set(deltas["pair_id"].to_pylist()) < exported
    assert report.mean_delta_chosen == pytest.approx(sum(deltas["delta_chosen"].to_pylist()) / deltas.num_rows)
    assert report.to_parameters()["sft_epochs"] == 1.0
    written = (trained.output / "training.json").read_bytes()
    assert msgspec.json.decode(written, type=TrainingReport) == report


def test_the_result_folder_holds_two_adapters_and_the_work_folder_no_rows(trained: Trained) -> None:
    output = trained.output
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()) == [
        *("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "deltas.parquet"),
        *("sft_adapter/adapter_config.json", "sft_adapter/adapter_model.safetensors", "training.json"),
    ]
    assert hash_adapter(output / "adapter") == trained.report.adapter_sha256
    assert {path.name for path in trained.work.iterdir()} <= {"owner.txt", "trainer.lock"}


@pytest.mark.long
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(
    trained: Trained, asked: TrainingRequest, export: Path, tmp_path: Path
) -> None:
    first, again = trained.report, train_adapter(asked)
    assert (first.adapter_sha256, first.sft_adapter_sha256) == (again.adapter_sha256, again.sft_adapter_sha256)
    other = second_long(export, tmp_path / "other", seed=1)
    assert train_adapter(other).sft_adapter_sha256 != first.sft_adapter_sha256


def test_a_finished_training_is_verified_and_returned(trained: Trained, asked: TrainingRequest, tmp_path: Path) -> None:
    moved = trained.copied(tmp_path / "moved")
    assert train_adapter(changed(asked, output_dir=str(moved))) == trained.report
    (moved / "sft_adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ManifestMismatchError, match="sft_adapter"):
        train_adapter(changed(asked, output_dir=str(moved)))


def test_a_result_is_never_given_to_another_request(trained: Trained, export: Path, tmp_path: Path) -> None:
    trained.copied(tmp_path)
    with pytest.raises(VersionConflictError, match="another request"):
        train_adapter(world.request(export, world.blank_base(), tmp_path, sft_epochs=2.0))


def test_a_training_of_two_stages_answers_its_application_after_the_default_became_one_stage(
    trained: Trained, asked: TrainingRequest, tmp_path: Path
) -> None:
    """Its report names no stages: with the digest alone the upgrade would refuse every finished training."""
    asked = changed(asked, recipe=replace(asked.recipe, stages=AdapterRecipe().stages))
    written = trained.copied(tmp_path) / "training.json"
    asked = changed(asked, output_dir=str(written.parent))
    with pytest.raises(VersionConflictError, match="another request"):
        train_adapter(asked)
    report = json.loads(written.read_text())
    assert report["recipe"].pop("stages") == "two_stages"
    written.write_text(json.dumps(report))
    assert train_adapter(asked) == trained.report
    with pytest.raises(VersionConflictError, match="another request"):
        train_adapter(changed(asked, recipe=replace(asked.recipe, stages="sft")))


@pytest.mark.long
def test_work_of_another_request_is_not_resumed(
    trained: Trained, asked: TrainingRequest, export: Path, tmp_path: Path
) -> None:
    """The first request finished its SFT stage and died; the second has another rate and the same work folder."""
    other = world.request(export, world.blank_base(), tmp_path, sft_epochs=2.0, preference_epochs=0.0)
    train_adapter(changed(other, work_dir=asked.work_dir, output_dir=str(tmp_path / "other")))
    shutil.copytree(tmp_path / "other" / "sft_adapter", Path(asked.work_dir) / "sft" / "result")
    (Path(asked.work_dir) / "sft" / "result" / "stage.json").write_text(
        '{"steps":1,"resumed_from_step":0,"loss":1.0,"seconds":1.0}'
    )
    assert train_adapter(asked).sft_adapter_sha256 == trained.report.sft_adapter_sha256


def test_a_changed_export_is_refused(asked: TrainingRequest, export: Path) -> None:
    with pytest.raises(ManifestMismatchError, match="expected"):
        train_adapter(changed(asked, manifest_sha256="0" * 64))
    lines = (export / "dpo_gold_v1.jsonl").read_text().splitlines()
    (export / "dpo_gold_v1.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ManifestMismatchError, match=r"dpo_gold_v1\.jsonl"):
        train_adapter(asked)
    assert not Path(asked.output_dir).exists()


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    rows = world.rows_of_a_week(1, pairs=0, accepted=6, holdout=1, regression=1)
    export = world.write_version(tmp_path / "export", rows)
    with pytest.raises(EmptyVersionError):
        train_adapter(world.request(export, world.blank_base(), tmp_path))


def test_a_row_that_is_too_long_stops_the_training_before_it_starts_and_is_never_cut(tmp_path: Path) -> None:
    """The trainer used to cut the completion, and with it the end, or to drop the row without a word."""
    rows = world.rows_of_a_week(1, pairs=24, accepted=6, holdout=1, regression=1)
    export = world.write_version(tmp_path / "export", rows)
    with pytest.raises(
        TrainingError, match=r"too_many_tokens.*max_length is 2\. The version was cut for another recipe"
    ):
        train_adapter(world.request(export, world.blank_base(), tmp_path, max_length=2))


def test_demonstrations_are_trained_on_in_the_first_stage(tmp_path: Path) -> None:
    rows = world.rows_of_a_week(1, pairs=8, accepted=2, holdout=1, regression=1)
    shown = world.rows_of_a_week(2, pairs=0, accepted=3, holdout=0, regression=0)[ExportSet.ACCEPTED]
    export = world.write_version(tmp_path / "export", {**rows, ExportSet.DEMONSTRATIONS: shown})
    report = train_adapter(
        world.request(export, world.blank_base(), tmp_path, preference_epochs=0.0, sft_epochs=1.0, batch_size=1)
    )
    assert (report.rows.demonstrations_exported, report.rows.demonstrations_used) == (3, 3)
    assert report.stages["sft"].steps == 8 + 2 + 3


def rows_with_verdicts() -> Any:
    """A week with three objections, and with choices between answers of which people accepted half."""
    rows = world.rows_of_a_week(1, pairs=12, accepted=4, holdout=1, regression=1)
    compared = [
        msgspec.structs.replace(
            row, example_kind="comparison", admitted_as="confirmed_comparison" if place % 2 else "comparison"
        )
        for place, row in enumerate(
            world.rows_of_a_week(2, pairs=6, accepted=0, holdout=0, regression=0)[ExportSet.TRAIN]
        )
    ]
    objected = [
        msgspec.structs.replace(row, chosen="", example_kind="objection")
        for row in world.rows_of_a_week(3, pairs=3, accepted=0, holdout=0, regression=0)[ExportSet.TRAIN]
    ]
    return {**rows, ExportSet.TRAIN: [*rows[ExportSet.TRAIN], *compared], ExportSet.OBJECTIONS: objected}


@pytest.mark.long
def test_objections_are_learnt_where_the_recipe_weighs_them_and_doubtful_winners_never_written(tmp_path: Path) -> None:
    export = world.write_version(tmp_path / "export", rows_with_verdicts())
    found = {}
    for weight in (0.0, 1.0):
        asked = world.request(
            export, world.blank_base(), tmp_path / f"{weight}",
            stages="one_stage", objection_weight=weight, selection_share=0.0, sft_epochs=1.0, batch_size=1,
        )  # fmt: skip
        found[weight] = train_adapter(asked)
    without, with_them = found[0.0], found[1.0]
    assert (with_them.rows.objections_exported, with_them.rows.objections_used) == (3, 3)
    assert (without.rows.objections_exported, without.rows.objections_used) == (3, 0)
    assert without.rows.winners_not_written == with_them.rows.winners_not_written == 3
    for report in found.values():
        assert report.stages["sft"].steps == 12 + 3 + 4
    assert without.stages["one_stage"].steps == 12 + 6 + 4
    assert with_them.stages["one_stage"].steps == 12 + 6 + 4 + 3
    assert without.sft_adapter_sha256 == with_them.sft_adapter_sha256
    assert without.adapter_sha256 != with_them.adapter_sha256


def test_a_version_of_nothing_but_doubtful_winners_is_written_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An imported set of chosen and rejected answers has no other text, and SFT would have no row."""
    rows = rows_with_verdicts()
    compared = [
        msgspec.structs.replace(row, admitted_as="comparison")
        for row in rows[ExportSet.TRAIN]
        if row.example_kind == "comparison"
    ]
    export = world.write_version(tmp_path / "export", {ExportSet.TRAIN: compared})
    report = train_adapter(world.request(export, world.blank_base(), tmp_path, stages="sft", sft_epochs=1.0))
    assert (report.rows.pairs_used, report.rows.winners_not_written) == (6, 0)
    assert "all are written" in caplog.text


def test_a_base_model_without_safetensors_is_refused(asked: TrainingRequest, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(TrainingError, match="safetensors"):
        train_adapter(changed(asked, base_model=str(pickled)))


def test_too_few_people_to_compare_on_leave_the_second_stage_out(export: Path, tmp_path: Path) -> None:
    asked = world.request(export, world.blank_base(), tmp_path, sft_epochs=1.0, selection_min_rows=1000)
    report = train_adapter(asked)
    assert (report.chosen_stage, list(report.stages)) == ("sft", ["sft"])
    assert "left out" in report.why
    assert report.rows.pairs_used == 24
    assert report.adapter_sha256 == report.sft_adapter_sha256


@pytest.mark.long
def test_one_stage_is_trained_from_the_base_next_to_the_sft_baseline(
    trained: Trained, export: Path, tmp_path: Path
) -> None:
    asked = second_long(export, tmp_path, stages="one_stage")
    report = train_adapter(asked)
    assert set(report.stages) == {"sft", "one_stage"}
    assert report.stages["one_stage"].steps == report.stages["sft"].steps
    assert report.sft_adapter_sha256 == trained.report.sft_adapter_sha256
    assert report.memory.keys() == {"sft", "one_stage"}
    assert report.memory["one_stage"].sequences == 2 * report.memory["sft"].sequences
    assert "one stage" in report.why
    assert "wrong answers" in report.why
    assert all(0 <= each.wrong_answers <= 1 for each in report.selection.values())  # type: ignore[operator]
    assert {path.name for path in (tmp_path / "work").iterdir()} <= {"owner.txt", "trainer.lock"}
    always = second_long(export, tmp_path / "always", stages="one_stage")
    always = changed(always, recipe=replace(always.recipe, selection_share=0.0))
    report = train_adapter(always)
    assert report.chosen_stage == "one_stage"
    assert report.adapter_sha256 != report.sft_adapter_sha256


def test_a_recipe_of_sft_alone_keeps_nobody_back(export: Path, tmp_path: Path) -> None:
    report = train_adapter(second_long(export, tmp_path, stages="sft"))
    assert (report.chosen_stage, set(report.stages)) == ("sft", {"sft"})
    assert report.rows.pairs_kept_back == 0


@pytest.mark.long
def test_an_inferior_second_stage_makes_the_sft_adapter_the_challenger(tmp_path: Path) -> None:
    rows = world.rows_of_a_week(1, pairs=160, accepted=30, holdout=1, regression=1)
    export = world.write_version(tmp_path / "export", rows)
    asked = world.request(
        export, world.trained_base(), tmp_path,
        loss_types=("sigmoid",), loss_weights=(1.0,), preference_learning_rate=2e-2, preference_epochs=4.0,
        selection_share=0.2,
    )  # fmt: skip
    report = train_adapter(asked)
    assert report.chosen_stage == "sft"
    assert "inferior" in report.why
    assert "the SFT adapter is the challenger" in report.why
    assert report.selection["preference"].ned > report.selection["sft"].ned + 0.1
    assert report.adapter_sha256 == report.sft_adapter_sha256


@pytest.mark.long
def test_messages_are_trained_on_through_the_chat_template(tmp_path: Path) -> None:
    """The template renders a message as the prompts that the base knows, so that the adapter must learn from them."""

    def as_messages(row: Any) -> Any:
        content = row.prompt.removeprefix("# ").removesuffix("\n")
        prompt = json.dumps([{"role": "user", "content": content}])
        return msgspec.structs.replace(row, prompt=prompt, prompt_format="messages")

    rows = world.rows_of_a_week(1, pairs=200, accepted=30, holdout=30, regression=1)
    export = world.write_version(
        tmp_path / "export", {which: [as_messages(row) for row in of_set] for which, of_set in rows.items()}
    )
    base = world.give_template(world.trained_base(), tmp_path / "base")
    train_adapter(world.request(export, base, tmp_path, preference_epochs=0.0))
    model, tokenizer = load_model(str(base), str(tmp_path / "training" / "adapter"), device="cpu")
    wanted = [as_messages(row) for row in rows[ExportSet.HOLDOUT]]
    encoder = RowEncoder(tokenizer, world.RECIPE.rendering)
    written = generate(model, tokenizer, [encoder.encode_prompt(row.prompt, "messages") for row in wanted], 40)
    assert sum(out.text == row.chosen and out.ended for out, row in zip(written, wanted, strict=True)) >= 27


def run(request: Path, *, wait: bool = True) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flywheel_assets.training.adapter", str(request)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    if wait:
        process.wait(120)
    return process


def test_a_failure_is_one_json_line_an_error_file_and_an_exit_code(
    trained: Trained, asked: TrainingRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = world.write_request(tmp_path / "request.json", changed(asked, manifest_sha256="0" * 64))
    assert main([str(request)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    failure = json.loads(line)
    assert (failure["error"], failure["is_transient"]) == ("ManifestMismatchError", False)
    assert json.loads((tmp_path / "work" / "error.json").read_text()) == failure
    trained.copied(tmp_path)
    assert main([str(world.write_request(tmp_path / "request.json", asked))]) == 0
    assert not (tmp_path / "work" / "error.json").exists()


def test_without_the_train_extra_the_error_holds_the_command_that_installs_it(
    asked: TrainingRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(asked))
    assert main([str(tmp_path / "request.json")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["error"], said["is_transient"]) == ("SettingsError", False)
    assert said["message"].startswith("training an adapter needs trl, not installed")
    assert "pip install 'flywheel_assets[train]'" in said["message"]


@pytest.mark.parametrize("content", ["{", '{"recipe": {"loss_types": ["sigmoid"]}}', None])
def test_an_unreadable_request_is_a_settings_error(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "request.json").write_text(content)
    assert main([str(tmp_path / "request.json")]) == 1
    assert json.loads(capsys.readouterr().err)["error"] == "SettingsError"


def test_a_trainer_that_outlived_its_run_is_not_disturbed(
    asked: TrainingRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    with FileLock(tmp_path / "work" / "trainer.lock"):
        assert main([str(world.write_request(tmp_path / "request.json", asked))]) == 75
        assert "another trainer" in json.loads(capsys.readouterr().err)["message"]
        assert not (tmp_path / "work" / "owner.txt").exists()
    assert main([str(world.write_request(tmp_path / "request.json", asked))]) == 0


def test_running_out_of_disk_is_transient(
    asked: TrainingRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr("flywheel_assets.training.adapter.train_sft", full)
    assert main([str(world.write_request(tmp_path / "request.json", asked))]) == 75
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["is_transient"] is True
    assert not Path(asked.output_dir).exists()


def test_a_librarys_message_is_not_passed_on_because_it_may_quote_a_user(
    asked: TrainingRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user_text = "-".join(["what", "a", "user", "wrote"])

    def quoting(*_: Any, **__: Any) -> None:
        raise ValueError(f"cannot tokenize {user_text}")

    monkeypatch.setattr("flywheel_assets.training.adapter.train_sft", quoting)
    assert main([str(world.write_request(tmp_path / "request.json", asked))]) == 1
    errors = capsys.readouterr().err
    assert user_text not in errors + (tmp_path / "work" / "error.json").read_text()
    assert "ValueError in quoting" in errors


@pytest.mark.slow
def test_a_trainer_killed_by_the_kernel_goes_on_and_ends_with_the_same_adapter(export: Path, tmp_path: Path) -> None:
    recipe = {"sft_epochs": 60.0, "checkpoint_every_steps": 20, "preference_epochs": 0.0}
    straight = train_adapter(world.request(export, world.blank_base(), tmp_path / "straight", **recipe))
    asked = world.request(export, world.blank_base(), tmp_path, **recipe)
    request = world.write_request(tmp_path / "request.json", asked)
    process = run(request, wait=False)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "work" / "sft" / "checkpoints").glob("checkpoint-*/_COMPLETE")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "training").exists()
    finished = run(request)
    _, errors = finished.communicate()
    assert finished.returncode == 0, errors
    report = msgspec.json.decode((tmp_path / "training" / "training.json").read_bytes(), type=TrainingReport)
    assert report.stages["sft"].resumed_from_step >= 20
    assert report.adapter_sha256 == straight.adapter_sha256
