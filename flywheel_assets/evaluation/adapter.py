"""Scores base, SFT baseline, champion and challenger: `python -m flywheel_assets.evaluation.adapter REQUEST.json`.

All of them write greedily for the same held-out rows and are asked how likely they find the users' texts; so does the
anchor, the model that was promoted last by a proven gain, where it is another one than the champion. Incumbent, SFT
baseline and challenger also sample answers at the serving temperature, which shows how likely the old answer still is.

Of a cross-fitted version the adapter of each user's fold writes, which has not seen them (see `_judges`); the deployed
one writes as well, and is searched for phrases and held against these.

    <output_dir>/evaluation.json   EvaluationReport
    <output_dir>/rows.parquet      one row per exported row and model (see `_scoring`), without texts

The folder appears whole. The same request again verifies it and returns. A champion that changed meanwhile is a reason
to score again (the promotion compares and swaps on the champion that was evaluated), so that result is replaced; for
anything else that changed the folder belongs to another request.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.errors import EmptyVersionError, ManifestMismatchError, SettingsError
from flywheel_assets.evaluation._judges import Judges, find_judges, join_phrases, join_tables, part_rows
from flywheel_assets.evaluation._scoring import (
    build_scored_rows,
    compute_evidence,
    compute_scores_by_stratum,
    compute_wrong_answers,
    join_models,
    measure_agreement,
    stratify,
)
from flywheel_assets.evaluation.canary import Phrases, find_canary, hash_phrases
from flywheel_assets.evaluation.requests import (
    REPORT_FILE,
    ROWS_FILE,
    EvaluationReport,
    EvaluationRequest,
    Scored,
    Stratum,
)
from flywheel_assets.lake.storage.files import hash_file, write_folder
from flywheel_assets.lake.versions.exports import (
    LEARNT,
    ExportedRow,
    ExportSet,
    LearntPrompts,
    read_manifest,
    read_rows,
    verify_manifest,
)
from flywheel_assets.measures.texts import Floats, find_corrected
from flywheel_assets.models.generation import (
    SwitchableModel,
    choose_placement,
    compute_token_log_probabilities,
    generate,
    hash_adapter,
    hash_base_weights,
    load_adapters,
    require_train_extra,
    use_cpu_threads,
)
from flywheel_assets.models.own_process import build_main, find_finished_report, write_report
from flywheel_assets.models.rendering import EncodedRow, Refusal, RowEncoder, prepare_targets
from flywheel_assets.records import make_stable_id

_MARGIN_TOKENS = 16  # over the longest reference: room to be wrong in before a generation counts as endless

_Row = tuple[Stratum, ExportedRow]
_WRONG_SEED = 0  # of the sampled answers: every model draws with the same random numbers

_Fitting = tuple[Stratum, ExportedRow, EncodedRow]


def evaluate_adapter(request: EvaluationRequest) -> EvaluationReport:
    """Score the models that the request names, or verify a finished result.

    Raises:
        ManifestMismatchError: an export, an adapter or a finished result is missing or changed, or a cross-fitted
            version lacks the adapters of its folds.
        EmptyVersionError: no held-out row that could be scored.
        SettingsError: champion_adapter and champion_export_dir, or those of the anchor, were not given together, or the
            extra `train` is not installed.
        VersionConflictError: `output_dir` holds the result of another request.
    """
    require_train_extra("evaluating an adapter")
    started = time.monotonic()
    use_cpu_threads(request.cpu_threads)
    if (request.champion_adapter is None) != (request.champion_export_dir is None):
        raise SettingsError("champion_adapter and champion_export_dir belong together: give both or neither")
    if (request.anchor_adapter is None) != (request.anchor_export_dir is None):
        raise SettingsError("anchor_adapter and anchor_export_dir belong together: give both or neither")
    judges = find_judges(request, hash_adapter)
    digests = {
        Scored.SFT: hash_adapter(Path(request.sft_adapter)),
        Scored.CHALLENGER: hash_adapter(Path(request.challenger_adapter)),
    }
    if request.champion_adapter is not None:
        digests[Scored.CHAMPION] = hash_adapter(Path(request.champion_adapter))
    base_sha256 = hash_base_weights(request.base_model)
    identity = _compute_identity(request, base_sha256, digests, judges)
    rows = _read_rows(request)
    output = Path(request.output_dir)
    remedy = "Remove it to evaluate again."
    if finished := find_finished_report(output / REPORT_FILE, EvaluationReport, identity, remedy=remedy):
        _verify_rows(output, finished)
        # Both: a champion of another version with equal weights would never pass the registry's compare-and-swap.
        asked = (request.champion_version, digests.get(Scored.CHAMPION), request.anchor_version)
        if (finished.champion_version, finished.champion_sha256, finished.evidence.anchor) == asked:
            return finished
    # Equal weights are loaded and scored once: the challenger often is the SFT adapter.
    model = load_adapters(request.base_model, judges.folders, device=request.device)
    encoder = RowEncoder(model.tokenizer, request.rendering)
    kept = _select_fitting(model, encoder, rows, request)
    if not kept:
        raise EmptyVersionError(f"none of {len(rows)} held-out rows can be scored; nothing can be decided")
    incumbent = Scored.CHAMPION if Scored.CHAMPION in judges.digests else Scored.BASE
    tables, phrases = _score_models(model, encoder, judges, incumbent, kept, request)
    wrong_answers, wrong_answer_fall = compute_wrong_answers(tables, incumbent)
    canary = find_canary(
        # What will serve may have learnt more than its folds' adapters.
        phrases.get(Scored.DEPLOYED, phrases[Scored.CHALLENGER]),
        phrases[incumbent],
        [row.subject for _, row, _ in kept],
        _list_taught_texts(request),
        request.canary_least_rows,
    )
    with write_folder(output, replaces=True) as building:
        pq.write_table(join_models(tables), building / ROWS_FILE)
        report = EvaluationReport(
            request_sha256=identity,
            manifest_sha256=request.manifest_sha256,
            champion_version=request.champion_version,
            champion_sha256=digests.get(Scored.CHAMPION),
            base_weights_sha256=base_sha256,
            challenger_sha256=digests[Scored.CHALLENGER],
            sft_sha256=digests[Scored.SFT],
            rows_sha256=hash_file(building / ROWS_FILE),
            rows_left_out=len(rows) - len(kept),
            scores=compute_scores_by_stratum(tables, incumbent, request.fall_tolerance_nats),
            evidence=compute_evidence(
                tables,
                incumbent,
                request.fall_tolerance_nats,
                request.bootstrap_draws,
                canary,
                anchor=request.anchor_version,
                agreement=measure_agreement(row for _, row in rows),
                folds=judges.find_folds(),
            ),
            seconds=time.monotonic() - started,
            device=choose_placement(request.device)[0],
            wrong_answers=wrong_answers,
            wrong_answer_fall=wrong_answer_fall,
        )
        write_report(building / REPORT_FILE, report)
    return report


def _score_models(
    model: SwitchableModel,
    encoder: RowEncoder,
    judges: Judges,
    incumbent: Scored,
    fitting: Sequence[_Fitting],
    request: EvaluationRequest,
) -> tuple[dict[Scored, pa.Table], dict[Scored, Phrases]]:
    """Score every model on every row, each row by the adapter that judges its user; also return their phrases."""
    parts = part_rows(judges, [row.subject for _, row, _ in fitting])
    chosen = set(_choose_pairs_to_sample(fitting, request))
    found: dict[Scored, list[tuple[pa.Table, Phrases]]] = {}
    for part in parts:
        sampled = {part.digests.get(scored) for scored in (incumbent, Scored.SFT, Scored.CHALLENGER)}
        rows = [fitting[place] for place in part.places]
        drawn = [position for position, place in enumerate(part.places) if place in chosen]
        by_digest = {
            digest: _score_model(model, encoder, digest, rows, drawn if digest in sampled else [], request)
            for digest in dict.fromkeys((None, *part.digests.values()))
        }
        for scored in Scored:
            if scored is Scored.BASE or scored in part.digests:
                found.setdefault(scored, []).append(by_digest[part.digests.get(scored)])
    tables = {scored: join_tables(parts, [table for table, _ in each]) for scored, each in found.items()}
    return tables, {scored: join_phrases(parts, [phrases for _, phrases in each]) for scored, each in found.items()}


def _compute_identity(request: EvaluationRequest, base_sha256: str, digests: dict[Scored, str], judges: Judges) -> str:
    # Neither paths (a home may move), nor the batch size, nor the champion (see above), nor the sampled
    # answers: they decide nothing, and an evaluation that is older than they are stays finished.
    asked = [request.manifest_sha256, base_sha256, digests[Scored.SFT], digests[Scored.CHALLENGER]]
    if judges.find_folds() is not None:
        asked += [*judges.digests[Scored.SFT], *judges.digests[Scored.CHALLENGER]]
    settings = [request.max_new_tokens, request.fall_tolerance_nats, request.bootstrap_draws, request.canary_least_rows]
    return hashlib.sha256(msgspec.json.encode([asked, settings, request.rendering], order="deterministic")).hexdigest()


def _verify_rows(output: Path, report: EvaluationReport) -> None:
    rows = output / ROWS_FILE
    if not rows.is_file() or hash_file(rows) != report.rows_sha256:
        raise ManifestMismatchError(f"{rows} is not what {REPORT_FILE} recorded. Remove {output} to evaluate again.")


def _read_rows(request: EvaluationRequest) -> list[_Row]:
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    versions = [(export, manifest)]
    known: set[str] = set()
    if request.champion_export_dir is not None:
        champion_export = Path(request.champion_export_dir)
        champion_manifest = verify_manifest(champion_export)
        versions.append((champion_export, champion_manifest))
        known = {row.pair_id for row in read_rows(champion_export, champion_manifest, ExportSet.HOLDOUT)}
    if request.anchor_export_dir is not None:
        anchor_export = Path(request.anchor_export_dir)
        versions.append((anchor_export, verify_manifest(anchor_export)))
    held_out = read_rows(export, manifest, ExportSet.HOLDOUT)
    subjects, prompts = [row.subject for row in held_out], [row.prompt_hash for row in held_out]
    is_trained = np.zeros(len(held_out), dtype=bool)
    for version in versions:
        is_trained |= LearntPrompts(*version).find(subjects, prompts)
    holdout = stratify(held_out, known, is_trained.tolist())
    regression = [(Stratum.REGRESSION, row) for row in read_rows(export, manifest, ExportSet.REGRESSION)]
    return [*holdout, *regression]


def _list_taught_texts(request: EvaluationRequest) -> Iterator[tuple[str, str]]:
    """List (subject, text) of everything that the challenger was trained towards."""
    export = Path(request.export_dir)
    manifest = read_manifest(export)
    for which in LEARNT:
        yield from ((row.subject, row.chosen) for row in read_rows(export, manifest, which))


def _select_fitting(
    model: SwitchableModel, encoder: RowEncoder, rows: Sequence[_Row], request: EvaluationRequest
) -> list[_Fitting]:
    window = getattr(model.model.config, "max_position_embeddings", None) or sys.maxsize
    kept: list[_Fitting] = []
    encoded = encoder.encode([row for _, row in rows])
    for (stratum, row), each in zip(rows, encoded, strict=True):
        # The cut refused such rows already, unless it was for another recipe.
        if isinstance(each, Refusal):
            continue
        if len(each.chosen) <= request.max_new_tokens and len(each.prompt) + len(each.chosen) <= window:
            kept.append((stratum, row, each))
    return kept


def _choose_pairs_to_sample(fitting: Sequence[_Fitting], request: EvaluationRequest) -> list[int]:
    """Select the places of the primary pairs that answers are sampled for."""
    pairs = [
        place
        for place, (stratum, row, _) in enumerate(fitting)
        if stratum is Stratum.PRIMARY and row.rejected is not None
    ]
    first = sorted(pairs, key=lambda place: make_stable_id("sampled", fitting[place][1].pair_id))
    return sorted(first[: request.max_sampled_rows]) if request.samples else []


def _score_model(
    model: SwitchableModel,
    encoder: RowEncoder,
    adapter: str | None,
    fitting: Sequence[_Fitting],
    sampled: Sequence[int],
    request: EvaluationRequest,
) -> tuple[pa.Table, Phrases]:
    """Score one model; also return the hashed phrases that it wrote."""
    encoded = [each for _, _, each in fitting]
    targets = prepare_targets(encoder, [row for _, row, _ in fitting], encoded)
    pairs = [place for place, each in enumerate(encoded) if each.rejected is not None]
    chosen = [(each.prompt, each.chosen) for each in encoded]
    rejected = [(encoded[place].prompt, encoded[place].rejected or []) for place in pairs]
    most_tokens = max(target.tokens for target in targets) + _MARGIN_TOKENS
    ends = {target.turn_end for target in targets}
    with model.activate(adapter) as using:
        prompts = [target.prompt for target in targets]
        written = generate(using, model.tokenizer, prompts, most_tokens, request.batch_size, ends)
        drawn = generate(
            using,
            model.tokenizer,
            [targets[place].prompt for place in sampled for _ in range(request.samples)],
            most_tokens,
            request.batch_size,
            ends,
            temperature=request.temperature,
            seed=_WRONG_SEED,
        )
        # Scores need the logits of every position at once, generation only those of the last.
        likelihood = compute_token_log_probabilities(using, [*chosen, *rejected], max(1, request.batch_size // 4))
    log_p_rejected: Floats = np.full(len(fitting), np.nan)
    log_p_rejected[pairs] = likelihood[len(chosen) :]
    texts = [
        encoder.read_answer(target, generation.tokens) for target, generation in zip(targets, written, strict=True)
    ]
    wrong: list[float | None] = [None] * len(fitting)
    for position, place in enumerate(sampled):
        row = fitting[place][1]
        if (corrected := find_corrected(row.rejected or "", row.chosen)) is not None:
            answers = [
                encoder.read_answer(targets[place], generation.tokens)
                for generation in drawn[position * request.samples : (position + 1) * request.samples]
            ]
            wrong[place] = float(np.mean([corrected.is_repeated_in(answer) for answer in answers]))
    table = build_scored_rows(
        [
            (stratum, msgspec.structs.replace(row, chosen=target.reference))
            for (stratum, row, _), target in zip(fitting, targets, strict=True)
        ],
        texts,
        [generation.ended for generation in written],
        likelihood[: len(chosen)],
        log_p_rejected,
        [len(each.chosen) for each in encoded],
        wrong,
    )
    return table, hash_phrases((row.prompt for _, row, _ in fitting), texts)


main = build_main(EvaluationRequest, evaluate_adapter)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
