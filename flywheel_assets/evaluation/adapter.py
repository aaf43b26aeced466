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
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from flywheel_assets.errors import EmptyVersionError, ManifestMismatchError, SettingsError, TransientError
from flywheel_assets.evaluation._inclusion import choose_rows, describe_inclusion
from flywheel_assets.evaluation._judges import Judges, Part, find_judges, join_phrases, join_tables, part_rows
from flywheel_assets.evaluation._judging import judge_answers, measure_judge_agreement
from flywheel_assets.evaluation._scoring import (
    build_scored_rows,
    compute_evidence,
    compute_scores_by_stratum,
    compute_wrong_answers,
    join_models,
    measure_agreement,
    stratify,
)
from flywheel_assets.evaluation._served import Question, open_server
from flywheel_assets.evaluation.answers import ANSWERS_FILE, Answer, AnswerFile, make_answer_key
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
    generate_in_batches,
    hash_adapter,
    hash_base_weights,
    load_adapters,
    require_train_extra,
    use_cpu_threads,
)
from flywheel_assets.models.own_process import build_main, find_finished_report, read_report, write_report
from flywheel_assets.models.rendering import EncodedRow, Refusal, RowEncoder, Target, prepare_targets
from flywheel_assets.records import make_stable_id

_MARGIN_TOKENS = 16  # over the longest reference: room to be wrong in before a generation counts as endless

_Row = tuple[Stratum, ExportedRow]
_WRONG_SEED = 0  # of the sampled answers: every model draws with the same random numbers

_Fitting = tuple[Stratum, ExportedRow, EncodedRow]
_Write = Callable[[str | None, Mapping[str, Question], Set[str]], Iterator[dict[str, Answer]]]


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
    use_cpu_threads(request.options.cpu_threads)
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
    rows = _read_rows(request)
    identity = _compute_identity(request, base_sha256, digests, judges, len(rows))
    output = Path(request.output_dir)
    remedy = "Remove it to evaluate again."
    if (output / REPORT_FILE).is_file():
        # All rows are an answer as well to who asks for some of them.
        whole = _compute_identity(request, base_sha256, digests, judges, 0)
        if read_report(output / REPORT_FILE, EvaluationReport).request_sha256 == whole:
            identity = whole
    if finished := find_finished_report(output / REPORT_FILE, EvaluationReport, identity, remedy=remedy):
        _verify_rows(output, finished)
        # Both: a champion of another version with equal weights would never pass the registry's compare-and-swap.
        asked = (request.champion_version, digests.get(Scored.CHAMPION), request.anchor_version)
        if (finished.champion_version, finished.champion_sha256, finished.evidence.anchor) == asked:
            return finished
    work = Path(request.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    # An evaluator can outlive the run that started it; a retry of that run must not write into its answers.
    lock = FileLock(work / "evaluator.lock", blocking=False)
    try:
        with lock:
            return _evaluate(request, judges, digests, base_sha256, identity, rows, started)
    except Timeout as error:
        raise TransientError(f"another evaluator is at work in {work}; run again when it has ended") from error


def _evaluate(
    request: EvaluationRequest,
    judges: Judges,
    digests: Mapping[Scored, str],
    base_sha256: str,
    identity: str,
    rows: Sequence[_Row],
    started: float,
) -> EvaluationReport:
    # First: a judge that is silent, or not to be believed, is known before the costly part.
    agreement = None if request.judge is None else measure_judge_agreement(request.judge, rows)
    # Equal weights are loaded and scored once: the challenger often is the SFT adapter.
    model = load_adapters(request.base_model, judges.folders, device=request.options.device)
    encoder = RowEncoder(model.tokenizer, request.rendering)
    fitting = _select_fitting(model, encoder, rows, request)
    if not fitting:
        raise EmptyVersionError(f"none of {len(rows)} held-out rows can be scored; nothing can be decided")
    judged = [(stratum, row) for stratum, row, _ in fitting]
    chosen = choose_rows(judged, request.options.max_rows)
    kept = [fitting[place] for place in chosen]
    kept_rows = [row for _, row, _ in kept]
    incumbent = Scored.CHAMPION if Scored.CHAMPION in judges.digests else Scored.BASE
    scoring = _Scoring(request, model, encoder, kept, list(chosen.values()), _choose_pairs_to_sample(kept, request))
    file = AnswerFile(Path(request.work_dir) / ANSWERS_FILE, scoring.identify_answers(base_sha256))
    parts = part_rows(judges, [row.subject for row in kept_rows])
    with scoring.open_writer(judges, identity) as write:
        tables, phrases = _score_models(scoring, write, file, parts, incumbent)
    wrong_answers, wrong_answer_fall = compute_wrong_answers(tables, incumbent)
    preferred = None
    if request.judge is not None and agreement is not None and agreement.is_enough:
        texts = [_list_texts(parts, scored, kept_rows, file) for scored in (Scored.CHALLENGER, incumbent)]
        preferred = judge_answers(request.judge, [(stratum, row) for stratum, row, _ in kept], *texts)
    canary = find_canary(
        # What will serve may have learnt more than its folds' adapters.
        phrases.get(Scored.DEPLOYED, phrases[Scored.CHALLENGER]),
        phrases[incumbent],
        [row.subject for row in kept_rows],
        _list_taught_texts(request),
        request.canary_least_rows,
    )
    output = Path(request.output_dir)
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
            rows_left_out=len(rows) - len(fitting),
            scores=compute_scores_by_stratum(tables, incumbent, request.fall_tolerance_nats),
            evidence=compute_evidence(
                tables,
                incumbent,
                request.fall_tolerance_nats,
                request.bootstrap_draws,
                canary,
                anchor=request.anchor_version,
                agreement=measure_agreement(row for _, row in rows),
                judge=agreement,
                judged=preferred,
                folds=judges.find_folds(),
            ),
            seconds=time.monotonic() - started,
            device=choose_placement(request.options.device)[0],
            wrong_answers=wrong_answers,
            wrong_answer_fall=wrong_answer_fall,
            inclusion=describe_inclusion(judged, chosen),
            generated_by="evaluator" if request.options.server is None else "server",
            answers_taken_over=file.taken_over,
        )
        write_report(building / REPORT_FILE, report)
    file.delete()
    return report


