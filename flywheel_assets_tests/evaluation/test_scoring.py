from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.evaluation._scoring import (
    build_scored_rows,
    compute_evidence,
    compute_scores_by_stratum,
    compute_wrong_answers,
    join_models,
    measure_agreement,
    stratify,
)
from flywheel_assets.evaluation.canary import Canary
from flywheel_assets.evaluation.requests import Scored, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import SubjectMeans
from flywheel_assets_tests.training.small_world import exported


def row(number: int, *, accepted: bool = False, **changes: Any) -> ExportedRow:
    return exported(number, f"# ask {number}\n", "right", None if accepted else "wrong", f"user-{number}", **changes)


def table(
    rows: list[tuple[Stratum, ExportedRow]],
    *,
    texts: list[str] | None = None,
    ended: list[bool] | None = None,
    log_p_chosen: list[float] | None = None,
    wrong_answers: list[float | None] | None = None,
) -> pa.Table:
    rejected = [np.nan if each.rejected is None else -9.0 for _, each in rows]
    return build_scored_rows(
        rows,
        texts or ["right"] * len(rows),
        ended or [True] * len(rows),
        np.array(log_p_chosen or [-1.0] * len(rows)),
        np.array(rejected),
        [3] * len(rows),
        wrong_answers,
    )


def test_wrong_answers_are_counted_by_person_on_primary_rows_and_paired_by_row() -> None:
    """Three rows of one person and one of another: each person has one vote; rows without samples have none."""
    rows = [
        *((Stratum.PRIMARY, msgspec.structs.replace(row(number), subject=who)) for number, who in enumerate("aaabc")),
        (Stratum.OLDER, msgspec.structs.replace(row(9), subject="d")),
    ]
    tables = {
        Scored.BASE: table(rows, wrong_answers=[1.0, 1.0, 1.0, 1.0, None, 1.0]),
        Scored.SFT: table(rows),
        Scored.CHALLENGER: table(rows, wrong_answers=[0.5, 0.25, 0.0, 1.0, None, 0.0]),
    }
    rates, fall = compute_wrong_answers(tables, Scored.BASE)
    assert set(rates) == {Scored.BASE, Scored.CHALLENGER}
    assert (rates[Scored.CHALLENGER].mean, rates[Scored.CHALLENGER].clusters) == (0.625, 2)
    assert fall is not None
    assert (fall.mean, fall.rows) == (0.375, 4)
    assert fall.low < 0.375 < fall.high  # type: ignore[operator]


def test_a_row_is_won_by_fewer_wrong_answers_and_else_by_the_users_own_text() -> None:
    rows = [(Stratum.PRIMARY, row(number)) for number in range(5)]
    before = table(rows, texts=["x", "right", "x", "right", "x"], wrong_answers=[1.0, 0.0, 0.5, 0.5, None])
    after = table(rows, texts=["x", "x", "right", "right", "right"], wrong_answers=[0.5, 0.25, 0.5, 0.5, None])
    tables = {Scored.BASE: before, Scored.SFT: after, Scored.CHALLENGER: after}
    found = compute_evidence(tables, Scored.BASE, fall_tolerance_nats=0.1, bootstrap_draws=10, canary=Canary(0, 0.0))
    assert found.sampled.gain == SubjectMeans((-1.0, 0.0, 1.0, 1.0), 4)
    assert found.sampled.lost == SubjectMeans((-0.5, 0.0, 0.0, 0.25), 4)


def test_a_text_that_became_likelier_with_what_it_corrected_is_no_win() -> None:
    """A longer training makes all of a team's texts more likely, and the same edits stay needed."""
    rows = [(Stratum.PRIMARY, row(number, accepted=number == 3)) for number in range(4)]
    before = table(rows, log_p_chosen=[-5.0] * 4)
    after = table(rows, log_p_chosen=[-3.0, -3.0, -5.0, -3.0])
    rejected = [-9.0, -7.0, -12.0, None]
    after = after.set_column(after.column_names.index("log_p_rejected"), "log_p_rejected", pa.array(rejected))
    tables = {Scored.BASE: before, Scored.SFT: after, Scored.CHALLENGER: after}
    found = compute_evidence(tables, Scored.BASE, fall_tolerance_nats=0.1, bootstrap_draws=10, canary=Canary(0, 0.0))
    # Won; as needed as before; no likelier itself; without an output to compare with.
    assert found.likelihood.gain == SubjectMeans((0.0, 0.0, 1.0, 1.0), 4)


