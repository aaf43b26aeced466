"""Train one LoRA adapter from one gold version: `python -m flywheel_assets.training.adapter REQUEST.json`.

Of a cross-fitted version it trains the deployed adapter, or, asked for a fold, the one that has not seen its users.

A *fresh* adapter from the pinned base on everything in the export: going on from the last adapter with only new rows
was measured to forget. First SFT on the users' texts plus accepted outputs and demonstrations: the baseline. Then what
the recipe's `stages` names: one stage from the base that writes and prefers, or a preference stage against the frozen
SFT adapter. That adapter has to earn its place: some training subjects (never the holdout) are kept out of training,
and where it writes worse for them, or for the outputs that users had accepted, than the SFT adapter does, or stops
ending its texts, the SFT adapter is the challenger (see `_selection`).

    <output_dir>/adapter/       the challenger
    <output_dir>/sft_adapter/   the SFT baseline
    <output_dir>/deltas.parquet one training pair a row: pair_id, delta_chosen, delta_rejected (log p against the base)
    <output_dir>/training.json  TrainingReport

The folder appears whole. Killed and started again with the same request, the trainer goes on from its last checkpoint
and ends with the same weights; finished, it verifies them and returns.
"""

import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from flywheel_assets.errors import EmptyVersionError, ManifestMismatchError, TransientError
from flywheel_assets.lake.storage.files import replace_file, write_folder
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet, read_learnt_rows, verify_manifest
from flywheel_assets.models.generation import (
    SwitchableModel,
    choose_placement,
    compute_token_log_probabilities,
    hash_adapter,
    hash_base_weights,
    load_adapters,
    require_train_extra,
    use_cpu_threads,
)
from flywheel_assets.models.own_process import build_main, find_finished_report, write_report
from flywheel_assets.models.rendering import RowEncoder, load_tokenizer
from flywheel_assets.records import make_stable_id
from flywheel_assets.training._coverage import measure_coverage
from flywheel_assets.training._selection import DESCRIPTIONS, ONE_STAGE, PREFERENCE, SFT, Choice, choose
from flywheel_assets.training._stages import (
    locate_result,
    release_memory,
    train_one_stage,
    train_preference,
    train_sft,
)
from flywheel_assets.training.duration import StageWork, estimate_durations
from flywheel_assets.training.examples import Example, Split, encode, keep_back, select_unseen, split
from flywheel_assets.training.memory import StageShape, check_memory, fit_into_memory
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import (
    REPORT_FILE,
    RowCounts,
    StageReport,
    TrainingReport,
    TrainingRequest,
    follow_finished,
    read_training_report,
)

_log = logging.getLogger(__name__)

DELTAS_FILE = "deltas.parquet"
_LIBRARIES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True)
class _Rows:
    pairs: list[Example]
    others: list[Example]
    """Accepted outputs and demonstrations: SFT and the one stage learn them with the chosen texts."""
    objections: list[Example]
    """For the one stage; empty unless the recipe weighs them."""
    kept_back: list[ExportedRow]
    accepted_outputs: list[ExportedRow]
    counts: RowCounts


