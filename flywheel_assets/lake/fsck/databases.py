"""Checks every SQLite database of a home: Iceberg's catalog, MLflow's store, Dagster's storage, sources' memories.

SQLite keeps no sum of its pages: `PRAGMA quick_check` finds a broken structure, not a changed letter.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Set
from contextlib import closing
from pathlib import Path

from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Report

_TIMEOUT_S = 30.0
_SEARCHED = ("dagster", "sources")
"""Folders of a home in which databases come and go."""
CATALOG, MLFLOW, _DAGSTER, _SOURCE = "the catalog", "MLflow's store", "Dagster's storage", "a source's memory"
_RESTORE = {
    CATALOG: "put the newest copy back; else `mv {path} {path}.damaged && flywheel adopt --yes` registers the tables "
    "from the warehouse.",
    MLFLOW: "put the newest copy back; the models' files are in the versions' folders, and promotion.json says which "
    "one serves.",
    _DAGSTER: "stop Dagster and put a copy back; else `mv {path} {path}.damaged`: runs are forgotten, no data.",
    _SOURCE: "`mv {path} {path}.damaged`: the source is read again, and known events are left out by their ids.",
}


def check_databases(home: Path, named: Mapping[str, str], needed: Set[str], report: Report) -> set[str]:
    """Check the databases of a home; return the names of those that cannot be read.

    Args:
        home: the folder.
        named: by name the URI of the catalog and of MLflow's store.
        needed: names of those that must exist; another one may not be made yet.
        report: takes the findings.
    """
    broken = set()
    for what, uri in named.items():
        if not uri.startswith("sqlite:///"):
            report.not_looked_at.append(f"{what}: it is no SQLite file; its server's own tools check it")
            continue
        path = Path(uri.removeprefix("sqlite:///").split("?")[0])
        if not path.exists():
            if what in needed:
                broken.add(what)
                report.add([_describe(what, path, "is missing")])
            continue
        if (problem := _find_problem(path)) is not None:
            broken.add(what)
            report.add([_describe(what, path, problem)])
        report.count("databases")
    for path in _find_others(home):
        what = _DAGSTER if path.relative_to(home).parts[0] == "dagster" else _SOURCE
        if (problem := _find_problem(path)) is not None:
            report.add([_describe(what, path, problem)])
        report.count("databases")
    return broken


def _find_others(home: Path) -> Iterator[Path]:
    for name in _SEARCHED:
        yield from sorted((home / name).rglob("*.db"))


def _find_problem(path: Path) -> str | None:
    try:
        if not path.stat().st_size:
            return "is empty"
        # Not `immutable`: a writer may be at work, and its journal belongs to the database.
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except FileNotFoundError:
        return None  # Dagster removes the log of a run that is deleted
    except sqlite3.DatabaseError as error:
        return None if "locked" in str(error) else f"cannot be read ({error})"
    return None if found == ["ok"] else "is malformed (PRAGMA quick_check)"


def _describe(what: str, path: Path, problem: str) -> Finding:
    cause = LOST if problem == "is missing" else ALTERED.split(";")[0] + "."
    return Finding(what, str(path), problem, cause, _RESTORE[what].format(path=path))