def _score_models(
    scoring: "_Scoring", write: _Write, file: AnswerFile, parts: Sequence[Part], incumbent: Scored
) -> tuple[dict[Scored, pa.Table], dict[Scored, Phrases]]:
    """Score every model on every row, each row by the adapter that judges its user; also return their phrases."""
    found: dict[Scored, list[tuple[pa.Table, Phrases]]] = {}
    for part in parts:
        sampled = {part.digests.get(scored) for scored in (incumbent, Scored.SFT, Scored.CHALLENGER)}
        by_digest: dict[str | None, tuple[pa.Table, Phrases]] = {}
        for digest in dict.fromkeys((None, *part.digests.values())):
            questions = scoring.list_questions(digest, part.places, with_samples=digest in sampled)
            for each in (False, True):
                wanted = {key: question for key, question in questions.items() if (question.sample is not None) is each}
                for answers in write(digest, wanted, file.answers.keys()):
                    file.append(answers)
            by_digest[digest] = scoring.score(digest, part.places, questions, file.answers)
        for scored in Scored:
            if scored is Scored.BASE or scored in part.digests:
                found.setdefault(scored, []).append(by_digest[part.digests.get(scored)])
    tables = {scored: join_tables(parts, [table for table, _ in each]) for scored, each in found.items()}
    return tables, {scored: join_phrases(parts, [phrases for _, phrases in each]) for scored, each in found.items()}


def _list_texts(parts: Sequence[Part], scored: Scored, rows: Sequence[ExportedRow], file: AnswerFile) -> list[str]:
    """List what a model wrote for each row, by the adapter that judges its user."""
    digests = {place: part.digests.get(scored) for part in parts for place in part.places}
    keys = [make_answer_key(digests[place], row.pair_id, None) for place, row in enumerate(rows)]
    return [file.answers[key].text for key in keys]