def train_adapter(request: TrainingRequest) -> TrainingReport:
    """Train what the request asks for, or verify that it is there already.

    Raises:
        ManifestMismatchError: the export is not the requested one, or a file of it or of a finished result changed.
        EmptyVersionError: the export holds no pair to train on.
        VersionConflictError: `output_dir` holds the result of another request.
        TrainingError: the base model cannot be read, a row cannot be encoded whole, or training diverged.
        TransientError: another trainer is at work in `work_dir`.
        SettingsError: the extra `train` is not installed.
    """
    require_train_extra("training an adapter")
    work = Path(request.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    # A trainer can outlive the run that started it; a retry of that run must not write into its checkpoints.
    lock = FileLock(work / "trainer.lock", blocking=False)
    try:
        with lock:
            return _train(request, work)
    except Timeout as error:
        raise TransientError(f"another trainer is at work in {work}; run again when it has ended") from error


def _train(request: TrainingRequest, work: Path) -> TrainingReport:
    started = time.monotonic()
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    base_sha256 = hash_base_weights(request.base_model)
    output = Path(request.output_dir)
    if finished := _find_finished(request, base_sha256):
        _verify_weights(output, finished)
        return finished
    identity = _compute_identity(request, base_sha256)
    _claim(work, identity)
    use_cpu_threads(request.recipe.cpu_threads)
    learnt = read_learnt_rows(export, manifest, request.fold)
    rows = _prepare(
        learnt[ExportSet.TRAIN],
        learnt[ExportSet.ACCEPTED],
        learnt[ExportSet.DEMONSTRATIONS],
        learnt[ExportSet.OBJECTIONS],
        RowEncoder(load_tokenizer(request.base_model), request.recipe.rendering),
        request.recipe,
    )
    memory = check_memory(request.base_model, request.recipe, _list_shapes(rows, request.recipe))
    times = estimate_durations(
        request.base_model,
        request.recipe,
        _list_works(rows, request.recipe),
        [*rows.pairs, *rows.others],
        work / "calibration",
    )
    stages, choice = _train_stages(request, rows, work)
    adapters = {SFT: locate_result(work / SFT), "challenger": locate_result(work / choice.stage)}
    model = load_adapters(
        request.base_model,
        {key: str(path) for key, path in adapters.items()},
        device=request.recipe.device,
        quantization=request.recipe.quantization,
    )
    deltas = _compute_deltas(model, rows.pairs, request.recipe)
    report = TrainingReport(
        application=request.application,
        version=request.version,
        request_sha256=identity,
        manifest_sha256=request.manifest_sha256,
        base_model=request.base_model,
        base_weights_sha256=base_sha256,
        recipe=request.recipe,
        chosen_stage=choice.stage,
        why=choice.why,
        rows=rows.counts,
        stages=stages,
        selection=choice.scores,
        delta_rows=deltas.num_rows,
        mean_delta_chosen=float(np.mean(deltas["delta_chosen"])),
        mean_delta_rejected=float(np.mean(deltas["delta_rejected"])),
        share_chosen_fallen=float(np.mean(np.asarray(deltas["delta_chosen"]) < 0)),
        adapter_sha256=hash_adapter(adapters["challenger"]),
        sft_adapter_sha256=hash_adapter(adapters[SFT]),
        seconds=time.monotonic() - started,
        device=choose_placement(request.recipe.device)[0],
        libraries={name: version(name) for name in _LIBRARIES},
        coverage=measure_coverage(model.model),
        memory=memory,
        time=times,
        fold=request.fold,
    )
    with write_folder(output) as building:
        _copy_adapter(adapters["challenger"], building / "adapter")
        _copy_adapter(adapters[SFT], building / "sft_adapter")
        pq.write_table(deltas, building / DELTAS_FILE)
        write_report(building / REPORT_FILE, report)
    _clear(work)
    return report


def _find_finished(request: TrainingRequest, base_sha256: str) -> TrainingReport | None:
    report_file = Path(request.output_dir) / REPORT_FILE
    # A default that changed since must not turn a finished training into the answer to another request.
    asked = follow_finished(request, report_file.read_bytes()) if report_file.exists() else request
    identity, remedy = _compute_identity(asked, base_sha256), "Cut a new version to train differently."
    if find_finished_report(report_file, TrainingReport, identity, remedy=remedy) is None:
        return None
    return read_training_report(report_file)


def _compute_identity(request: TrainingRequest, base_sha256: str) -> str:
    # Paths are left out: a home that moved asks for the same adapter.
    asked = [request.application, request.version, request.manifest_sha256, base_sha256]
    asked += [] if request.fold is None else [f"fold {request.fold}"]
    # In the order of the fields, as digests were made from the whole recipe.
    fields = {
        name: msgspec.Raw(msgspec.json.encode(value, order="deterministic"))
        for name, value in request.recipe.list_deciding_fields().items()
    }
    recipe = msgspec.json.encode(fields).decode()
    return hashlib.sha256(msgspec.json.encode([*asked, recipe])).hexdigest()


def _verify_weights(output: Path, report: TrainingReport) -> None:
    for name, expected in (("adapter", report.adapter_sha256), ("sft_adapter", report.sft_adapter_sha256)):
        found = hash_adapter(output / name)
        if found != expected:
            raise ManifestMismatchError(f"{output / name} has weights {found}, {REPORT_FILE} says {expected}")


def _claim(work: Path, identity: str) -> None:
    """Claim the work folder for this request: checkpoints of another request must never be resumed from."""
    owner = work / "owner.txt"
    if not owner.exists() or owner.read_text() != identity:
        _clear(work)
        replace_file(owner, identity.encode())


def _clear(work: Path) -> None:
    for stage in (SFT, PREFERENCE, ONE_STAGE):
        shutil.rmtree(work / stage, ignore_errors=True)


def _prepare(
    pairs: Sequence[ExportedRow],
    accepted: Sequence[ExportedRow],
    demonstrations: Sequence[ExportedRow],
    objections: Sequence[ExportedRow],
    encoder: RowEncoder,
    recipe: AdapterRecipe,
) -> _Rows:
    if not pairs:
        raise EmptyVersionError("the export holds no training pair; there is nothing to learn from")
    used = objections if recipe.objection_weight else []
    subjects = keep_back(pairs, [*accepted, *demonstrations, *used], recipe)
    pair_split, accepted_split = split(pairs, subjects), split(accepted, subjects)
    shown_split = split(demonstrations, subjects)
    others = Split([*accepted_split.train, *shown_split.train], [*accepted_split.kept_back, *shown_split.kept_back])
    objected_split = split(used, subjects)
    learnt = encode(encoder, pair_split.train, recipe.written_comparisons)
    if not others.train and not any(each.is_written for each in learnt):
        # SFT would have nothing to learn from; the baseline of the promotion gate is made of it.
        _log.warning("No winner of a comparison was accepted, and the version has no other text: all are written.")
        learnt = encode(encoder, pair_split.train)
    counts = RowCounts(
        pairs_exported=len(pairs),
        accepted_exported=len(accepted),
        pairs_used=len(pair_split.train),
        accepted_used=len(accepted_split.train),
        pairs_kept_back=len(pair_split.kept_back),
        accepted_kept_back=len(accepted_split.kept_back),
        demonstrations_exported=len(demonstrations),
        demonstrations_used=len(shown_split.train),
        demonstrations_kept_back=len(shown_split.kept_back),
        winners_not_written=sum(not each.is_written for each in learnt),
        objections_exported=len(objections),
        objections_used=len(objected_split.train),
        objections_kept_back=len(objected_split.kept_back),
    )
    # Every row now: one that cannot be encoded must not stop the choice between stages that took hours.
    encode(encoder, [*pair_split.kept_back, *others.kept_back])
    return _Rows(
        learnt,
        encode(encoder, others.train),
        encode(encoder, objected_split.train),
        select_unseen(pair_split, Split([*others.train, *objected_split.train], others.kept_back)),
        list(accepted),
        counts,
    )


def _train_stages(request: TrainingRequest, rows: _Rows, work: Path) -> tuple[dict[str, StageReport], Choice]:
    recipe = request.recipe
    mixed = [*rows.pairs, *rows.others, *rows.objections]
    base = request.base_model
    written = [each for each in mixed if each.is_written]
    stages = {SFT: fit_into_memory(recipe, lambda fitting: train_sft(base, written, fitting, work / SFT))}
    release_memory()
    if not recipe.trains_preferences:
        return stages, Choice(SFT, "The recipe has SFT alone.", {})
    other = _name_other(recipe)
    described = DESCRIPTIONS[other]
    if recipe.selection_share and len(rows.kept_back) < recipe.selection_min_rows:
        why = (
            f"{described[0].upper()}{described[1:]} was left out: fewer than {recipe.selection_min_rows} pairs would "
            "be kept back to show that it is not inferior."
        )
        return stages, Choice(SFT, why, {})
    sft = locate_result(work / SFT)

    def train_other(fitting: AdapterRecipe) -> StageReport:
        if other == ONE_STAGE:
            return train_one_stage(base, mixed, fitting, work / ONE_STAGE)
        return train_preference(base, sft, rows.pairs, fitting, work / PREFERENCE)

    stages[other] = fit_into_memory(recipe, train_other)
    if not recipe.selection_share:
        return stages, Choice(other, f"The recipe always takes {described}.", {})
    adapters = {stage: locate_result(work / stage) for stage in (SFT, other)}
    return stages, choose(request.base_model, adapters, rows.kept_back, rows.accepted_outputs, recipe)


def _name_other(recipe: AdapterRecipe) -> str:
    return ONE_STAGE if recipe.stages == "one_stage" else PREFERENCE


def _list_shapes(rows: _Rows, recipe: AdapterRecipe) -> dict[str, StageShape]:
    mixed = [*rows.pairs, *rows.others, *rows.objections]
    written = [each for each in mixed if each.is_written]
    shapes = {SFT: StageShape(len(written), 1, max(len(each.prompt) + len(each.chosen) for each in written))}
    if recipe.trains_preferences:
        other = _name_other(recipe)
        learnt = mixed if other == ONE_STAGE else rows.pairs
        longest = max(len(each.prompt) + max(len(each.chosen), len(each.rejected or ())) for each in learnt)
        shapes[other] = StageShape(len(learnt), 2, longest)
    return shapes


def _list_works(rows: _Rows, recipe: AdapterRecipe) -> dict[str, StageWork]:
    mixed = [*rows.pairs, *rows.others]
    works = {SFT: StageWork([(len(each.prompt) + len(each.chosen),) for each in mixed], recipe.sft_epochs)}
    if recipe.trains_preferences:
        other = _name_other(recipe)
        learnt = mixed if other == ONE_STAGE else rows.pairs
        sizes = [
            tuple(len(each.prompt) + len(text) for text in (each.chosen, each.rejected) if text is not None)
            for each in learnt
        ]
        works[other] = StageWork(sizes, recipe.sft_epochs if other == ONE_STAGE else recipe.preference_epochs)
    return works


def _compute_deltas(model: SwitchableModel, pairs: Sequence[Example], recipe: AdapterRecipe) -> pa.Table:
    """Compute the change of log p, challenger − base, in nats.

    Of too many pairs the first ones by hash.
    """
    recorded = sorted(pairs, key=lambda pair: make_stable_id("delta", pair.pair_id))[: recipe.max_delta_rows]
    texts = [(pair.prompt, pair.chosen) for pair in recorded] + [
        (pair.prompt, pair.rejected or []) for pair in recorded
    ]
    with model.activate(None) as base:
        before = compute_token_log_probabilities(base, texts, 4 * recipe.batch_size)
    with model.activate("challenger") as challenger:
        change = compute_token_log_probabilities(challenger, texts, 4 * recipe.batch_size) - before
    return pa.table(
        {
            "pair_id": [pair.pair_id for pair in recorded],
            "delta_chosen": change[: len(recorded)],  # type: ignore[dict-item]
            "delta_rejected": change[len(recorded) :],  # type: ignore[dict-item]
        }
    )


def _copy_adapter(result: Path, target: Path) -> None:
    target.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(result / name, target / name)


main = build_main(TrainingRequest, train_adapter)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
