"""Who writes for whom: each row of a cross-fit is for the adapter of its user's fold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from flywheel_assets.curation.texts.resolution import find_folds
from flywheel_assets.errors import ManifestMismatchError
from flywheel_assets.evaluation._judges import Judges, find_judges, join_phrases, part_rows
from flywheel_assets.evaluation.adapter import evaluate_adapter
from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.evaluation.requests import EvaluationRequest, Scored
from flywheel_assets.lake.versions.exports import FOLDS, ExportSet, hash_manifest
from flywheel_assets.models.generation import (
    compute_token_log_probabilities,
    load_adapters,
    load_model,
    silence_libraries,
)
from flywheel_assets.models.rendering import Rendering, RowEncoder, encode_rows
from flywheel_assets_tests.training.small_world import blank_base, rows_of_a_week, write_version

PEOPLE = [f"engineer-{number}" for number in range(100, 140)]


def test_every_row_is_in_one_part_and_there_the_adapter_of_its_users_fold_writes() -> None:
    digests = {Scored.SFT: ["s"], Scored.CHALLENGER: ["1", "2", "3"], Scored.CHAMPION: ["a", "b"]}
    parts = part_rows(Judges(digests, {}), PEOPLE)
    assert sorted(place for part in parts for place in part.places) == list(range(len(PEOPLE)))
    own, of_champion = find_folds(PEOPLE, 3), find_folds(PEOPLE, 2)
    for part in parts:
        for place in part.places:
            assert part.digests[Scored.CHALLENGER] == str(own[place])
            assert part.digests[Scored.CHAMPION] == "ab"[of_champion[place] - 1]
    assert len(part_rows(Judges({Scored.CHALLENGER: ["1"]}, {}), PEOPLE)) == 1


def test_the_phrases_of_parts_are_of_their_rows() -> None:
    parts = part_rows(Judges({Scored.CHALLENGER: ["1", "2"]}, {}), PEOPLE)
    found = join_phrases(parts, [np.arange(len(part.places), dtype=np.uint64) << np.uint64(32) for part in parts])
    assert (found >> np.uint64(32)).tolist() == list(range(len(PEOPLE)))


def write_folds(folder: Path) -> Path:
    """A version with two folds; of a user each row is held out, and in the other fold's file."""
    rows = rows_of_a_week(1, pairs=0, accepted=0, holdout=14, regression=4)
    held_out = [*rows[ExportSet.HOLDOUT], *rows[ExportSet.REGRESSION]]
    own = find_folds([row.subject for row in held_out], 2)
    assert set(own) == {1, 2}
    for number, which in enumerate(FOLDS[:2], start=1):
        rows[which] = [row for row, fold in zip(held_out, own, strict=True) if fold != number]
    return write_version(folder, {**rows, ExportSet.TRAIN: rows[ExportSet.HOLDOUT]})


Ask = Callable[..., EvaluationRequest]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    export = write_folds(tmp_path / "export")

    def ask(**changes: Any) -> EvaluationRequest:
        asked = EvaluationRequest(
            export_dir=str(export),
            manifest_sha256=hash_manifest(export),
            base_model=str(blank_base()),
            sft_adapter=str(tmp_path / "training" / "sft_adapter"),
            challenger_adapter=str(tmp_path / "training" / "adapter"),
            challenger_folds=str(tmp_path / "folds"),
            output_dir=str(tmp_path / "evaluation"),
            work_dir=str(tmp_path / "work"),
            bootstrap_draws=50,
            options=EvaluationOptions(samples=1, device="cpu"),
        )
        return msgspec.structs.replace(asked, **changes)

    return ask


@pytest.mark.parametrize("changes", [{"challenger_folds": None}, {"champion_folds": "elsewhere"}])
def test_a_deployed_adapter_is_never_judged_by_those_it_has_learnt_from(
    ask: Ask, tmp_path: Path, changes: dict[str, str | None]
) -> None:
    alone = write_version(tmp_path / "alone", {}, version="dpo_gold_v0")
    champion = {"champion_version": "dpo_gold_v0", "champion_export_dir": str(alone), "champion_adapter": "none"}
    with pytest.raises(ManifestMismatchError, match="its folds' adapters were"):
        find_judges(ask(**champion, **changes), lambda path: str(path))


@pytest.mark.long
def test_each_row_is_scored_by_the_adapter_that_has_not_seen_its_user(ask: Ask, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    places = [tmp_path / "training", tmp_path / "folds" / "fold_1", tmp_path / "folds" / "fold_2"]
    for seed, place in enumerate(places):
        for name in ("adapter", "sft_adapter"):
            torch.manual_seed(seed)
            model, _ = load_model(str(blank_base()), None, device="cpu")
            config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
            with silence_libraries():
                get_peft_model(model, config).save_pretrained(place / name)
    request = ask()
    report = evaluate_adapter(request)
    assert report.evidence.cross_fit is not None
    assert report.evidence.cross_fit.folds == 2
    assert Scored.DEPLOYED not in report.scores
    assert evaluate_adapter(request) == report

    rows = pq.read_table(tmp_path / "evaluation" / "rows.parquet").to_pylist()
    scored = {(row["model"], row["pair_id"]): row["log_p_chosen"] for row in rows}
    week = rows_of_a_week(1, pairs=0, accepted=0, holdout=14, regression=4)
    held_out = [*week[ExportSet.HOLDOUT], *week[ExportSet.REGRESSION]]
    assert len(rows) == 4 * len(held_out), "base, SFT, challenger and deployed"
    model = load_adapters(str(blank_base()), {str(n): str(p / "adapter") for n, p in enumerate(places)}, device="cpu")
    encoded = [(row.prompt, row.chosen) for row in encode_rows(RowEncoder(model.tokenizer, Rendering()), held_out)]
    log_p = {}
    for name in ("0", "1", "2"):
        with model.activate(name) as using:
            log_p[name] = compute_token_log_probabilities(using, encoded, 4)
    own = find_folds([row.subject for row in held_out], 2)
    for place, row in enumerate(held_out):
        assert scored["challenger", row.pair_id] == pytest.approx(log_p[str(own[place])][place], abs=1e-3)
        assert scored["deployed", row.pair_id] == pytest.approx(log_p["0"][place], abs=1e-3)
    # Every prompt is its user's alone: their own fold's adapter has not learnt from it.
    strata = {row["stratum"] for row in rows if row["model"] == "challenger"}
    assert "primary" in strata