def _compute_identity(
    request: EvaluationRequest, base_sha256: str, digests: Mapping[Scored, str], judges: Judges, rows: int
) -> str:
    # Neither paths (a home may move), nor batches, nor the champion (see above), nor the sampled answers: they decide
    # nothing, and an evaluation that is older than they are stays finished.
    options = request.options
    asked = [request.manifest_sha256, base_sha256, digests[Scored.SFT], digests[Scored.CHALLENGER]]
    if judges.find_folds() is not None:
        asked += [*judges.digests[Scored.SFT], *judges.digests[Scored.CHALLENGER]]
    settings = [options.max_new_tokens, request.fall_tolerance_nats, request.bootstrap_draws, request.canary_least_rows]
    # As are those of before there were these options, wherever they change nothing.
    younger: dict[str, Any] = {}
    if options.max_rows is not None and rows > options.max_rows:
        younger["max_rows"] = options.max_rows
    if options.server is not None:
        younger["server"] = [options.server.base_model, options.server.model_names]
    if request.judge is not None:
        younger["judge"] = request.judge.version
    content = [asked, settings, request.rendering, *([younger] if younger else [])]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


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
        if len(each.chosen) <= request.options.max_new_tokens and len(each.prompt) + len(each.chosen) <= window:
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
    return sorted(first[: request.options.max_sampled_rows]) if request.options.samples else []


