"""Inspects everything that belongs to one application, and what all applications of a home share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from flywheel_assets.errors import DamagedFileError, TransientError
from flywheel_assets.lake.fsck.accounts import check_accounts
from flywheel_assets.lake.fsck.databases import CATALOG, MLFLOW, check_databases
from flywheel_assets.lake.fsck.findings import Report, Sample
from flywheel_assets.lake.fsck.home import check_home, check_leftovers, check_small_files
from flywheel_assets.lake.fsck.landing import check_landing
from flywheel_assets.lake.fsck.models import StoredModel, check_models
from flywheel_assets.lake.fsck.tables import check_tables
from flywheel_assets.lake.fsck.versions import HashWeights, check_receipts, check_versions
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.home import find_local_path
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ERASURES, GROUND_TRUTH, LEDGER, ApplicationTables
from flywheel_assets.lake.versions.folders import Versions, read_promotion


@dataclass(frozen=True)
class Place:
    """Everything of one application that is inspected."""

    lake: Lake
    tables: ApplicationTables
    versions: Versions
    landing: LandingPlace
    is_retired: bool
    """Whether the application's rules remove segments of days that the tables hold."""
    list_models: Callable[[], Iterable[StoredModel]]
    """Asks MLflow; only called where its store can be read. A `TransientError` says that it does not answer."""
    hash_weights: HashWeights
    hash_folder: Callable[[Path], str]


def inspect_shared(
    folder: Path, catalog_uri: str, mlflow_uri: str, places: Iterable[Place], report: Report
) -> set[str]:
    """Inspect what all applications share: databases and small files; return the names of unreadable databases."""
    needed = set()
    for place in places:
        warehouse = find_local_path(place.lake.warehouse)
        if warehouse is not None and any((warehouse / place.lake.application).glob("*/metadata/*.json")):
            needed.add(CATALOG)
        if any(_was_promoted(each.promotion) for each in place.versions):
            needed.add(MLFLOW)
    check_small_files(folder, report)
    return check_databases(folder, {CATALOG: catalog_uri, MLFLOW: mlflow_uri}, needed, report)


def _was_promoted(path: Path) -> bool:
    try:
        return path.exists() and read_promotion(path).promoted
    except DamagedFileError:
        return True


def inspect_application(place: Place, sample: Sample, now: datetime, unreadable: set[str]) -> Report:
    """Inspect one application.

    Nothing is changed but `<home>/fsck`. Findings of things that a writer was just changing are left out.

    Args:
        place: what is inspected.
        sample: draws the files whose contents are read; existence, sizes and structure are looked at in every file.
        now: the time; work that nothing has written to for a day is taken for a killed process's.
        unreadable: databases that cannot be read, as `inspect_shared` found them.
    """
    report = Report()
    _inspect(place, sample, now, unreadable, report)
    report.findings = [replace(each, application=place.lake.application) for each in report.findings]
    return report


def _inspect(place: Place, sample: Sample, now: datetime, unreadable: set[str], report: Report) -> None:
    lake = place.lake
    check_leftovers(lake.scratch, place.versions, now, report)
    if MLFLOW in unreadable:
        report.not_looked_at.append(f"models of {lake.application} in MLflow: its store cannot be read")
    else:
        try:
            check_models(lake.application, place.list_models(), place.hash_folder, sample, report)
        except TransientError as error:
            report.not_looked_at.append(f"models of {lake.application} in MLflow: {error}")
    if CATALOG in unreadable:
        report.not_looked_at.append(f"tables, accounts, landing and versions of {lake.application}: no catalog")
    elif lake.is_begun:
        _inspect_lake(place, sample, report)


def _inspect_lake(place: Place, sample: Sample, report: Report) -> None:
    lake, gold = place.lake, place.tables.gold
    landed = place.landing.find_folder(lake.application)
    check_home(lake.home, landed.parent if landed else None, report)
    broken = check_tables(lake.home, sample, report)
    check_accounts(lake, place.tables, broken, report)
    has_ledger = LEDGER.name not in broken and lake.has_table(LEDGER)
    accounts = {EventKind.PREDICTION: place.tables.predictions.name, EventKind.FEEDBACK: GROUND_TRUTH.name}
    check_landing(lake, place.landing, accounts if has_ledger else {}, sample, report, is_retired=place.is_retired)
    is_gold_broken = gold.name in broken or not lake.has_table(gold)
    # A damaged model is named once: where MLflow's copy is whole, that is the shorter way back.
    models = Report()
    check_versions(lake, place.versions, gold, sample, place.hash_weights, models, is_gold_broken=is_gold_broken)
    named = [each.file for each in report.findings if each.file]
    models.findings = [
        each for each in models.findings if not any(f"{each.file}/".startswith(f"{name}/") for name in named)
    ]
    report.merge(models)
    if ERASURES.name not in broken:
        check_receipts(lake, place.versions, report)
