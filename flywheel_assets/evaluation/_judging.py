"""Asks a judge about held-out pairs first, and about the models' answers only where it agrees with people."""

from collections.abc import Sequence

import numpy as np

from flywheel_assets.evaluation.requests import Stratum
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import SubjectMeans, average_by_subject
from flywheel_assets.promotion.judge_agreement import JudgeAgreement
from flywheel_assets.promotion.text_limits import Measured
from flywheel_assets.records import make_stable_id
from flywheel_assets.screening.paired_judge import Pair, PairedJudge, ask_preferences

_Row = tuple[Stratum, ExportedRow]


def measure_judge_agreement(judge: PairedJudge, rows: Sequence[_Row]) -> JudgeAgreement:
    """Ask the judge which text of each held-out pair is better, and compare it with what people ended with.

    Args:
        judge: asked about `max_pairs` of the pairs.
        rows: all held-out rows; those without a rejected text say nothing.

    Raises:
        TransientError: the judge does not answer.
    """
    held_out = [row for _, row in rows if row.rejected is not None]
    chosen = sorted(held_out, key=lambda row: make_stable_id("judge", row.pair_id))[: judge.max_pairs]
    asked = [Pair(row.prompt, row.chosen, row.rejected or "") for row in chosen]
    preferences = ask_preferences(judge, asked)
    answered = [(row, found) for row, found in zip(chosen, preferences, strict=True) if found is not None]
    return JudgeAgreement(
        model=judge.model,
        means=average_by_subject(
            np.array([(1 + found.value) / 2 for _, found in answered]), [row.subject for row, _ in answered]
        ),
        same_in_both_orders=(
            sum(found.is_same_in_both_orders for _, found in answered) / len(answered) if answered else None
        ),
        needed=judge.min_agreement,
        unanswered=len(chosen) - len(answered),
    )


def judge_answers(
    judge: PairedJudge, rows: Sequence[_Row], challenger: Sequence[str], incumbent: Sequence[str]
) -> Measured:
    """Let the judge compare the answers of challenger and incumbent, at most `max_pairs` rows of each stratum.

    Args:
        judge: whose agreement is enough.
        rows: the scored rows.
        challenger: its answer to each row.
        incumbent: its answer to each row.

    Raises:
        TransientError: the judge does not answer.
    """
    places: list[int] = []
    for stratum in (Stratum.PRIMARY, Stratum.OLDER, Stratum.REGRESSION):
        of_stratum = [place for place, (where, _) in enumerate(rows) if where is stratum]
        places += sorted(of_stratum, key=lambda place: make_stable_id("judge", rows[place][1].pair_id))[
            : judge.max_pairs
        ]
    pairs = [Pair(rows[place][1].prompt, challenger[place], incumbent[place]) for place in places]
    found = dict(zip(places, ask_preferences(judge, pairs), strict=True))

    def average(stratum: Stratum, sign: int) -> SubjectMeans | None:
        values = [
            (rows[place][1].subject, each.value) for place, each in found.items() if each and rows[place][0] is stratum
        ]
        return average_by_subject(
            np.array([sign * value for _, value in values], dtype=float), [who for who, _ in values]
        )

    return Measured(
        gain=average(Stratum.PRIMARY, 1),
        lost=average(Stratum.PRIMARY, -1),
        older_lost=average(Stratum.OLDER, -1),
        regression_lost=average(Stratum.REGRESSION, -1),
    )
