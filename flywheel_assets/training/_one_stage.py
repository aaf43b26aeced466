"""Computes the loss of the one stage: every row is written, and pairs are preferred, in the same batches.

Over the rows of one optimiser step, however many micro-batches they are parted into:

    loss = Σ NLL(chosen tokens) / tokens  +  weight · Σ preference(pair) / rows

The first sum runs over all rows and equals the loss of SFT on them; the second over those with a rejected text.
Accepted outputs and demonstrations have none, so they get the first term only. Divided by all rows, and not by the
pairs of a step, every pair weighs the same whichever rows share its batch.

The rewards β (log p − log p of the base) are measured from the frozen base, whose values are computed before there is
an adapter: no second model is in memory.

    apo_zero   1 − σ(reward of chosen) + σ(reward of rejected): D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7
    sigmoid    −log σ(reward of chosen − reward of rejected): DPO, Rafailov et al. 2023, arXiv 2305.18290, eq. 7
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flywheel_assets.models.generation import compute_token_log_probabilities
from flywheel_assets.training.examples import Example

if TYPE_CHECKING:
    import torch


def build_one_stage_rows(base: Any, examples: Sequence[Example], batch_size: int) -> dict[str, list[Any]]:
    """Build the columns of the stage's data: token ids, and log probabilities under the base, the reference.

    A row without a rejected text has no rejected ids, and 0 for what no loss looks at.
    """
    pairs = [place for place, each in enumerate(examples) if each.rejected is not None]
    texts = [(examples[place].prompt, examples[place].chosen) for place in pairs]
    texts += [(examples[place].prompt, examples[place].rejected or []) for place in pairs]
    found = compute_token_log_probabilities(base, texts, batch_size).tolist()
    chosen, rejected = [0.0] * len(examples), [0.0] * len(examples)
    for position, place in enumerate(pairs):
        chosen[place], rejected[place] = found[position], found[len(pairs) + position]
    return {
        "prompt_ids": [each.prompt for each in examples],
        "chosen_ids": [each.chosen for each in examples],
        "rejected_ids": [each.rejected or [] for each in examples],
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }


def collate(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Collate rows by TRL's collator: all chosen texts, then the rejected texts of the pairs among them.

    `has_rejected` (rows) marks the pairs, in their order. Prompts without a rejected text do not go through the model
    a second time.
    """
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    batch: dict[str, Any] = DataCollatorForPreference(pad_token_id=pad_token_id)(rows)
    has_rejected = torch.tensor([bool(row["rejected_ids"]) for row in rows])
    kept = torch.cat([torch.ones_like(has_rejected), has_rejected])
    for name in ("input_ids", "attention_mask", "completion_mask"):
        batch[name] = batch[name][kept]
    return {**batch, "has_rejected": has_rejected}


def compute_preference_losses(
    loss: str, chosen_rewards: "torch.Tensor", rejected_rewards: "torch.Tensor"
) -> "torch.Tensor":
    """Compute each pair's loss from its rewards; see the module's docstring."""
    import torch

    if loss == "sigmoid":
        return -torch.nn.functional.logsigmoid(chosen_rewards - rejected_rewards)
    return 1 - torch.sigmoid(chosen_rewards) + torch.sigmoid(rejected_rewards)


def make_one_stage_trainer_class(loss: str, weight: float) -> Any:
    """Make the trainer's class; imported here because TRL takes seconds.

    Args:
        loss: "apo_zero" or "sigmoid".
        weight: of the preference term.
    """
    import torch
    from trl import DPOTrainer

    class _OneStageTrainer(DPOTrainer):  # type: ignore[misc, no-any-unimported]
        """DPOTrainer on rows of token ids with reference values, with a loss over the whole optimiser step.

        TRL's own losses ["apo_zero", "sft"] need a rejected text in every row, and average each micro-batch by itself:
        a token in a short one weighs more.
        """

        # `compute_loss` divides by what the whole step holds.
        loss_is_scaled_for_ga = True

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
            tokens = sum(_mask_targets(batch)[: len(batch["has_rejected"])].sum() for batch in batch_samples)
            return torch.tensor([tokens, sum(len(batch["has_rejected"]) for batch in batch_samples)], device=device)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            tokens, rows = num_items_in_batch
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            more = {"output_router_logits": True} if self.aux_loss_enabled else {}
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
                labels=labels,
                fused_lm_head=True,
                **more,
            )
            # Zero where there is no target.
            log_p = outputs.log_probs.sum(dim=1)
            has_rejected = inputs["has_rejected"]
            chosen, rejected = log_p[: len(has_rejected)], log_p[len(has_rejected) :]
            losses = compute_preference_losses(
                loss,
                self.beta * (chosen - inputs["ref_chosen_logps"])[has_rejected],
                self.beta * (rejected - inputs["ref_rejected_logps"][has_rejected]),
            )
            total = -chosen.sum() / tokens + weight * losses.sum() / rows
            if self.aux_loss_enabled:
                # As TRL: one value a micro-batch.
                total = total + self.router_aux_loss_coef * outputs.aux_loss / self.current_gradient_accumulation_steps
            return (total, outputs) if return_outputs else total

    return _OneStageTrainer


def _mask_targets(batch: dict[str, Any]) -> Any:
    """Mark the tokens that are predicted: the first of a sequence is not."""
    return batch["completion_mask"][:, 1:]
