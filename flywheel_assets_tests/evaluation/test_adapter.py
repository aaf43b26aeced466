"""The evaluation with real models: untrained adapters around a random base are enough to check what it promises."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from flywheel_assets.errors import (
    EmptyVersionError,
    ManifestMismatchError,
    SettingsError,
    TransientError,
    VersionConflictError,
)
from flywheel_assets.evaluation.adapter import evaluate_adapter, main
from flywheel_assets.evaluation.options import EvaluationOptions, GenerationServer
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest, Scored, Stratum
from flywheel_assets.lake.versions.exports import ExportSet, hash_manifest, read_manifest, read_rows
from flywheel_assets.models import generation
from flywheel_assets.models.generation import (
    compute_token_log_probabilities,
    generate,
    load_adapters,
    load_model,
    silence_libraries,
)
from flywheel_assets.models.rendering import Rendering, RowEncoder, encode_rows, load_tokenizer
from flywheel_assets_tests.evaluation.model_server import serve
from flywheel_assets_tests.training.small_world import rows_of_a_week, save_base, write_request, write_version

Adapters = Callable[[str], Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("noise") / "base", steps=0)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    """Adapters by name; equal names are the same folder, other names have other weights."""
    folder = tmp_path_factory.mktemp("adapters")

    def adapter(name: str) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model

        if not (folder / name).exists():
            torch.manual_seed(sum(name.encode()))
            model, _ = load_model(str(base), None, device="cpu")
            config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
            with silence_libraries():
                get_peft_model(model, config).save_pretrained(folder / name)
        return folder / name

    return adapter


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = rows_of_a_week(1, pairs=6, accepted=2, holdout=12, regression=5)
    return write_version(tmp_path_factory.mktemp("gold") / "export", rows)


@pytest.fixture
def request_for(base: Path, adapters: Adapters, export: Path, tmp_path: Path) -> Callable[..., EvaluationRequest]:
    def make(**changes: Any) -> EvaluationRequest:
        values = {
            "export_dir": str(export),
            "manifest_sha256": hash_manifest(export),
            "base_model": str(base),
            "sft_adapter": str(adapters("sft")),
            "challenger_adapter": str(adapters("challenger")),
            "output_dir": str(tmp_path / "evaluation"),
            "work_dir": str(tmp_path / "work"),
            "bootstrap_draws": 50,
        }
        options = {name: changes.pop(name) for name in list(changes) if name in EvaluationOptions.__dataclass_fields__}
        return EvaluationRequest(**{**values, "options": EvaluationOptions(**{"device": "cpu", **options}), **changes})

    return make


def with_champion(adapters: Adapters, tmp_path: Path, name: str = "champion") -> dict[str, str]:
    """A champion whose version held out the first four of the rows, and was trained on the prompt of the fifth."""
    rows = rows_of_a_week(1, pairs=6, accepted=2, holdout=12, regression=5)
    held_out = rows[ExportSet.HOLDOUT]
    older = {
        ExportSet.TRAIN: [msgspec.structs.replace(held_out[4], pair_id="somebody-else", subject="engineer-1")],
        ExportSet.HOLDOUT: held_out[:4],
    }
    export = write_version(tmp_path / f"{name}-export", older, version="dpo_gold_v0")
    return {
        "champion_version": "dpo_gold_v0",
        "champion_export_dir": str(export),
        "champion_adapter": str(adapters(name)),
    }


@pytest.mark.long
def test_every_model_is_scored_on_the_same_rows(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, tmp_path: Path
) -> None:
    anchor = {
        "anchor_version": "dpo_gold_v0",
        "anchor_export_dir": str(write_version(tmp_path / "anchor-export", {}, version="dpo_gold_v0")),
        "anchor_adapter": str(adapters("anchor")),
    }
    report = evaluate_adapter(request_for(**with_champion(adapters, tmp_path), **anchor))
    rows = pq.read_table(tmp_path / "evaluation" / "rows.parquet").to_pylist()
    # Only a cross-fit's deployed adapter is another one than the challenger.
    scored = set(Scored) - {Scored.DEPLOYED}
    by_model = {
        model: {(row["pair_id"], row["stratum"]) for row in rows if row["model"] == model.value} for model in scored
    }
    assert {row["model"] for row in rows} == scored
    assert len(by_model[Scored.BASE]) == 17
    assert all(of_model == by_model[Scored.BASE] for of_model in by_model.values())
    counts = {stratum: scores.rows for stratum, scores in report.scores[Scored.CHALLENGER].items()}
    assert counts == {Stratum.PRIMARY: 7, Stratum.OLDER: 4, Stratum.SEEN_PROMPT: 1, Stratum.REGRESSION: 5}
    assert report.evidence.incumbent == "champion"
    assert report.evidence.ned_gain.rows == 7
    assert report.evidence.anchor == "dpo_gold_v0"
    assert report.evidence.anchor_likelihood_gain != report.evidence.likelihood.gain
    assert report.scores[Scored.CHAMPION][Stratum.PRIMARY].delta_log_p_chosen == 0.0


@pytest.mark.long
def test_the_report_reads_back_and_names_its_metrics(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path
) -> None:
    report = evaluate_adapter(request_for())
    read = msgspec.json.decode((tmp_path / "evaluation" / "evaluation.json").read_bytes(), type=EvaluationReport)
    assert read == report
    assert report.evidence.incumbent == "base"
    assert report.list_primary_ned().keys() == {"base", "sft", "challenger"}
    metrics = report.list_metrics()
    assert metrics["primary/challenger/ned"] == report.list_primary_ned()["challenger"]
    assert {"ned_gain/low", "regression/base/missing_end"} <= metrics.keys()
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.long
def test_wrong_answers_are_sampled_for_incumbent_sft_and_challenger_on_primary_pairs(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, tmp_path: Path
) -> None:
    report = evaluate_adapter(request_for(**with_champion(adapters, tmp_path), samples=3))
    assert set(report.wrong_answers) == {Scored.SFT, Scored.CHAMPION, Scored.CHALLENGER}
    challenger = report.wrong_answers[Scored.CHALLENGER]
    assert challenger.rows == report.scores[Scored.CHALLENGER][Stratum.PRIMARY].rows == 7
    assert 0 <= challenger.low <= challenger.mean <= challenger.high <= 1  # type: ignore[operator]
    assert report.scores[Scored.CHALLENGER][Stratum.PRIMARY].wrong_answer_rate == challenger.mean
    assert report.scores[Scored.CHALLENGER][Stratum.REGRESSION].wrong_answer_rate is None
    assert report.scores[Scored.BASE][Stratum.PRIMARY].wrong_answer_rate is None
    metrics = report.list_metrics()
    assert {"wrong_answer_rate/champion/low", "wrong_answer_rate/challenger/mean", "wrong_answer_fall/high"} <= set(
        metrics
    )
    assert metrics["primary/challenger/wrong_answer_rate"] == challenger.mean


def test_without_samples_there_is_no_rate_and_an_evaluation_of_before_stays_finished(
    request_for: Callable[..., EvaluationRequest],
) -> None:
    """An upgrade began to sample; evaluations that were finished without it must not be in its way."""
    before = evaluate_adapter(request_for(samples=0))
    assert (before.wrong_answers, before.wrong_answer_fall) == ({}, None)
    assert evaluate_adapter(request_for(samples=4)) == before


@pytest.mark.long
def test_no_file_holds_a_users_text(request_for: Callable[..., EvaluationRequest], tmp_path: Path) -> None:
    evaluate_adapter(request_for())
    for path in (tmp_path / "evaluation").iterdir():
        content = path.read_bytes()
        assert not any(text in content for text in (b"lake.read(", b"topic(", b"# send", b"time.sleep"))


@pytest.mark.long
def test_scores_do_not_depend_on_batches_or_on_the_other_adapters(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, base: Path, tmp_path: Path
) -> None:
    """Several adapters share one base in memory: switching must not leak one into the other, nor padding matter."""
    whole = evaluate_adapter(request_for())
    rows = rows_of_a_week(1, pairs=6, accepted=2, holdout=12, regression=5)[ExportSet.REGRESSION]
    model, tokenizer = load_model(str(base), str(adapters("challenger")), device="cpu")
    encoded = encode_rows(RowEncoder(tokenizer, Rendering()), rows)
    alone = compute_token_log_probabilities(model, [(row.prompt, row.chosen) for row in encoded], 1)
    scored = whole.scores[Scored.CHALLENGER][Stratum.REGRESSION]
    assert scored.log_p_chosen == pytest.approx(alone.mean(), rel=1e-5)
    smaller = evaluate_adapter(
        request_for(generation_rows_per_batch=5, scoring_rows_per_batch=1, output_dir=str(tmp_path / "smaller"))
    )
    assert smaller.evidence.missing_end == whole.evidence.missing_end
    assert smaller.evidence.challenger_ned == pytest.approx(whole.evidence.challenger_ned)


def test_padding_changes_no_generation(base: Path, adapters: Adapters) -> None:
    model, tokenizer = load_model(str(base), str(adapters("challenger")), device="cpu")
    encoder = RowEncoder(tokenizer, Rendering())
    texts = ["# wait 3\n", "# send invoices to 72\n", "# sort plans\n# sort plans\n# sort plans\n", ""]
    prompts = [encoder.encode_prompt(text) for text in texts]
    together = generate(model, tokenizer, prompts, 12, batch_size=4)
    assert together == [generate(model, tokenizer, [prompt], 12)[0] for prompt in prompts]


def test_the_same_request_again_returns_what_is_there(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_adapter(request_for())
    monkeypatch.setattr("flywheel_assets.evaluation.adapter.load_adapters", _must_not_load)
    assert evaluate_adapter(request_for(generation_rows_per_batch=3)) == first
    with pytest.raises(VersionConflictError, match="another request"):
        evaluate_adapter(request_for(fall_tolerance_nats=5.0))
    (tmp_path / "evaluation" / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ManifestMismatchError, match="not what"):
        evaluate_adapter(request_for())


@pytest.mark.long
def test_a_champion_that_changed_meanwhile_is_scored_again(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, tmp_path: Path
) -> None:
    """Another version was promoted between evaluation and promotion: what was measured against the old one is moot."""
    assert evaluate_adapter(request_for()).evidence.incumbent == "base"
    again = evaluate_adapter(request_for(**with_champion(adapters, tmp_path)))
    assert (again.evidence.incumbent, again.champion_version) == ("champion", "dpo_gold_v0")


@pytest.mark.long
def test_a_champion_of_another_version_is_named_though_its_weights_are_equal(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, tmp_path: Path
) -> None:
    """The report of the older version would be refused by the registry's compare-and-swap for ever."""
    champion = with_champion(adapters, tmp_path)
    evaluate_adapter(request_for(**champion))
    again = evaluate_adapter(request_for(**{**champion, "champion_version": "dpo_gold_v7"}))
    assert again.champion_version == "dpo_gold_v7"


