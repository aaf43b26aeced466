"""Chooses the stage whose adapter is the challenger: the second one has to earn its place.

It is compared with the SFT adapter on two sets, never on the holdout: pairs of training subjects that neither stage was
trained on, and the accepted outputs of the training data. The latter were part of the first stage only, so they show
what the second unlearns: on the demo's world it wrote kept-back pairs as well as SFT did (NED .028 and .024), but lost
a tenth of the accepted outputs, on which the promotion gate rightly blocked it.

Generations alone are too coarse for that: SFT has memorised those outputs, and both stages still write them (.000 and
.000) when those of held-out people are forgotten already (.060 and .010). Their likelihood shows it earlier: at three
learning rates 4, 18 and 43 % of them had fallen by more than 0.1 nats, while the held-out NED rose from .008 to .023,
.043 and .056.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import normalized_edit_distances
from flywheel_assets.models.generation import (
    SwitchableModel,
    compute_token_log_probabilities,
    generate,
    load_adapters,
)
from flywheel_assets.models.rendering import RowEncoder, encode_rows, prepare_targets
from flywheel_assets.records import make_stable_id
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import SelectionScore

SFT, PREFERENCE, ONE_STAGE = "sft", "preference", "one_stage"
DESCRIPTIONS = {PREFERENCE: "the preference stage", ONE_STAGE: "the one stage"}
FALL_TOLERANCE_NATS = 0.1
"""A smaller drop of log p is noise: bf16 alone moves it by some hundredths."""
_MARGIN_TOKENS = 32  # over the longest reference: room to be wrong in before a generation counts as endless


@dataclass(frozen=True)
class Choice:
    """The stage whose adapter is the challenger, the reason in one sentence, and each stage's scores if compared."""

    stage: str
    why: str
    scores: dict[str, SelectionScore]


def choose(
    base_model: str,
    adapters: Mapping[str, Path],
    kept_back: Sequence[ExportedRow],
    accepted: Sequence[ExportedRow],
    recipe: AdapterRecipe,
) -> Choice:
    """Let both stages' adapters write for the same rows; the second must not be inferior on either set.

    Args:
        base_model: folder or hub id.
        adapters: the folders of both stages' adapters.
        kept_back: pairs of training subjects that neither stage saw, at least one.
        accepted: accepted outputs of the training data; may be empty.
        recipe: its margin, and how many rows of each set are written for.
    """
    folders = {stage: str(folder) for stage, folder in adapters.items()}
    model = load_adapters(base_model, folders, device=recipe.device, quantization=recipe.quantization)
    pairs, outputs = _select_first_by_hash(kept_back, recipe), _select_first_by_hash(accepted, recipe)
    likelihoods = {stage: _compute_log_p(model, stage, outputs, recipe) for stage in adapters}
    scores = {
        stage: _score(model, stage, pairs, outputs, likelihoods[stage] - likelihoods[SFT], recipe) for stage in adapters
    }
    worse = find_inferiorities(scores[SFT], scores[PREFERENCE], recipe)
    verdict = f"inferior, the SFT adapter is the challenger (worse: {', '.join(worse)})" if worse else "not inferior"
    why = (
        f"The preference stage is {verdict}: NED {scores[PREFERENCE].ned:.3f} against SFT's {scores[SFT].ned:.3f} on "
        f"{len(pairs)} pairs of training subjects kept back"
    )
    if outputs:
        why += f", {scores[PREFERENCE].accepted_ned:.3f} against {scores[SFT].accepted_ned:.3f} on {len(outputs)} "
        why += f"accepted outputs, of which {scores[PREFERENCE].accepted_fallen:.0%} became less likely"
    return Choice(SFT if worse else PREFERENCE, f"{why}.", scores)


def find_inferiorities(sft: SelectionScore, preference: SelectionScore, recipe: AdapterRecipe) -> list[str]:
    """List the measures in which the preference stage is worse than SFT by more than the recipe's margins."""
    limits = {
        "edits": (preference.ned, sft.ned, recipe.selection_margin),
        "missing ends": (preference.missing_end, sft.missing_end, recipe.selection_margin),
        "accepted outputs": (preference.accepted_ned, sft.accepted_ned, recipe.selection_margin),
        "missing ends of accepted outputs": (
            preference.accepted_missing_end,
            sft.accepted_missing_end,
            recipe.selection_margin,
        ),
        "likelihood of accepted outputs": (
            preference.accepted_fallen,
            sft.accepted_fallen,
            recipe.selection_max_accepted_fallen,
        ),
    }
    # Not "second > first + margin": a score that is not a number is worse.
    return [
        what
        for what, (second, first, margin) in limits.items()
        if second is not None and first is not None and not second <= first + margin
    ]


def _compute_log_p(
    model: SwitchableModel, stage: str, outputs: Sequence[ExportedRow], recipe: AdapterRecipe
) -> npt.NDArray[np.float64]:
    if not outputs:
        return np.empty(0)
    encoder = RowEncoder(model.tokenizer, recipe.rendering)
    encoded = [(row.prompt, row.chosen) for row in encode_rows(encoder, outputs)]
    with model.activate(stage) as using:
        return compute_token_log_probabilities(using, encoded, recipe.batch_size)


def _score(
    model: SwitchableModel,
    stage: str,
    pairs: Sequence[ExportedRow],
    outputs: Sequence[ExportedRow],
    change: npt.NDArray[np.float64],
    recipe: AdapterRecipe,
) -> SelectionScore:
    rows = [*pairs, *outputs]
    encoder = RowEncoder(model.tokenizer, recipe.rendering)
    targets = prepare_targets(encoder, rows, encode_rows(encoder, rows))
    with model.activate(stage) as using:
        written = generate(
            using,
            model.tokenizer,
            [target.prompt for target in targets],
            max(target.tokens for target in targets) + _MARGIN_TOKENS,
            4 * recipe.batch_size,
            {target.turn_end for target in targets},
        )
    texts = [
        encoder.read_answer(target, generation.tokens) for target, generation in zip(targets, written, strict=True)
    ]
    distances = normalized_edit_distances(texts, [target.reference for target in targets])
    endless = np.array([not generation.ended for generation in written], dtype=np.float64)
    count = len(pairs)
    return SelectionScore(
        ned=float(distances[:count].mean()),
        missing_end=float(endless[:count].mean()),
        accepted_ned=float(distances[count:].mean()) if outputs else None,
        accepted_missing_end=float(endless[count:].mean()) if outputs else None,
        accepted_fallen=float((change < -FALL_TOLERANCE_NATS).mean()) if outputs else None,
    )


def _select_first_by_hash(rows: Sequence[ExportedRow], recipe: AdapterRecipe) -> list[ExportedRow]:
    return sorted(rows, key=lambda row: make_stable_id("selection", row.pair_id))[: recipe.max_selection_rows]
