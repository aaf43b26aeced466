"""Turns scored rows, one per model and held-out row, into scores and evidence. Needs no model.

The tables of scored rows, one for each model (grain: one row of the export), hold no text:

    pair_id, subject, similarity   of the exported row; similarity is null for accepted outputs
    stratum                        see `requests`
    ned, exact, ended              of the greedy generation against the user's text
    log_p_chosen, log_p_rejected   nats, with the end token; rejected is null for accepted outputs
    tokens                         of the user's text, with the end token
    wrong_answers                  share of sampled answers that still say what the user corrected; null where none was
    length_ratio, repetition       of the generation
    inclusion_probability          that the row was scored, in (0, 1]; see `_inclusion`
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.evaluation.canary import Canary
from flywheel_assets.evaluation.requests import Scored, Scores, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import (
    Floats,
    Interval,
    SubjectMeans,
    average_by_subject,
    length_ratios,
    measure_repetition,
    normalized_edit_distances,
)
from flywheel_assets.promotion.judge_agreement import JudgeAgreement
from flywheel_assets.promotion.text_limits import CrossFitEvidence, Evidence, Measured

# Long texts move by more than short ones when nothing of what they say has changed.
_EQUAL_NATS_A_TOKEN = 0.01
_LOST_NATS = 1.0
_LOST_NATS_A_TOKEN = 0.1
_LOST_NED = 0.1

SCORED_ROWS = pa.schema(
    [  # type: ignore[arg-type]
        ("pair_id", pa.string()),
        ("subject", pa.string()),
        ("similarity", pa.float64()),
        ("stratum", pa.string()),
        ("ned", pa.float64()),
        ("exact", pa.bool_()),
        ("ended", pa.bool_()),
        ("log_p_chosen", pa.float64()),
        ("log_p_rejected", pa.float64()),
        ("length_ratio", pa.float64()),
        ("repetition", pa.float64()),
        ("tokens", pa.int64()),
        ("wrong_answers", pa.float64()),
        ("inclusion_probability", pa.float64()),
    ]
)


def stratify(
    holdout: Sequence[ExportedRow], known_to_champion: Set[str], has_trained_prompt: Sequence[bool]
) -> list[tuple[Stratum, ExportedRow]]:
    """Assign each held-out row to its stratum.

    Args:
        holdout: held-out pairs of the challenger's version.
        known_to_champion: pair ids that the champion's version held out.
        has_trained_prompt: of each row, whether a model that judges it was trained on its prompt.
    """

    def stratum(row: ExportedRow, *, is_trained: bool) -> Stratum:
        if is_trained or row.nearest_training is not None:
            return Stratum.SEEN_PROMPT
        return Stratum.OLDER if row.pair_id in known_to_champion else Stratum.PRIMARY

    return [(stratum(row, is_trained=each), row) for row, each in zip(holdout, has_trained_prompt, strict=True)]


def build_scored_rows(
    rows: Sequence[tuple[Stratum, ExportedRow]],
    texts: Sequence[str],
    ended: Sequence[bool],
    log_p_chosen: Floats,
    log_p_rejected: Floats,
    tokens: Sequence[int],
    wrong_answers: Sequence[float | None] | None = None,
    inclusion: Sequence[float] | None = None,
) -> pa.Table:
    """Build the table of one model's scored rows; `log_p_rejected` is NaN where there is no rejected text.

    `wrong_answers` is None where no answer was sampled; `inclusion` where every row is scored.
    """
    references = [row.chosen for _, row in rows]
    columns: dict[str, Any] = {
        "pair_id": [row.pair_id for _, row in rows],
        "subject": [row.subject for _, row in rows],
        "similarity": [row.similarity for _, row in rows],
        "stratum": [stratum.value for stratum, _ in rows],
        "ned": normalized_edit_distances(texts, references),
        "exact": [text == reference for text, reference in zip(texts, references, strict=True)],
        "ended": list(ended),
        "log_p_chosen": log_p_chosen,
        "log_p_rejected": pa.array(log_p_rejected, from_pandas=True),
        "length_ratio": length_ratios(texts, references),
        "repetition": [measure_repetition(text) for text in texts],
        "tokens": list(tokens),
        "wrong_answers": [None] * len(rows) if wrong_answers is None else list(wrong_answers),
        "inclusion_probability": [1.0] * len(rows) if inclusion is None else list(inclusion),
    }
    return pa.table(columns, schema=SCORED_ROWS)


def join_models(tables: Mapping[Scored, pa.Table]) -> pa.Table:
    """Join the rows of every model in one table, with a column `model` in front."""
    return pa.concat_tables(
        table.add_column(0, "model", pa.array([model.value] * table.num_rows, pa.string()))
        for model, table in tables.items()
    )


def compute_scores_by_stratum(
    tables: Mapping[Scored, pa.Table], incumbent: Scored, fall_tolerance_nats: float
) -> dict[Scored, dict[Stratum, Scores]]:
    """Compute means per model and stratum; strata without rows are left out."""
    return {
        model: {
            stratum: _compute_scores(
                _select_stratum(table, stratum),
                _select_stratum(tables[incumbent], stratum),
                _select_stratum(tables[Scored.BASE], stratum),
                fall_tolerance_nats,
            )
            for stratum in Stratum
            if _select_stratum(table, stratum).num_rows
        }
        for model, table in tables.items()
        if model is not Scored.DEPLOYED
    }


def compute_evidence(
    tables: Mapping[Scored, pa.Table],
    incumbent: Scored,
    fall_tolerance_nats: float,
    bootstrap_draws: int,
    canary: Canary,
    *,
    anchor: str | None = None,
    agreement: tuple[float | None, int] = (None, 0),
    judge: JudgeAgreement | None = None,
    judged: Measured | None = None,
    folds: int | None = None,
) -> Evidence:
    """Compute the evidence for the promotion gate.

    Args:
        tables: scored rows by model; without Scored.ANCHOR the champion is the anchor.
        incumbent: the model to compare with.
        fall_tolerance_nats: a text is as likely as before within this, or within .01 nats a token.
        bootstrap_draws: behind the interval that is shown.
        canary: see `find_canary`.
        anchor: gold version of the anchor.
        agreement: see `measure_agreement`.
        judge: of the judge with held-out people; None: none was asked.
        judged: its preferences; None: it decides nothing.
        folds: of a cross-fit; Scored.DEPLOYED has its tables. None: it is none.
    """
    primary = {model: _select_stratum(table, Stratum.PRIMARY) for model, table in tables.items()}
    challenger, before = primary[Scored.CHALLENGER], primary[incumbent]
    strata = {
        stratum: (_select_stratum(tables[Scored.CHALLENGER], stratum), _select_stratum(tables[incumbent], stratum))
        for stratum in Stratum
    }
    fall = _average(_read_column(before, "ned") - _read_column(challenger, "ned"), challenger)
    lost = {
        stratum: (_average(_mark_unlikely(*pair), pair[0]), _average(_mark_farther(*pair), pair[0]))
        for stratum, pair in strata.items()
    }
    likelihood, distance = (
        Measured(
            gain=gain,
            lost=lost[Stratum.PRIMARY][place],
            older_lost=lost[Stratum.OLDER][place],
            regression_lost=lost[Stratum.REGRESSION][place],
        )
        for place, gain in enumerate((_count_wins(challenger, before, fall_tolerance_nats), fall))
    )
    anchored = None
    if anchor is not None:
        anchored = _count_wins(challenger, primary.get(Scored.ANCHOR, before), fall_tolerance_nats)
    shown = (
        Interval(None, None, None, 0, 0)
        if fall is None
        else fall.to_interval(least=-1, greatest=1, draws=bootstrap_draws)
    )
    return Evidence(
        incumbent=incumbent.value,
        ned_gain=shown,
        likelihood=likelihood,
        distance=distance,
        sampled=_compare_samples(challenger, before),
        judged=judged or Measured(),
        judge=judge,
        anchor=anchor,
        anchor_likelihood_gain=anchored,
        same_text_share=agreement[0],
        same_text_pairs=agreement[1],
        missing_end=_compute_missing_end(tables[Scored.CHALLENGER]),
        incumbent_missing_end=_compute_missing_end(tables[incumbent]),
        challenger_ned=_compute_mean(_read_column(challenger, "ned")),
        sft_ned=_compute_mean(_read_column(primary[Scored.SFT], "ned")),
        canary_ratio=canary.ratio,
        canary_phrases=canary.phrases,
        cross_fit=None if folds is None else _compare_deployed(tables, folds),
    )


def _compare_deployed(tables: Mapping[Scored, pa.Table], folds: int) -> CrossFitEvidence:
    """Compare the deployed adapter, which has learnt the rows, with the adapters that have not; on every row."""
    deployed = tables[Scored.DEPLOYED]
    lost = _average(_mark_unlikely(deployed, tables[Scored.CHALLENGER]), deployed)
    assert lost is not None, "nothing is evaluated without rows"
    return CrossFitEvidence(
        folds=folds, deployed_lost=lost, deployed_missing_end=1 - _compute_some_mean(_read_column(deployed, "ended"))
    )


def compute_wrong_answers(
    tables: Mapping[Scored, pa.Table], incumbent: Scored
) -> tuple[dict[Scored, Interval], Interval | None]:
    """Compute each sampled model's rate of wrong answers on primary rows, and its fall from incumbent to challenger.

    Both are means over subjects with bounds for any distribution, two-sided 95 %. The fall is paired: of each row the
    incumbent's share less the challenger's.
    """
    rates: dict[Scored, Interval] = {}
    for model, table in tables.items():
        sampled = _select_rows_with_samples(table)
        if (means := _average(_read_column(sampled, "wrong_answers"), sampled)) is not None:
            rates[model] = means.to_interval(least=0, greatest=1)
    after, before = (_select_rows_with_samples(tables[model]) for model in (Scored.CHALLENGER, incumbent))
    fall = _average(_read_column(before, "wrong_answers") - _read_column(after, "wrong_answers"), after)
    return rates, None if fall is None else fall.to_interval(least=-1, greatest=1)


def _select_rows_with_samples(table: pa.Table) -> pa.Table:
    primary = _select_stratum(table, Stratum.PRIMARY)
    return primary.filter(pc.is_valid(primary["wrong_answers"]))


def measure_agreement(rows: Iterable[ExportedRow]) -> tuple[float | None, int]:
    """Measure how often two people who were asked the same ended with the same text: (share of pairs, pairs).

    Each person counts once per prompt, with the first of their texts. The share is None without pairs.
    """
    answers: dict[str, dict[str, str]] = {}
    for row in rows:
        answers.setdefault(row.prompt_hash, {}).setdefault(row.subject, row.chosen)
    same = pairs = 0
    for of_prompt in answers.values():
        pairs += len(of_prompt) * (len(of_prompt) - 1) // 2
        same += sum(count * (count - 1) // 2 for count in Counter(of_prompt.values()).values())
    return (same / pairs if pairs else None), pairs


def _average(values: Floats, table: pa.Table) -> SubjectMeans | None:
    return average_by_subject(values, values_of(table["subject"]))


def _count_wins(table: pa.Table, opponent: pa.Table, tolerance_nats: float) -> SubjectMeans | None:
    """Count 1 for a text that became more likely, −1 for one less likely; by subject.

    The edit would be needed as before where the output that was corrected gained as much: such a text is no win. A
    longer training alone makes both more likely.
    """
    change = _read_column(table, "log_p_chosen") - _read_column(opponent, "log_p_chosen")
    of_rejected = _read_column(table, "log_p_rejected") - _read_column(opponent, "log_p_rejected")
    equal = np.maximum(tolerance_nats, _EQUAL_NATS_A_TOKEN * _read_column(table, "tokens"))
    has_no_pair = np.isnan(_read_column(opponent, "log_p_rejected"))
    is_won = (change > equal) & (has_no_pair | (change - of_rejected > equal))
    # A likelihood that is not a number has fallen.
    return _average(np.where(is_won, 1.0, np.where(change >= -equal, 0.0, -1.0)), table)


def _compare_samples(table: pa.Table, incumbent: pa.Table) -> Measured:
    """Compare answers that both models sampled, by what users corrected in primary rows.

    A row is won by fewer wrong answers; of equally many by the most likely answer that is the user's text.
    """
    is_sampled = pc.and_(pc.is_valid(table["wrong_answers"]), pc.is_valid(incumbent["wrong_answers"]))
    after, before = table.filter(is_sampled), incumbent.filter(is_sampled)
    rise = _read_column(after, "wrong_answers") - _read_column(before, "wrong_answers")
    more_exact = _read_column(after, "exact") - _read_column(before, "exact")
    return Measured(gain=_average(np.sign(np.where(rise == 0, more_exact, -rise)), after), lost=_average(rise, after))


def _mark_unlikely(table: pa.Table, incumbent: pa.Table) -> Floats:
    """Mark the texts that the model lost.

    They are less likely by more than 1 nat, and by more than .1 nats a token.
    """
    change = _read_column(table, "log_p_chosen") - _read_column(incumbent, "log_p_chosen")
    limit = np.maximum(_LOST_NATS, _LOST_NATS_A_TOKEN * _read_column(table, "tokens"))
    return (~(change >= -limit)).astype(np.float64)


def _mark_farther(table: pa.Table, incumbent: pa.Table) -> Floats:
    farther = _read_column(table, "ned") - _read_column(incumbent, "ned")
    return (~(farther <= _LOST_NED)).astype(np.float64)


def _compute_scores(table: pa.Table, incumbent: pa.Table, base: pa.Table, fall_tolerance_nats: float) -> Scores:
    return Scores(
        rows=table.num_rows,
        subjects=pc.count_distinct(table["subject"]).as_py(),
        ned=_compute_some_mean(_read_column(table, "ned")),
        zero_edit=_compute_some_mean(_read_column(table, "exact")),
        missing_end=1 - _compute_some_mean(_read_column(table, "ended")),
        log_p_chosen=_compute_some_mean(_read_column(table, "log_p_chosen")),
        delta_log_p_chosen=_compute_some_mean(
            _read_column(table, "log_p_chosen") - _read_column(incumbent, "log_p_chosen")
        ),
        chosen_fallen=_compute_some_mean(_mark_fallen(table, incumbent, fall_tolerance_nats)),
        length_ratio=_compute_some_mean(_read_column(table, "length_ratio")),
        repetition=_compute_some_mean(_read_column(table, "repetition")),
        reward_accuracy=_compute_mean(_mark_preferred(table, base)),
        wrong_answer_rate=_compute_wrong_answer_rate(table),
    )


def _compute_wrong_answer_rate(table: pa.Table) -> float | None:
    sampled = table.filter(pc.is_valid(table["wrong_answers"]))
    means = _average(_read_column(sampled, "wrong_answers"), sampled)
    return None if means is None else means.mean


def _mark_preferred(table: pa.Table, base: pa.Table) -> Floats:
    """Mark pairs by 1 where the implicit reward against the base prefers the chosen text.

    Strictly, as TRL counts.
    """
    reward = {name: _read_column(table, name) - _read_column(base, name) for name in ("log_p_chosen", "log_p_rejected")}
    is_pair = ~np.isnan(reward["log_p_rejected"])
    return (reward["log_p_chosen"] > reward["log_p_rejected"])[is_pair].astype(np.float64)


def _mark_fallen(table: pa.Table, incumbent: pa.Table, tolerance_nats: float) -> Floats:
    change = _read_column(table, "log_p_chosen") - _read_column(incumbent, "log_p_chosen")
    # Not "change < −tolerance": a likelihood that is not a number has fallen.
    return (~(change >= -tolerance_nats)).astype(np.float64)


def _compute_missing_end(table: pa.Table) -> float | None:
    decisive = pc.is_in(table["stratum"], pa.array([Stratum.PRIMARY.value, Stratum.REGRESSION.value]))
    ended = _compute_mean(_read_column(table.filter(decisive), "ended"))
    return None if ended is None else 1 - ended


def _select_stratum(table: pa.Table, stratum: Stratum) -> pa.Table:
    return table.filter(pc.equal(table["stratum"], pa.scalar(stratum.value)))


def _read_column(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)


def _compute_mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _compute_some_mean(values: Floats) -> float:
    return float(values.mean())