class _Scoring:
    """Asks models for answers to the same rows, and scores them."""

    def __init__(
        self,
        request: EvaluationRequest,
        model: SwitchableModel,
        encoder: RowEncoder,
        fitting: Sequence[_Fitting],
        inclusion: Sequence[float],
        sampled: Sequence[int],
    ) -> None:
        self._options, self._rendering = request.options, request.rendering
        self._server_key_file, self._manifest_sha256 = request.server_key_file, request.manifest_sha256
        self._model, self._encoder = model, encoder
        self._fitting, self._inclusion, self._sampled = fitting, inclusion, sampled
        self._rows = [row for _, row, _ in fitting]
        self._targets = prepare_targets(encoder, self._rows, [each for _, _, each in fitting])
        self._most_tokens = max(target.tokens for target in self._targets) + _MARGIN_TOKENS
        self._device, _ = choose_placement(request.options.device)

    def identify_answers(self, base_sha256: str) -> str:
        """Return the digest of everything that decides an answer besides model, row and sample."""
        server = self._options.server
        return make_stable_id(
            self._manifest_sha256,
            base_sha256,
            msgspec.to_builtins(self._rendering),
            self._most_tokens,
            self._options.temperature,
            None if server is None else [server.url, server.base_model, dict(server.model_names)],
        )

    def list_questions(self, digest: str | None, places: Sequence[int], *, with_samples: bool) -> dict[str, Question]:
        """List the answers that are wanted of a model for some rows by their key; the samples come last."""
        wanted: list[tuple[int, int | None]] = [(place, None) for place in places]
        if with_samples:
            sampled = set(self._sampled).intersection(places)
            wanted += [(place, number) for place in sorted(sampled) for number in range(self._options.samples)]
        return {
            make_answer_key(digest, self._rows[place].pair_id, sample): Question(
                self._rows[place], self._targets[place], sample
            )
            for place, sample in wanted
        }

    @contextmanager
    def open_writer(self, judges: Judges, identity: str) -> Iterator[_Write]:
        """Yield what writes the answers to questions: the model in memory, or the server with all models loaded."""
        server = self._options.server
        if server is None:
            yield self._write
            return
        # A name stands for one adapter; those of folds are loaded under names of their own.
        named = {
            each[0]: server.model_names[scored.value]
            for scored, each in judges.digests.items()
            if len(each) == 1 and scored.value in server.model_names
        }
        with (
            open_server(
                server,
                self._server_key_file,
                rendering=self._rendering,
                is_chat=self._encoder.has_template,
                max_new_tokens=self._most_tokens,
            ) as models,
            models.load(judges.folders, named, identity) as names,
        ):

            def ask(
                digest: str | None, questions: Mapping[str, Question], written: Set[str]
            ) -> Iterator[dict[str, Answer]]:
                missing = {key: each for key, each in questions.items() if key not in written}
                return models.write(names[digest], missing, self._find_temperature(questions))

            yield ask

    def _find_temperature(self, questions: Mapping[str, Question]) -> float | None:
        samples = any(each.sample is not None for each in questions.values())
        return self._options.temperature if samples else None

    def _write(
        self, digest: str | None, questions: Mapping[str, Question], written: Set[str]
    ) -> Iterator[dict[str, Answer]]:
        """Write the missing answers in the batches of all questions, so that each is what it would have been."""
        keys, wanted = list(questions), list(questions.values())
        with self._model.activate(digest) as using:
            for batch in generate_in_batches(
                using,
                self._model.tokenizer,
                [each.target.prompt for each in wanted],
                self._most_tokens,
                rows_per_batch=self._options.count_generation_rows(self._device),
                tokens_per_batch=self._options.generation_tokens_per_batch,
                turn_ends={target.turn_end for target in self._targets},
                temperature=self._find_temperature(questions),
                seed=_WRONG_SEED,
                finished={place for place, key in enumerate(keys) if key in written},
            ):
                yield {
                    keys[place]: Answer(
                        self._encoder.read_answer(wanted[place].target, generation.tokens), generation.ended
                    )
                    for place, generation in batch.items()
                }

    def score(
        self,
        digest: str | None,
        places: Sequence[int],
        questions: Mapping[str, Question],
        answers: Mapping[str, Answer],
    ) -> tuple[pa.Table, Phrases]:
        """Score one model on some rows; also return the hashed phrases that it wrote."""
        fitting = [self._fitting[place] for place in places]
        rows = [row for _, row, _ in fitting]
        encoded = [each for _, _, each in fitting]
        pairs = [place for place, each in enumerate(encoded) if each.rejected is not None]
        chosen = [(each.prompt, each.chosen) for each in encoded]
        rejected = [(encoded[place].prompt, encoded[place].rejected or []) for place in pairs]
        with self._model.activate(digest) as using:
            # Scores need the logits of every position at once, generation only those of the last.
            likelihood = compute_token_log_probabilities(
                using,
                [*chosen, *rejected],
                self._options.count_scoring_rows(self._device),
                self._options.scoring_tokens_per_batch,
            )
        log_p_rejected: Floats = np.full(len(encoded), np.nan)
        log_p_rejected[pairs] = likelihood[len(chosen) :]
        said: dict[tuple[str, bool], list[Answer]] = defaultdict(list)
        for key, question in questions.items():
            said[question.row.pair_id, question.sample is not None].append(answers[key])
        written = [said[row.pair_id, False][0] for row in rows]
        texts = [answer.text for answer in written]
        table = build_scored_rows(
            [
                (stratum, msgspec.structs.replace(row, chosen=self._find_reference(row, target)))
                for (stratum, row, _), target in zip(fitting, (self._targets[place] for place in places), strict=True)
            ],
            texts,
            [answer.ended for answer in written],
            likelihood[: len(chosen)],
            log_p_rejected,
            [len(each.chosen) for each in encoded],
            [_compute_wrong_share(row, said[row.pair_id, True]) for row in rows],
            [self._inclusion[place] for place in places],
        )
        return table, hash_phrases((row.prompt for row in rows), texts)

    def _find_reference(self, row: ExportedRow, target: Target) -> str:
        # A server sends a tool call as a call, which is compared as people see it.
        return target.reference if self._options.server is None else row.chosen


def _compute_wrong_share(row: ExportedRow, drawn: Sequence[Answer]) -> float | None:
    """Compute the share of sampled answers that still say what was corrected; None: none was sampled or corrected."""
    if not drawn or (corrected := find_corrected(row.rejected or "", row.chosen)) is None:
        return None
    return float(np.mean([corrected.is_repeated_in(answer.text) for answer in drawn]))


main = build_main(EvaluationRequest, evaluate_adapter)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
