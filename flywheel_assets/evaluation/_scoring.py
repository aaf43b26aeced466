"""Turns scored rows, one per model and held-out row, into scores and evidence. Needs no model.

The tables of scored rows, one for each model (grain: one row of the export), hold no text:

    pair_id, subject, similarity   of the exported row; similarity is null for accepted outputs
    stratum                        see `requests`
    ned, exact, ended              of the greedy generation against the user's text
    log_p_chosen, log_p_rejected   nats, with the end token; rejected is null for accepted outputs
    length_ratio, repetition       of the generation
"""

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
    bootstrap_clustered_mean,
    length_ratios,
    measure_repetition,
    normalized_edit_distances,
)
from flywheel_assets.promotion.text_limits import Evidence

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
    ]
)


def stratify(
    holdout: Iterable[ExportedRow], known_to_champion: Set[str], trained_prompts: Set[str]
) -> list[tuple[Stratum, ExportedRow]]:
    """Assign each held-out row to its stratum.

    Args:
        holdout: held-out pairs of the challenger's version.
        known_to_champion: pair ids that the champion's version held out.
        trained_prompts: prompt hashes that either model was trained on.
    """

    def stratum(row: ExportedRow) -> Stratum:
        if row.prompt_hash in trained_prompts or row.nearest_training is not None:
            return Stratum.SEEN_PROMPT
        return Stratum.OLDER if row.pair_id in known_to_champion else Stratum.PRIMARY

    return [(stratum(row), row) for row in holdout]


def build_scored_rows(
    rows: Sequence[tuple[Stratum, ExportedRow]],
    texts: Sequence[str],
    ended: Sequence[bool],
    log_p_chosen: Floats,
    log_p_rejected: Floats,
) -> pa.Table:
    """Build the table of one model's scored rows; `log_p_rejected` is NaN where there is no rejected text."""
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
    }


def compute_evidence(
    tables: Mapping[Scored, pa.Table],
    incumbent: Scored,
    fall_tolerance_nats: float,
    bootstrap_draws: int,
    canary: Canary,
) -> Evidence:
    """Compute the evidence for the promotion gate."""
    primary = {model: _select_stratum(table, Stratum.PRIMARY) for model, table in tables.items()}
    challenger, before = primary[Scored.CHALLENGER], primary[incumbent]
    gain = _read_column(before, "ned") - _read_column(challenger, "ned")
    return Evidence(
        incumbent=incumbent.value,
        ned_gain=bootstrap_clustered_mean(gain, values_of(challenger["subject"]), draws=bootstrap_draws),
        chosen_fallen=_compute_mean(_mark_fallen(challenger, before, fall_tolerance_nats)),
        missing_end=_compute_missing_end(tables[Scored.CHALLENGER]),
        incumbent_missing_end=_compute_missing_end(tables[incumbent]),
        challenger_ned=_compute_mean(_read_column(challenger, "ned")),
        sft_ned=_compute_mean(_read_column(primary[Scored.SFT], "ned")),
        older_ned=_compute_mean(_read_column(_select_stratum(tables[Scored.CHALLENGER], Stratum.OLDER), "ned")),
        incumbent_older_ned=_compute_mean(_read_column(_select_stratum(tables[incumbent], Stratum.OLDER), "ned")),
        regression_ned=_compute_mean(
            _read_column(_select_stratum(tables[Scored.CHALLENGER], Stratum.REGRESSION), "ned")
        ),
        incumbent_regression_ned=_compute_mean(
            _read_column(_select_stratum(tables[incumbent], Stratum.REGRESSION), "ned")
        ),
        canary_ratio=canary.ratio,
        canary_phrases=canary.phrases,
    )


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
    )


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
