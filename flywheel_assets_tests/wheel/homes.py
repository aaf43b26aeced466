"""Flywheels of any age for the page of the wheel: days, reports, versions and decisions as runs leave them."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.application import FlywheelApplication, PreferenceApplication
from flywheel_assets.curation.texts.breaker import DayFigures
from flywheel_assets.curation.trips import Trip
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.breaker import JudgedDay, record_judged_days
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS, FEEDBACK_SUMMARY, GROUND_TRUTH, STORAGE, TableSpec
from flywheel_assets.lake.versions.folders import Promotion, find_last_promoted, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import make_gold, table
from flywheel_assets_tests.lake.workbench import stamp

FIRST = date(2026, 1, 1)
ASSISTANT = PreferenceApplication(
    name="assistant", description="Writes code for our engineers.", start_date=FIRST, base_model="base"
)
GIB = 2**30


def noon_after(days: int) -> datetime:
    """Noon of the day after so many days: all of them could be closed."""
    return datetime.combine(FIRST + timedelta(days=days), time(12), UTC)


def grow_days(stores: Stores, first: int, last: int, rows: int = 3) -> None:
    """Closed days of the assistant, numbered from 0: gold, ledger, summaries. Rows swell and fall with the week."""
    lake = stores.lake("assistant")
    days = {number: FIRST + timedelta(days=number) for number in range(first, last)}
    counts = {
        number: max(1, round(rows * (1.4 + math.sin(number / 9)) * (0.3 if day.weekday() > 4 else 1)))
        for number, day in days.items()
    }
    tables = ASSISTANT.tables
    gold = {day: [_pair(day, each) for each in range(counts[number])] for number, day in days.items()}
    _write_days(lake, tables.gold, gold)
    _write_days(lake, FEEDBACK_SUMMARY, {day: _summaries(day, number, rows) for number, day in days.items()})
    ledger.record_entries(
        lake, [entry for number, day in days.items() for entry in _entries(day, counts[number], rows)], stamp()
    )


def _pair(day: date, number: int) -> dict[str, Any]:
    name = f"{day} {number}"
    texts = {"prompt": f"prompt {name}", "chosen": f"chosen {name}", "rejected": f"rejected {name}"}
    ids = {"prediction_id": name, "feedback_event_id": name, "subject": f"user {name}"}
    return make_gold(completed_date=day, **ids, **texts)


def _entries(day: date, kept: int, rows: int) -> list[LedgerEntry]:
    tables = ASSISTANT.tables
    refused = {"duplicate": rows, "trivial_edit": 2 * rows, "toxic_language": day.day % 3}
    held = {"unsupported_fact": rows // 3}
    joined = kept + sum(refused.values()) + sum(held.values())

    def entry(asset: str, rows_in: int, rows_kept: int, reasons: dict[str, int], rows_held: int = 0) -> LedgerEntry:
        reasons = {reason: number for reason, number in reasons.items() if number}
        return LedgerEntry(asset, day, True, f"{day} {asset}", {}, rows_in, rows_kept, reasons, rows_held)

    return [
        entry(tables.predictions.name, 40 * kept, 40 * kept, {}),
        entry(GROUND_TRUTH.name, joined + 2, joined + 1, {"duplicate_event": 1}),
        entry(tables.joined.name, joined + 1, joined, {"no_prediction_in_window": 1}),
        entry(tables.gold.name, joined, kept, {**refused, **held}, sum(held.values())),
    ]


def _summaries(day: date, number: int, rows: int) -> list[dict[str, Any]]:
    newest = f"dpo_gold_v{number // 28}" if number >= 28 else "base"
    older = f"dpo_gold_v{number // 28 - 1}" if number >= 56 else "base"
    found = []
    for version, share, answers in ((newest, 0.9, 40 * rows), (older, 1.0, 4 * rows)):
        edited = round(answers * share * (0.2 + 0.15 / (1 + number / 60) + 0.02 * math.sin(number / 5)))
        zeros = dict.fromkeys((column.name for column in FEEDBACK_SUMMARY.schema if column.type == pa.int64()), 0)
        row = {**zeros, "completed_date": day, "model_version": version, "mean_rating": None}
        said = {"events": answers, "interactions": answers, "edits": edited, "thumbs_down": answers // 40}
        found.append({**row, **said})
        if newest == older:
            break
    return found


def _write_days(lake: Lake, spec: TableSpec, rows: dict[date, list[dict[str, Any]]]) -> None:
    files = {day: lake.make_file_path(spec, day) for day in rows}
    for day, found in rows.items():
        files[day].parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(spec.schema, found), files[day])
    lake.replace_days(spec, list(rows), files, {})


def decide(stores: Stores, version: str, *, promoted: bool, seconds: float = 1800.0, device: str = "cuda") -> None:
    """Cut, train, evaluate and decide a version over all days so far."""
    lake, versions = stores.lake("assistant"), stores.versions("assistant")
    champion = find_last_promoted(versions)
    cut_pair_version(lake, versions, version, replace(ASSISTANT.resolution, holdout_share=0.2), "1")
    folder = versions.folder(version)
    folder.training.mkdir()
    folder.training_report.write_text(json.dumps({"seconds": seconds, "device": device}))
    folder.evaluation.mkdir()
    (folder.evaluation / "evaluation.json").write_text(json.dumps({"seconds": seconds / 4, "device": device}))
    gain = "+0.08, at least +0.02 at level 0.025, must exceed 0"
    sentence = f"Promoted: wins less losses {gain}." if promoted else f"Not promoted: wins less losses {gain[1:]}."
    record_promotion(
        folder.promotion,
        Promotion(
            version=version,
            promoted=promoted,
            sentence=sentence,
            champion_before=champion.version if champion else None,
            checks=[],
            route="proven_gain" if promoted else None,
            look=1,
            alpha=0.025,
        ),
    )


def trip(stores: Stores, days: Sequence[date]) -> None:
    """Days that the batch breaker keeps out of gold."""
    figures = DayFigures(900, 3, 0.4, 0.9, 20.0, 300, (Trip("top_user_ratio", 0.9, 0.5, ()),))
    judged = [JudgedDay(day, f"{day}", figures, False, noon_after(0)) for day in days]
    record_judged_days(stores.lake("assistant"), judged, [], stamp())


def measure_storage(stores: Stores, at: datetime, factor: float = 1.0) -> None:
    """What a maintenance notes."""
    sizes = {"landing": 3.2, "raw_predictions": 5.9, "joined_feedback": 0.8, "curated_dpo_pairs": 0.4, "versions": 7.5}
    rows = [
        {"measured_at": at, "stage": stage, "files": 10, "bytes": round(size * factor * GIB)}
        for stage, size in sizes.items()
    ]
    stores.lake("assistant").append(STORAGE, pa.Table.from_pylist(rows, schema=STORAGE.schema), f"{at}", {})


def report_drift(stores: Stores, application: FlywheelApplication, days: Sequence[date], breach: str | None) -> None:
    """Days of a classifier's drift reports: the score and one feature."""
    rows = {
        day: [
            {
                "day": day,
                "field": field,
                "reference_version": "fraud_gold_v1",
                "rows": 5_000,
                "missing_share": 0.0,
                "psi": 0.01 + 0.002 * number,
                "wasserstein": 0.1,
                "jensen_shannon": 0.1,
                "breach": breach if field == "amount" else None,
            }
            for field in ("score", "amount")
        ]
        for number, day in enumerate(days)
    }
    _write_days(stores.lake(application.name), DRIFT_REPORTS, rows)


def grow_year(stores: Stores, days: int = 365, rows: int = 30, every: int = 14) -> None:
    """A flywheel of so many days: a version every second week, a third of them promoted, and a tripped day."""
    for number, first in enumerate(range(0, days, every)):
        grow_days(stores, first, min(first + every, days), rows)
        if first + every < days:
            decide(stores, f"dpo_gold_v{number + 1}", promoted=number % 3 == 0)
        measure_storage(stores, noon_after(min(first + every, days)), (number + 1) * every / 365)
    trip(stores, [FIRST + timedelta(days=days - 3)])