@pytest.mark.parametrize(
    ("known", "trained", "expected"),
    [
        (False, False, Stratum.PRIMARY),
        (True, False, Stratum.OLDER),
        (False, True, Stratum.SEEN_PROMPT),
        (True, True, Stratum.SEEN_PROMPT),
    ],
)
def test_the_stratum_of_a_held_out_row(known: bool, trained: bool, expected: Stratum) -> None:
    held_out, other = row(1), row(2)
    of = {True: held_out, False: other}
    assert stratify([held_out], {of[known].pair_id}, [trained]) == [(expected, held_out)]


@pytest.mark.parametrize("known", [False, True])
def test_a_held_out_row_near_a_prompt_that_was_trained_on_is_never_primary(known: bool) -> None:
    """A date in the system prompt made each prompt new, and the holdout measured what the model had learnt by heart."""
    near = msgspec.structs.replace(row(1), nearest_training=0.93)
    ids = {near.pair_id} if known else set()
    assert stratify([near], ids, [False]) == [(Stratum.SEEN_PROMPT, near)]


def test_evidence_looks_at_the_sets_that_each_rule_is_about() -> None:
    rows = [
        (Stratum.PRIMARY, row(1)),
        (Stratum.PRIMARY, row(2)),
        (Stratum.OLDER, row(3)),
        (Stratum.SEEN_PROMPT, row(4)),
        (Stratum.REGRESSION, row(5, accepted=True)),
    ]
    wrong, right = "xxxxx", "right"
    tables = {
        Scored.BASE: table(rows, texts=[wrong] * 5),
        Scored.SFT: table(rows),
        Scored.CHAMPION: table(rows, texts=[wrong, right, right, right, right], log_p_chosen=[-2.0, -1, -1, -1, -1]),
        Scored.CHALLENGER: table(
            rows,
            texts=[right, right, wrong, wrong, right],
            ended=[True, False, False, False, True],
            log_p_chosen=[-1.0, -1.05, -50, -50, -50],
        ),
    }
    found = compute_evidence(
        tables, Scored.CHAMPION, fall_tolerance_nats=0.1, bootstrap_draws=100, canary=Canary(2, 0.1)
    )
    assert (found.canary_ratio, found.canary_phrases) == (0.1, 2)
    assert (found.ned_gain.mean, found.ned_gain.rows, found.ned_gain.clusters) == (0.5, 2, 2)
    # The second row fell by less than the tolerance.
    assert found.likelihood.gain == SubjectMeans((0.0, 1.0), 2)
    assert found.distance.gain == SubjectMeans((0.0, 1.0), 2)
    assert found.likelihood.lost == found.distance.lost == SubjectMeans((0.0, 0.0), 2)
    assert found.missing_end == pytest.approx(1 / 3)  # primary and regression rows
    assert found.incumbent_missing_end == 0.0
    assert (found.challenger_ned, found.sft_ned) == (0.0, 0.0)
    assert found.likelihood.older_lost == found.distance.older_lost == SubjectMeans((1.0,), 1)
    assert found.likelihood.regression_lost == SubjectMeans((1.0,), 1)
    assert found.distance.regression_lost == SubjectMeans((0.0,), 1)
    assert (found.anchor, found.anchor_likelihood_gain) == (None, None)
    stricter = compute_evidence(
        tables, Scored.CHAMPION, fall_tolerance_nats=0.01, bootstrap_draws=100, canary=Canary(2, 0.1)
    )
    assert stricter.likelihood.gain == SubjectMeans((-1.0, 1.0), 2)


def test_a_likelihood_that_is_not_a_number_has_fallen() -> None:
    rows = [(Stratum.PRIMARY, row(1))]
    tables = dict.fromkeys(Scored, table(rows)) | {Scored.CHALLENGER: table(rows, log_p_chosen=[float("nan")])}
    found = compute_evidence(
        tables, Scored.CHAMPION, fall_tolerance_nats=0.1, bootstrap_draws=10, canary=Canary(0, 0.0)
    )
    assert (found.likelihood.gain, found.likelihood.lost) == (SubjectMeans((-1.0,), 1), SubjectMeans((1.0,), 1))


