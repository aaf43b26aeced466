"""Computes the loss of the one stage: every row is written, and pairs are preferred, in the same batches.

Over the rows of one optimiser step, however many micro-batches they are parted into:

    loss = Σ NLL(written tokens) / tokens  +  weight · Σ preference(pair) / rows  +  Σ λ · unpaired(row) / rows

The first sum runs over the rows that are written and equals the loss of SFT on them; the second over those with a
chosen and a rejected text. Accepted outputs and demonstrations have no rejected text, so they get the first term only.
The winner of a comparison is preferred and not written, unless people accepted it. `tokens` are those of all rows,
written or not (of an objection those of its rejected text), and `rows` are all rows: so every token and every pair
weighs the same whichever rows share its step.

The rewards β (log p − log p of the base) are measured from the frozen base, whose values are computed before there is
an adapter: no second model is in memory.

    apo_zero   1 − σ(reward of chosen) + σ(reward of rejected): D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7
    sigmoid    −log σ(reward of chosen − reward of rejected): DPO, Rafailov et al. 2023, arXiv 2305.18290, eq. 7

The third sum, where the recipe asks for it, runs over objections (undesirable: no text is right, λ_U) and over rows
without a rejected text (desirable, λ_D):

    kto        1 − σ(reward − z) and 1 − σ(z − reward): Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8
    apo_zero   the same with z = 0: the halves of the loss of pairs, as in TRL's "apo_zero_unpaired"

z, the reference point, is β times the divergence from the base, estimated as in KTO's paper: the mean of log p − log p
of the base over mismatched texts, each row's prompt with the next row's text, at least 0 and without a gradient. The
matches are drawn once, so that the base's values are computed once, and the mean is taken over a whole optimiser step:
the paper takes a micro-batch's, and there a step's gradient depends on how it is parted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flywheel_assets.models.generation import compute_token_log_probabilities
from flywheel_assets.training.examples import Example
from flywheel_assets.training.recipes import AdapterRecipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class UnpairedTerm:
    """Weighs the rows that are judged by themselves."""

    loss: str
    """"kto" or "apo_zero"."""
    undesirable: float
    """λ_U, of an objection."""
    desirable: float
    """λ_D, of an accepted output or a demonstration."""


def build_unpaired_term(examples: Sequence[Example], recipe: AdapterRecipe) -> UnpairedTerm | None:
    """Build the term of objections; None: there is none among the rows, or the recipe leaves them out.

    λ_D · desirable rows = `desirable_ratio` · λ_U · undesirable rows, the balance of KTO's paper (eq. 9). There the
    rarer kind is weighed up; here the more frequent one is weighed down, because an objection should not outweigh a
    correction.
    """
    objections = sum(not each.chosen for each in examples)
    if not recipe.objection_weight or not objections:
        return None
    desirable = sum(each.rejected is None for each in examples)
    balanced = recipe.objection_weight * recipe.desirable_ratio * objections / max(1, desirable)
    return UnpairedTerm(recipe.objection_loss, recipe.objection_weight, balanced)


def build_one_stage_rows(
    base: Any, examples: Sequence[Example], batch_size: int, unpaired: UnpairedTerm | None = None
) -> dict[str, list[Any]]:
    """Build the columns of the stage's data: token ids, and log probabilities under the base, the reference.

    A row without a chosen or a rejected text has no such ids, and 0 for what no loss looks at.
    """
    texts: list[tuple[list[int], list[int]]] = []
    wanted: list[tuple[str, int]] = []
    mismatched: list[list[int]] = []
    if unpaired is not None and unpaired.loss == "kto":
        shown = [each.chosen or each.rejected or [] for each in examples]
        mismatched = [*shown[1:], *shown[:1]]
    for place, each in enumerate(examples):
        completions = {
            "ref_chosen_logps": each.chosen if each.rejected is not None or unpaired is not None else [],
            "ref_rejected_logps": each.rejected or [],
            "ref_mismatched_logps": mismatched[place] if mismatched else [],
        }
        for name, completion in completions.items():
            if completion:
                texts.append((each.prompt, completion))
                wanted.append((name, place))
    references = {name: [0.0] * len(examples) for name in ("ref_chosen_logps", "ref_rejected_logps")}
    more: dict[str, list[Any]] = {}
    if mismatched:
        more["mismatched_ids"] = mismatched
        references["ref_mismatched_logps"] = [0.0] * len(examples)
    for (name, place), value in zip(
        wanted, compute_token_log_probabilities(base, texts, batch_size).tolist(), strict=True
    ):
        references[name][place] = value
    return {
        "prompt_ids": [each.prompt for each in examples],
        "chosen_ids": [each.chosen for each in examples],
        "rejected_ids": [each.rejected or [] for each in examples],
        "is_written": [each.is_written for each in examples],
        **references,
        **more,
    }


def collate(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Collate rows by TRL's collator: the chosen texts of the rows that have one, then the rejected texts.

    `has_chosen` and `has_rejected` (rows) mark whose they are, in the rows' order. No prompt goes through the model
    for a text that is not there.
    """
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    collator = DataCollatorForPreference(pad_token_id=pad_token_id)
    batch: dict[str, Any] = collator([{name: row[name] for name in _OF_TRL} for row in rows])
    has_chosen = torch.tensor([bool(row["chosen_ids"]) for row in rows])
    has_rejected = torch.tensor([bool(row["rejected_ids"]) for row in rows])
    kept = torch.cat([has_chosen, has_rejected])
    for name in _SEQUENCES:
        batch[name] = batch[name][kept]
    batch["is_written"] = torch.tensor([row["is_written"] for row in rows])
    if "mismatched_ids" in rows[0]:
        ids = [{**{name: row[name] for name in _OF_TRL}, "chosen_ids": row["mismatched_ids"]} for row in rows]
        found = collator([{**row, "rejected_ids": []} for row in ids])
        batch |= {f"mismatched_{name}": found[name][: len(rows)] for name in _SEQUENCES}
        batch["ref_mismatched_logps"] = torch.tensor([row["ref_mismatched_logps"] for row in rows])
    return {**batch, "has_chosen": has_chosen, "has_rejected": has_rejected}


