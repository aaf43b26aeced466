from pathlib import Path

import pytest

from flywheel_assets.demo.assistant.base_model import BaseConfig, Deployment, ensure_base_model
from flywheel_assets.demo.assistant.world import World

PROMPTS = [request.prompt for request in World().draw_measurement(per_idiom=1, seed=0).unseen_prompts]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BaseConfig(hidden_size=16, layers=1, heads=2, steps=20, batch_size=8, tokenizer_samples=200, threads=1)
    return ensure_base_model(World(), config, tmp_path_factory.mktemp("models")).path


def test_answers_come_in_the_order_of_the_prompts(base: Path) -> None:
    """Batches hold prompts of similar length, so that the order has to be restored."""
    deployed = Deployment(base, None, "base")
    assert deployed.model_version == "base"
    answers = deployed.answer(PROMPTS)
    assert len(answers) == len(PROMPTS)
    assert deployed.answer(PROMPTS[::-1]) == answers[::-1]
    assert deployed.answer([]) == []


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_changes_what_is_answered_and_leaves_the_base_as_it_was(base: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    weights = (base / "model.safetensors").read_bytes()
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    adapted = Deployment(base, tmp_path / "adapter", "dpo_gold_v1")
    assert adapted.answer(PROMPTS) != Deployment(base, None, "base").answer(PROMPTS)
    assert (base / "model.safetensors").read_bytes() == weights