def test_long_texts_move_by_more_before_they_count() -> None:
    """A text of 300 tokens changes by a few nats when nothing of what it says has changed."""
    rows = [(Stratum.PRIMARY, row(1)), (Stratum.PRIMARY, row(2)), (Stratum.PRIMARY, row(3))]
    before = table(rows, log_p_chosen=[-300.0, -300.0, -300.0])
    after = table(rows, log_p_chosen=[-302.0, -320.0, -340.0])
    place, tokens = before.schema.get_field_index("tokens"), pa.array([300] * 3)
    before, after = (each.set_column(place, "tokens", tokens) for each in (before, after))
    long = dict.fromkeys(Scored, before) | {Scored.CHALLENGER: after}
    found = compute_evidence(long, Scored.CHAMPION, fall_tolerance_nats=0.1, bootstrap_draws=10, canary=Canary(0, 0.0))
    assert found.likelihood.gain == SubjectMeans((-1.0, -1.0, 0.0), 3)
    assert found.likelihood.lost == SubjectMeans((0.0, 0.0, 1.0), 3)


def test_an_anchor_that_no_longer_serves_is_an_opponent_of_its_own() -> None:
    rows = [(Stratum.PRIMARY, row(1))]
    tables = dict.fromkeys(Scored, table(rows)) | {Scored.ANCHOR: table(rows, log_p_chosen=[-0.1])}
    more: dict[str, Any] = {"fall_tolerance_nats": 0.1, "bootstrap_draws": 10, "canary": Canary(0, 0.0)}
    found = compute_evidence(tables, Scored.CHAMPION, **more, anchor="dpo_gold_v1")
    assert (found.likelihood.gain, found.anchor_likelihood_gain) == (SubjectMeans((0.0,), 1), SubjectMeans((-1.0,), 1))
    del tables[Scored.ANCHOR]
    assert compute_evidence(tables, Scored.CHAMPION, **more, anchor="dpo_gold_v2").anchor_likelihood_gain == (
        SubjectMeans((0.0,), 1)
    )


def test_people_who_were_asked_the_same_agree_or_not() -> None:
    def answer(number: int, prompt: str, text: str, user: str) -> ExportedRow:
        return exported(number, prompt, text, "wrong", user)

    assert measure_agreement([row(1), row(2)]) == (None, 0)
    rows = [answer(1, "a", "x", "u1"), answer(2, "a", "x", "u2"), answer(3, "a", "y", "u3"), answer(4, "a", "x", "u3")]
    assert measure_agreement([*rows, answer(5, "b", "x", "u1")]) == (pytest.approx(1 / 3), 3)


def test_scores_leave_out_empty_strata_and_rewards_of_accepted_outputs() -> None:
    rows = [(Stratum.PRIMARY, row(1)), (Stratum.REGRESSION, row(2, accepted=True))]
    tables = {Scored.BASE: table(rows), Scored.CHALLENGER: table(rows, log_p_chosen=[-0.5, -0.5])}
    scores = compute_scores_by_stratum(tables, Scored.BASE, 0.1)
    challenger = scores[Scored.CHALLENGER]
    assert set(challenger) == {Stratum.PRIMARY, Stratum.REGRESSION}
    assert challenger[Stratum.PRIMARY].reward_accuracy == 1.0
    assert challenger[Stratum.REGRESSION].reward_accuracy is None
    assert scores[Scored.BASE][Stratum.PRIMARY].reward_accuracy == 0.0  # a no-op is never strictly better than itself
    assert challenger[Stratum.PRIMARY].delta_log_p_chosen == 0.5


def test_the_table_of_all_models_holds_no_text() -> None:
    rows = [(Stratum.PRIMARY, row(1))]
    whole = join_models({Scored.BASE: table(rows), Scored.CHALLENGER: table(rows)})
    assert whole["model"].to_pylist() == ["base", "challenger"]
    said = {value for column in whole.itercolumns() for value in column.to_pylist() if isinstance(value, str)}
    assert said == {"base", "challenger", "primary", "user-1", row(1).pair_id}