def compute_preference_losses(
    loss: str, chosen_rewards: "torch.Tensor", rejected_rewards: "torch.Tensor"
) -> "torch.Tensor":
    """Compute each pair's loss from its rewards; see the module's docstring."""
    import torch

    if loss == "sigmoid":
        return -torch.nn.functional.logsigmoid(chosen_rewards - rejected_rewards)
    return 1 - torch.sigmoid(chosen_rewards) + torch.sigmoid(rejected_rewards)


def compute_unpaired_losses(
    desirable_rewards: "torch.Tensor", undesirable_rewards: "torch.Tensor", reference: "torch.Tensor | float"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Compute the losses of rows that are judged by themselves; see the module's docstring."""
    import torch

    return 1 - torch.sigmoid(desirable_rewards - reference), 1 - torch.sigmoid(reference - undesirable_rewards)


def make_one_stage_trainer_class(loss: str, weight: float, unpaired: UnpairedTerm | None = None) -> Any:
    """Make the trainer's class; imported here because TRL takes seconds.

    Args:
        loss: "apo_zero" or "sigmoid".
        weight: of the preference term.
        unpaired: the term of objections; None: there is none.
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
            tokens = sum(_count_tokens(batch) for batch in batch_samples)
            rows = sum(len(batch["has_rejected"]) for batch in batch_samples)
            return torch.tensor([tokens, rows, self._measure_reference_point(batch_samples)], device=device)

        def _measure_reference_point(self, batch_samples: list[Any]) -> float:
            """Measure z over the rows of a step, before its first gradient."""
            if unpaired is None or unpaired.loss != "kto" or not batch_samples:
                return 0.0
            changes = []
            for batch in batch_samples:
                ids, mask = batch["mismatched_input_ids"], batch["mismatched_completion_mask"]
                with torch.no_grad(), self.compute_loss_context_manager():
                    outputs = self.model(
                        input_ids=ids,
                        attention_mask=batch["mismatched_attention_mask"],
                        use_cache=False,
                        labels=ids.masked_fill(mask == 0, -100),
                        fused_lm_head=True,
                    )
                changes.append(outputs.log_probs.sum(dim=1) - batch["ref_mismatched_logps"])
            return float(self.beta * torch.cat(changes).mean().clamp(min=0))

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            tokens, rows, reference = num_items_in_batch
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
            has_chosen, has_rejected = inputs["has_chosen"], inputs["has_rejected"]
            written = int(has_chosen.sum())
            # One value a row, 0 where there is no such text.
            nothing = log_p.new_zeros(len(has_chosen))
            chosen = nothing.masked_scatter(has_chosen, log_p[:written])
            rejected = nothing.masked_scatter(has_rejected, log_p[written:])
            up = self.beta * (chosen - inputs["ref_chosen_logps"])
            down = self.beta * (rejected - inputs["ref_rejected_logps"])
            is_pair = has_chosen & has_rejected
            losses = compute_preference_losses(loss, up[is_pair], down[is_pair])
            total = -chosen[inputs["is_written"]].sum() / tokens + weight * losses.sum() / rows
            if unpaired is not None:
                liked, disliked = compute_unpaired_losses(up[~has_rejected], down[~has_chosen], reference)
                total = total + (unpaired.desirable * liked.sum() + unpaired.undesirable * disliked.sum()) / rows
            if self.aux_loss_enabled:
                # As TRL: one value a micro-batch.
                total = total + self.router_aux_loss_coef * outputs.aux_loss / self.current_gradient_accumulation_steps
            return (total, outputs) if return_outputs else total

    return _OneStageTrainer


_SEQUENCES = ("input_ids", "attention_mask", "completion_mask")
_OF_TRL = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")


def _count_tokens(batch: dict[str, Any]) -> int:
    """Count the tokens of one text of each row: its chosen one, or that of an objection."""
    # The first token of a sequence is not predicted.
    predicted = batch["completion_mask"][:, 1:].sum(dim=1)
    has_chosen = batch["has_chosen"]
    written = int(has_chosen.sum())
    return int(predicted[:written].sum() + predicted[written:][~has_chosen[batch["has_rejected"]]].sum())
