"""Eleven architectures in miniature through the real trainer and the real evaluation, with conversations."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.evaluation.adapter import evaluate_adapter
from flywheel_assets.evaluation.requests import Scored, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet
from flywheel_assets.models.generation import silence_libraries
from flywheel_assets.training._coverage import measure_coverage
from flywheel_assets.training.adapter import train_adapter
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets_tests.models.architectures import NAMES, list_architectures, make_tokenizer, save
from flywheel_assets_tests.training import small_world as world


def as_conversation(row: ExportedRow) -> ExportedRow:
    said = json.dumps([{"role": "user", "content": row.prompt}])
    return msgspec.structs.replace(row, prompt=said, prompt_format="messages")


def make_adapted(name: str, targets: Any = "all-linear") -> Any:
    from peft import LoraConfig, get_peft_model

    tokenizer = make_tokenizer(name)
    model = list_architectures()[name].make(len(tokenizer), tokenizer)
    with silence_libraries():
        return get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))


@pytest.mark.parametrize(
    ("name", "left_alone"),
    [
        ("gpt2", set()),
        ("llama3", set()),
        ("gemma3", set()),
        ("phi3", set()),
        ("gpt_neox", set()),
        ("mixtral", set()),
        ("qwen3_moe", set()),
        ("gpt_oss", {"experts.gate_up_proj", "experts.down_proj", "mlp.router"}),
    ],
)
def test_what_an_adapter_leaves_alone_is_counted(name: str, left_alone: set[str]) -> None:
    """Nothing said that gpt-oss's experts, most of its weights, got no adapter."""
    coverage = measure_coverage(make_adapted(name))
    assert set(coverage.left_alone) == left_alone
    assert coverage.adapted
    assert not {kind for kind in coverage.adapted if "embed" in kind or "head" in kind}
    if left_alone:
        assert 0.5 < coverage.share_left_alone < 1
        assert "experts.gate_up_proj" in coverage.describe()
    else:
        assert coverage.share_left_alone == 0
        assert "every linear layer" in coverage.describe()


def test_the_experts_of_a_mixture_are_named_among_the_adapted() -> None:
    adapted = measure_coverage(make_adapted("mixtral")).adapted
    assert (adapted["experts.gate_up_proj"], adapted["experts.down_proj"], adapted["mlp.gate"]) == (2, 2, 2)


def test_a_choice_of_modules_leaves_the_others_alone() -> None:
    coverage = measure_coverage(make_adapted("llama3", ["q_proj", "v_proj"]))
    assert set(coverage.adapted) == {"self_attn.q_proj", "self_attn.v_proj"}
    assert "mlp.up_proj" in coverage.left_alone


# Two whose end of turn is not the tokenizer's end token run every time, the others where there is time for all.
_ALWAYS = ("gemma3", "gpt_oss")


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [name if name in _ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_training_and_an_evaluation_run_to_their_end(name: str, tmp_path: Path) -> None:
    base = save(name, tmp_path / "base")
    of = list_architectures()[name]
    rows = world.rows_of_a_week(1, pairs=8, accepted=2, holdout=4, regression=2)
    if of.template:
        rows = {which: [as_conversation(row) for row in of_set] for which, of_set in rows.items()}
    export = world.write_version(tmp_path / "export", rows)
    request = world.request(
        export,
        base,
        tmp_path,
        max_length=1024,
        batch_size=4,
        sft_epochs=1.0,
        selection_share=0.0,
        stages=AdapterRecipe().stages,
        chat_template_kwargs=of.kwargs,
    )
    trained = train_adapter(request)
    assert {stage: report.steps for stage, report in trained.stages.items()} == {"sft": 3, "one_stage": 3}
    assert trained.coverage is not None
    assert bool(trained.coverage.left_alone) == (name == "gpt_oss")
    evaluated = evaluate_adapter(
        world.evaluation_of(request, rendering=request.recipe.rendering, bootstrap_draws=50, device="cpu")
    )
    assert evaluated.rows_left_out == 0
    assert evaluated.scores[Scored.CHALLENGER][Stratum.PRIMARY].rows == 4
    # Training raised what it trained on, and evaluation scores the same tokens.
    assert trained.mean_delta_chosen > 0
    assert evaluated.scores[Scored.CHALLENGER][Stratum.PRIMARY].delta_log_p_chosen > 0
    assert len(rows[ExportSet.HOLDOUT]) == 4
