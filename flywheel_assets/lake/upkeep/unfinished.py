"""What killed processes leave behind: files under construction, spilled sorts, local copies, folders never renamed.

They may hold anybody's text and belong to nobody; all that tells them from work in progress is that nobody has written
to them for a while.
"""

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from flywheel_assets.lake.versions.folders import Versions

_SCRATCH = ("building", "spill", "landing", "publishing")
"""Below the scratch folder; others hold no rows, or belong to a version's training."""


def unfinished_work(scratch: Path, versions: Versions) -> list[Path]:
    """Everything of the kind: entries of scratch folders, and hidden folders beside a version's results."""
    found: list[Path] = []
    for name in _SCRATCH:
        found.extend(_entries(scratch / name))
    for folder in versions:
        found.extend(path for path in _entries(folder.path) if path.name.startswith(".") and path.is_dir())
    return sorted(found)


def remove_unfinished(paths: Iterable[Path], before: datetime) -> int:
    """Remove what nobody has written to since `before`; returns how many files that were."""
    removed = 0
    for path in paths:
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if _last_written([path, *files]) >= before.timestamp():
            continue
        removed += len(files)
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return removed


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _last_written(paths: Iterable[Path]) -> float:
    times = [0.0]
    for path in paths:
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)