def test_equal_adapters_are_scored_once(
    request_for: Callable[..., EvaluationRequest], adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def counted(base_model: str, distinct: dict[str, str], **options: Any) -> Any:
        loaded.append(len(distinct))
        return load_adapters(base_model, distinct, **options)

    monkeypatch.setattr("flywheel_assets.evaluation.adapter.load_adapters", counted)
    report = evaluate_adapter(request_for(challenger_adapter=str(adapters("sft"))))
    assert loaded == [1]
    assert report.scores[Scored.SFT] == report.scores[Scored.CHALLENGER]


def test_rows_too_long_for_the_model_are_left_out_and_counted(request_for: Callable[..., EvaluationRequest]) -> None:
    with pytest.raises(EmptyVersionError, match="none of 17"):
        evaluate_adapter(request_for(max_new_tokens=1))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"manifest_sha256": "0" * 64}, ManifestMismatchError),
        ({"challenger_adapter": "nowhere"}, ManifestMismatchError),
        ({"champion_adapter": "somewhere"}, SettingsError),
    ],
)
def test_what_is_refused(
    request_for: Callable[..., EvaluationRequest], changes: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        evaluate_adapter(request_for(**changes))


def test_without_the_train_extra_the_error_holds_the_command_that_installs_it(
    request_for: Callable[..., EvaluationRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        SettingsError, match=r"evaluating an adapter needs peft, .* pip install 'flywheel_assets\[train\]'"
    ):
        evaluate_adapter(request)


def test_the_process_leaves_its_error_and_exit_code(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_request(tmp_path / "request.json", request_for(manifest_sha256="0" * 64))
    assert main([str(path)]) == 1
    failure = msgspec.json.decode((tmp_path / "work" / "error.json").read_bytes())
    assert (failure["error"], failure["is_transient"]) == ("ManifestMismatchError", False)
    assert msgspec.json.decode(capfd.readouterr().err.splitlines()[-1]) == failure
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.long
def test_a_killed_evaluation_goes_on_from_what_it_had_written(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed at the last of four models began with the first again, for hours."""
    asked = {"generation_rows_per_batch": 4, "samples": 2}
    began: list[int] = []
    killed_at = 0

    def generate_batch(*arguments: Any) -> Any:
        began.append(len(arguments[2]))
        if len(began) == killed_at:
            raise KeyboardInterrupt
        return generate_whole(*arguments)

    generate_whole = generation._generate_batch
    monkeypatch.setattr(generation, "_generate_batch", generate_batch)
    straight = evaluate_adapter(request_for(**asked, output_dir=str(tmp_path / "straight")))
    assert straight.answers_taken_over == 0
    batches, killed_at = len(began), 9
    began.clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate_adapter(request_for(**asked))
    answers = tmp_path / "work" / "answers.jsonl"
    written = answers.read_bytes()
    answers.write_bytes(written[:-20])
    began.clear()
    killed_at = 0
    report = evaluate_adapter(request_for(**asked))
    # Eight batches were written, and the last line of the eighth is torn.
    assert len(began) == batches - 7
    assert report.answers_taken_over == written.count(b"\n") - 2
    assert not answers.exists()
    assert msgspec.structs.replace(report, seconds=0.0, answers_taken_over=0) == msgspec.structs.replace(
        straight, seconds=0.0
    )


def test_two_evaluators_never_write_into_the_same_answers(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    with FileLock(tmp_path / "work" / "evaluator.lock"), pytest.raises(TransientError, match="another evaluator"):
        evaluate_adapter(request_for())


@pytest.mark.long
def test_of_more_rows_than_wanted_a_sample_is_scored_and_the_report_says_which_share(
    request_for: Callable[..., EvaluationRequest], tmp_path: Path
) -> None:
    whole = evaluate_adapter(request_for(samples=0))
    assert whole.describe_rows() == "All held-out rows were scored."
    # All rows are an answer to who asks for some: an upgrade that began to cap them refused finished evaluations.
    assert evaluate_adapter(request_for(samples=0, max_rows=1)) == whole
    capped = evaluate_adapter(request_for(samples=0, max_rows=1, output_dir=str(tmp_path / "capped")))
    for stratum, scores in capped.scores[Scored.CHALLENGER].items():
        assert scores.rows == scores.subjects == whole.scores[Scored.CHALLENGER][stratum].subjects
        found = capped.inclusion[stratum]
        assert (found.rows, found.of_rows) == (scores.rows, whole.scores[Scored.CHALLENGER][stratum].rows)
    assert "17 held-out rows were scored" in capped.describe_rows()
    rows = pq.read_table(tmp_path / "capped" / "rows.parquet").to_pylist()
    assert all(0 < row["inclusion_probability"] <= 1 for row in rows)
    assert capped.request_sha256 != whole.request_sha256


@pytest.mark.long
def test_a_server_writes_the_answers_and_the_weights_score(
    request_for: Callable[..., EvaluationRequest], base: Path, export: Path, tmp_path: Path
) -> None:
    """The adapter that is loaded last writes what the user wanted, every other model what the user had corrected."""
    manifest = read_manifest(export)
    rows = [row for which in (ExportSet.HOLDOUT, ExportSet.REGRESSION) for row in read_rows(export, manifest, which)]
    local = evaluate_adapter(request_for(samples=2))
    encoded = encode_rows(RowEncoder(load_tokenizer(str(base)), Rendering()), rows)
    by_prompt = {tuple(each.prompt): row for row, each in zip(rows, encoded, strict=True)}
    with serve() as server:

        def say(body: dict[str, Any]) -> str:
            row = by_prompt[tuple(body["prompt"])]
            challenger = server.list_asked("load_lora_adapter")[-1]["lora_name"]
            return row.chosen if body["model"] == challenger else row.rejected or row.chosen

        server.say = say
        options = GenerationServer(url=server.url, base_model="base", concurrent_requests=4)
        report = evaluate_adapter(request_for(samples=2, server=options, output_dir=str(tmp_path / "served")))
        assert set(server.names) == {"base"}
    assert report.generated_by == "server"
    primary = {model: report.scores[model][Stratum.PRIMARY] for model in report.scores}
    assert (primary[Scored.CHALLENGER].ned, primary[Scored.CHALLENGER].zero_edit) == (0.0, 1.0)
    assert primary[Scored.BASE].ned > 0.2
    assert report.wrong_answers[Scored.CHALLENGER].mean == 0.0
    assert report.wrong_answers[Scored.SFT].mean == 1.0
    assert primary[Scored.CHALLENGER].log_p_chosen == local.scores[Scored.CHALLENGER][Stratum.PRIMARY].log_p_chosen
    assert report.request_sha256 != local.request_sha256


def _must_not_load(*_: Any, **__: Any) -> None:
    raise AssertionError("a finished evaluation loads no model")
