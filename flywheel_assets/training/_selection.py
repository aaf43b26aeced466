"""Chooses the stage whose adapter is the challenger: what is more than SFT has to earn its place.

It is compared with the SFT adapter on two sets, never on the holdout: pairs of training subjects that no stage was
trained on, and the accepted outputs of the training data. The preference stage does not see the latter, so they show
what it unlearns: on the demo's world it wrote kept-back pairs as well as SFT did (NED .028 and .024), but lost a tenth
of the accepted outputs, on which the promotion gate rightly blocked it.

Greedy generations alone are too coarse for that: SFT has memorised those outputs, and both stages still write them
(.000 and .000) when those of held-out people are forgotten already (.060 and .010). Their likelihood shows it earlier:
at three learning rates 4, 18 and 43 % of them had fallen by more than 0.1 nats, while the held-out NED rose from .008
to .023, .043 and .056. The one stage learns these outputs apart from SFT, not after it: two trainings differ by tenths
of a nat in either direction, so there an output has fallen where it is lost (1 nat, and .1 nats a token).

Greedy generations hide, too, how likely the corrected answer still is: it shows when answers are sampled as the product
samples them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import find_corrected, normalized_edit_distances
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
_LOST_NATS, _LOST_NATS_A_TOKEN = 1.0, 0.1  # as at the promotion gate
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
    """Let both adapters write for the same rows; the other one must not be inferior to SFT on either set.

    Args:
        base_model: folder or hub id.
        adapters: the folders of SFT's adapter and of the other one, by stage.
        kept_back: pairs of training subjects that no stage saw, at least one.
        accepted: accepted outputs of the training data; may be empty.
        recipe: its margin, and how many rows of each set are written for.
    """
    folders = {stage: str(folder) for stage, folder in adapters.items()}
    model = load_adapters(base_model, folders, device=recipe.device, quantization=recipe.quantization)
    pairs, outputs = _select_first_by_hash(kept_back, recipe), _select_first_by_hash(accepted, recipe)
    (other,) = adapters.keys() - {SFT}
    encoder = RowEncoder(model.tokenizer, recipe.rendering)
    encoded = [(row.prompt, row.chosen) for row in encode_rows(encoder, outputs)]
    likelihoods = {stage: _compute_log_p(model, stage, encoded, recipe) for stage in adapters}
    tolerance: float | npt.NDArray[np.float64] = FALL_TOLERANCE_NATS
    if other == ONE_STAGE:
        tolerance = np.maximum(_LOST_NATS, _LOST_NATS_A_TOKEN * np.array([len(chosen) for _, chosen in encoded]))
    scores = {
        stage: _score(model, stage, pairs, outputs, likelihoods[stage] - likelihoods[SFT] < -tolerance, recipe)
        for stage in adapters
    }
    found = scores[other]
    worse = find_inferiorities(scores[SFT], found, recipe)
    verdict = f"inferior, the SFT adapter is the challenger (worse: {', '.join(worse)})" if worse else "not inferior"
    described = DESCRIPTIONS[other]
    why = (
        f"{described[0].upper()}{described[1:]} is {verdict}: NED {found.ned:.3f} against SFT's {scores[SFT].ned:.3f} "
        f"on {len(pairs)} pairs of training subjects kept back"
    )
    if found.wrong_answers is not None and scores[SFT].wrong_answers is not None:
        why += f", wrong answers {found.wrong_answers:.1%} against {scores[SFT].wrong_answers:.1%} of those sampled"
    if outputs:
        why += f", {found.accepted_ned:.3f} against {scores[SFT].accepted_ned:.3f} on {len(outputs)} "
        why += f"accepted outputs, of which {found.accepted_fallen:.0%} became less likely"
    return Choice(SFT if worse else other, f"{why}.", scores)


def find_inferiorities(sft: SelectionScore, preference: SelectionScore, recipe: AdapterRecipe) -> list[str]:
    """List the measures in which the other adapter is worse than SFT's by more than the recipe's margins."""
    limits = {
        "edits": (preference.ned, sft.ned, recipe.selection_margin),
        "missing ends": (preference.missing_end, sft.missing_end, recipe.selection_margin),
        "wrong answers": (preference.wrong_answers, sft.wrong_answers, recipe.selection_margin),
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
    model: SwitchableModel, stage: str, encoded: Sequence[tuple[list[int], list[int]]], recipe: AdapterRecipe
) -> npt.NDArray[np.float64]:
    with model.activate(stage) as using:
        return compute_token_log_probabilities(using, encoded, recipe.batch_size)


def _score(
    model: SwitchableModel,
    stage: str,
    pairs: Sequence[ExportedRow],
    outputs: Sequence[ExportedRow],
    has_fallen: npt.NDArray[np.bool_],
    recipe: AdapterRecipe,
) -> SelectionScore:
    rows = [*pairs, *outputs]
    encoder = RowEncoder(model.tokenizer, recipe.rendering)
    targets = prepare_targets(encoder, rows, encode_rows(encoder, rows))
    most_tokens = max(target.tokens for target in targets) + _MARGIN_TOKENS
    ends, size = {target.turn_end for target in targets}, 4 * recipe.batch_size
    # Pairs come first. Both stages are asked the same in the same order, so they draw with the same random numbers.
    sampled = [
        (row, target) for row, target in zip(pairs, targets, strict=False) for _ in range(recipe.selection_samples)
    ]
    with model.activate(stage) as using:
        written = generate(using, model.tokenizer, [target.prompt for target in targets], most_tokens, size, ends)
        drawn = generate(
            using,
            model.tokenizer,
            [target.prompt for _, target in sampled],
            most_tokens,
            size,
            ends,
            temperature=recipe.serving_temperature,
            seed=recipe.seed,
        )
    wrong = [
        corrected.is_repeated_in(encoder.read_answer(target, generation.tokens))
        for (row, target), generation in zip(sampled, drawn, strict=True)
        if (corrected := find_corrected(row.rejected or "", row.chosen)) is not None
    ]
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
        accepted_fallen=float(has_fallen.mean()) if outputs else None,
        wrong_answers=float(np.mean(wrong)) if wrong else None,
    )


def _select_first_by_hash(rows: Sequence[ExportedRow], recipe: AdapterRecipe) -> list[ExportedRow]:
    return sorted(rows, key=lambda row: make_stable_id("selection", row.pair_id))[: recipe.max_selection_rows]
