"""Reads versions for the page: what they were cut from, their decision and cost, and the champion.

The champion follows from the decisions on disk and the table of rollbacks. Who moves MLflow's alias by other means is
not seen here; to load MLflow would cost the capture process 190 MB and two seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from flywheel_assets.lake.tables.decisions import list_decisions
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ROLLBACKS, TableSpec
from flywheel_assets.lake.versions.exports import ExportSet
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, parse_version_number, read_promotion
from flywheel_assets.lake.versions.summaries import VersionSummary, summarize_versions
from flywheel_assets.models.rollout.traffic import RolloutPlan
from flywheel_assets.promotion.text_limits import Route

_CPU = "cpu"


@dataclass(frozen=True)
class Spent:
    """Seconds that one version's runs took, wall time, as their reports say."""

    cpu_s: float = 0.0
    gpu_s: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu_s + other.cpu_s, self.gpu_s + other.gpu_s)


@dataclass(frozen=True)
class VersionLine:
    """One gold version as the page lists it."""

    version: str
    began_at: datetime | None
    days: int
    last_day: date | None
    rows: int
    """Rows to train on."""
    spent: Spent
    state: str
    """`promoted`, `not promoted`, or how far its run has come."""
    sentence: str
    is_finished: bool
    is_promoted: bool
    is_gain: bool
    """A promotion by a proven gain, and not by newer data alone."""
    is_champion: bool


@dataclass(frozen=True)
class Serving:
    """The model that serves now, by the decisions."""

    champion: str | None
    """None: the base model."""
    share: float
    """Part of the users."""


@dataclass(frozen=True)
class Models:
    """Everything that the page takes from versions."""

    versions: tuple[VersionLine, ...]
    """Newest first."""
    serving: Serving

    @property
    def unfinished(self) -> list[VersionLine]:
        """Return the versions that were begun and not decided."""
        return [each for each in self.versions if not each.is_finished]

    @property
    def gains(self) -> int:
        """Return the number of versions that were promoted by a proven gain."""
        return sum(each.is_gain for each in self.versions)

    @property
    def spent(self) -> Spent:
        """Return the seconds of all versions together."""
        return sum((each.spent for each in self.versions), Spent())


class _Report(msgspec.Struct):
    seconds: float = 0.0
    device: str = _CPU
    judged_fits: dict[str, "_Fit"] = {}
    stand_ins: list["_Fit"] = []


class _Fit(msgspec.Struct):
    seconds: float = 0.0


def read_models(lake: Lake, versions: Versions, gold: TableSpec, plan: RolloutPlan) -> Models:
    """Read all versions, and find the champion."""
    summaries = summarize_versions(lake, versions, gold) if lake.has_table(gold) else []
    decisions = list_decisions(lake, ROLLBACKS) if lake.has_table(ROLLBACKS) else []
    serving = find_serving(versions, decisions, plan)
    lines = [_describe(each, versions.folder(each.version), serving) for each in reversed(summaries)]
    return Models(tuple(lines), serving)


def find_serving(versions: Versions, decisions: Sequence[Mapping[str, object]], plan: RolloutPlan) -> Serving:
    """Follow the promotions and the rollbacks of models; `decisions` are rows of ROLLBACKS, oldest first."""
    finished = [folder for folder in versions if folder.is_finished and read_promotion(folder.promotion).promoted]
    champion = finished[-1].version if finished else None
    share = plan.compute_share(plan.steps[0]) if champion else 1.0
    for decision in decisions:
        if decision["champion_before"] != champion:
            continue
        if decision["what"] == "models":
            to = str(decision["to_version"])
            champion, share = (to if parse_version_number(to) else None), 1.0
        elif decision["what"] == "share":
            share = float(str(decision["share_after"]))
    return Serving(champion, share)


def _describe(summary: VersionSummary, folder: VersionFolder, serving: Serving) -> VersionLine:
    manifest = summary.manifest
    days = sorted(manifest.days) if manifest else []
    promotion = read_promotion(folder.promotion) if folder.is_finished else None
    is_promoted = promotion is not None and promotion.promoted
    rows = summary.rows
    return VersionLine(
        version=summary.version,
        began_at=datetime.fromtimestamp(folder.pin.stat().st_mtime, UTC) if folder.pin.exists() else None,
        days=len(days),
        last_day=date.fromisoformat(days[-1]) if days else None,
        rows=rows.get(ExportSet.REFIT.value) or rows.get(ExportSet.TRAIN.value, 0),
        spent=_read_spent(folder.training_report) + _read_spent(folder.evaluation / "evaluation.json"),
        state=_describe_state(folder, is_promoted=is_promoted),
        sentence=promotion.sentence if promotion else "",
        is_finished=folder.is_finished,
        is_promoted=is_promoted,
        is_gain=promotion is not None and is_promoted and promotion.route != Route.NEWER_DATA,
        is_champion=summary.version == serving.champion,
    )


def _describe_state(folder: VersionFolder, *, is_promoted: bool) -> str:
    if folder.is_finished:
        return "promoted" if is_promoted else "not promoted"
    if folder.evaluation.exists():
        return "evaluated, not decided yet"
    if folder.is_trained:
        return "trained, not evaluated yet"
    return "exported, not trained yet" if folder.export.exists() else "begun, not exported yet"


def _read_spent(path: Path) -> Spent:
    """Read the seconds of a report of any kind; a missing one has none."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    except (FileNotFoundError, msgspec.DecodeError):
        return Spent()
    seconds = report.seconds + sum(each.seconds for each in (*report.judged_fits.values(), *report.stand_ins))
    return Spent(cpu_s=seconds) if report.device == _CPU else Spent(gpu_s=seconds)
