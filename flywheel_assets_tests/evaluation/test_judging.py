"""A judge's agreement with people is measured before its opinions are asked for; both against a real local server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import TransientError
from flywheel_assets.evaluation._judging import judge_answers, measure_judge_agreement
from flywheel_assets.evaluation.adapter import evaluate_adapter
from flywheel_assets.evaluation.options import EvaluationOptions
from flywheel_assets.evaluation.requests import EvaluationReport, EvaluationRequest, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet, hash_manifest
from flywheel_assets.measures.texts import SubjectMeans
from flywheel_assets.promotion.text_limits import PromotionLimits, decide
from flywheel_assets.training.adapter import train_adapter
from flywheel_assets_tests.screening.test_judge import items_of, served
from flywheel_assets_tests.screening.test_paired_judge import answering, judge_of, prefer_right
from flywheel_assets_tests.training import small_world
from flywheel_assets_tests.training.small_world import exported

Rows = list[tuple[Stratum, ExportedRow]]


def held_out(count: int, *, accepted: Sequence[int] = ()) -> Rows:
    """One pair of each of `count` people, and accepted outputs of the people with these numbers."""
    pairs = [(Stratum.PRIMARY, exported(n, f"ask {n}", "right", "wrong", f"user-{n}")) for n in range(count)]
    kept = [(Stratum.REGRESSION, exported(1000 + n, f"ask {n}", "right", None, f"user-{n}")) for n in accepted]
    return [*pairs, *kept]


def test_a_judge_that_prefers_what_people_wrote_agrees() -> None:
    with served(answering(prefer_right)) as server:
        found = measure_judge_agreement(judge_of(server.url), held_out(30, accepted=[1, 2]))
    assert found.means == SubjectMeans((1.0,) * 30, 30)
    assert (found.same_in_both_orders, found.unanswered) == (1.0, 0)
    assert found.is_enough
    assert "prefers what held-out people wrote in 1.000 of 30 pairs (30 people)" in found.describe()


@pytest.mark.parametrize("place", ["first", "second", "tie"])
def test_a_judge_of_places_is_found_out(place: str) -> None:
    """Whatever it is shown, it agrees in exactly half, and the same in both orders only where it says tie."""
    with served(answering(lambda _: place)) as server:
        found = measure_judge_agreement(judge_of(server.url), held_out(300))
    assert found.means == SubjectMeans((0.5,) * 200, 200)
    assert found.same_in_both_orders == (1.0 if place == "tie" else 0.0)
    assert not found.is_enough


def test_a_judge_that_agrees_with_few_people_is_not_believed() -> None:
    """Five of five agree: their lower bound is .55."""
    with served(answering(prefer_right)) as server:
        assert not measure_judge_agreement(judge_of(server.url), held_out(5)).is_enough


def test_each_stratum_is_compared_and_asked_about_a_limited_number_of_rows() -> None:
    rows = held_out(3, accepted=[7, 8])
    challenger, incumbent = ["right", "right", "wrong", "right", "wrong"], ["wrong", "right", "right", "right", "right"]
    with served(answering(prefer_right)) as server:
        found = judge_answers(judge_of(server.url), rows, challenger, incumbent)
        assert found.gain == found.lost == SubjectMeans((-1.0, 0.0, 1.0), 3)
        assert found.regression_lost == SubjectMeans((0.0, 1.0), 2)
        assert found.older_lost is None
        asked = sum(len(items_of(body)) for body in server.requests)
        assert asked == 6, "equal answers are not asked about"
        few = judge_answers(judge_of(server.url, max_pairs=1), rows, challenger, incumbent)
    assert few.gain is not None
    assert few.gain.rows == 1


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> EvaluationRequest:
    """An adapter that learnt the company's calls, ready to be evaluated."""
    root = tmp_path_factory.mktemp("judged")
    rows = small_world.rows_of_a_week(1, pairs=240, accepted=40, holdout=60, regression=20)
    export = small_world.write_version(root / "export", rows)
    trained = small_world.request(export, small_world.trained_base(), root, preference_epochs=0.0)
    train_adapter(trained)
    return small_world.evaluation_of(trained, options=EvaluationOptions(samples=0))  # type: ignore[no-any-return]


def evaluate(asked: EvaluationRequest, folder: Path, **judge: Any) -> EvaluationReport:
    return evaluate_adapter(
        msgspec.structs.replace(asked, output_dir=str(folder / "judged"), judge=judge_of(**judge) if judge else None)
    )


def prefer_call(item: dict[str, Any]) -> str:
    """Knows the company's calls."""
    first, second = (any(call in item[at] for call in ("lake.", "meter(", "topic(")) for at in ("first", "second"))
    return "tie" if first == second else "first" if first else "second"


JUDGE_ALONE = PromotionLimits(decided_by=("judge",))


@pytest.mark.long
def test_what_the_models_really_wrote_is_judged_and_decides(asked: EvaluationRequest, tmp_path: Path) -> None:
    with served(answering(prefer_call)) as server:
        report = evaluate(asked, tmp_path, url=server.url, min_agreement=0.7)
        evidence = report.evidence
        assert evidence.judge is not None
        assert evidence.judge.is_enough
        assert evidence.judged.gain is not None
        assert evidence.judged.gain.mean > 0.9
        decision = decide(evidence, JUDGE_ALONE)
        assert (decision.promote, decision.measure) == (True, "judge"), decision.sentence
        assert "by judge, wins less losses of the answers against the base" in decision.sentence
        assert "the judge tiny prefers what held-out people wrote in 1.000 of" in decision.sentence
        assert msgspec.json.decode(msgspec.json.encode(report), type=EvaluationReport) == report
        before = len(server.requests)
        evaluate(asked, tmp_path, url=server.url, min_agreement=0.7)
        assert len(server.requests) == before, "the same judge's result is finished"


@pytest.mark.long
def test_a_judge_of_places_decides_nothing_and_is_not_asked_about_answers(
    asked: EvaluationRequest, tmp_path: Path
) -> None:
    with served(answering(lambda _: "first")) as server:
        report = evaluate(asked, tmp_path, url=server.url)
        shown = [each for body in server.requests for each in items_of(body)]
    people = {row.chosen for row in _held_out_rows(asked)} | {row.rejected for row in _held_out_rows(asked)}
    assert {each[place] for each in shown for place in ("first", "second")} <= people
    decision = decide(report.evidence, JUDGE_ALONE)
    assert not decision.promote
    assert "nothing decides (judge decides by the application's declaration; the judge decides nothing" in (
        decision.sentence
    )
    assert "prefers what held-out people wrote in 0.500 of" in decision.sentence
    # By default the likelihood decides without it, at the whole level.
    alone = decide(report.evidence, PromotionLimits())
    assert (alone.promote, alone.measure) == (True, "likelihood")
    assert "at level 0.025" in alone.sentence


@pytest.mark.long
def test_a_silent_judge_fails_before_the_costly_part(asked: EvaluationRequest, tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="Start it, or leave `judge` out"):
        evaluate(asked, tmp_path, url="http://127.0.0.1:9/v1")
    assert not (tmp_path / "judged").exists()


def _held_out_rows(asked: EvaluationRequest) -> list[ExportedRow]:
    from flywheel_assets.lake.versions.exports import read_manifest, read_rows

    export = Path(asked.export_dir)
    assert hash_manifest(export) == asked.manifest_sha256
    return list(read_rows(export, read_manifest(export), ExportSet.HOLDOUT))
