"""Checks the structure of every file that a table needs, and the content of those that are drawn.

No file of a table changes once it is there. So the first look at a content decodes it and keeps its sha256 in
`<home>/fsck/<application>.json`; every later look compares: a flipped byte, which most formats would decode without a
word, is found, and hashing is several times as fast as decoding. Before the first look only the formats' own checks
protect a file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec

from flywheel_assets.errors import DamagedFileError
from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Mend, MendKind, Report, Sample
from flywheel_assets.lake.storage.files import decode_file, replace_file
from flywheel_assets.lake.tables.home import Home, find_local_path
from flywheel_assets.lake.tables.probing import (
    HEAD,
    Damage,
    FileKind,
    TableFile,
    find_undecodable,
    hash_table_file,
    is_made_from_landing,
    name_way_back,
    walk_table,
)

_MOST_LOOKS = 3


class SeenFile(msgspec.Struct, frozen=True):
    """A file as it was when its content was read whole for the first time."""

    sha256: str
    at: str
    """ISO date."""


def check_tables(home: Home, sample: Sample, report: Report) -> set[str]:
    """Check every table of the catalog; return the names of those whose heads cannot be read."""
    kept = locate_seen_files(home)
    seen, complaint = _read_seen(kept)
    report.add(complaint)
    there: dict[str, SeenFile] = {}
    broken = set()
    for name in sorted(home.read_catalog()[0]):
        looked = _check_table(home, name, sample, seen)
        there |= looked.there
        report.merge(looked.report)
        report.add(_describe(home, name, each) for each in looked.damages)
        if any(HEAD in each.file.needed_by for each in looked.damages):
            broken.add(name)
    if there != seen or complaint:
        replace_file(kept, msgspec.json.encode(there, order="sorted"))
    return broken


def locate_seen_files(home: Home) -> Path:
    """Return the file that keeps the sha256 of every file of the tables."""
    return home.folder / "fsck" / f"{home.application}.json"


def _read_seen(path: Path) -> tuple[dict[str, SeenFile], list[Finding]]:
    try:
        return decode_file(path, dict[str, SeenFile], ""), []
    except FileNotFoundError:
        return {}, []
    except DamagedFileError:
        made = "this run has written it again; what changed between the last inspection and this one cannot be seen"
        return {}, [Finding("fsck's memory", str(path), "cannot be read", ALTERED, made)]


@dataclass
class _Looked:
    damages: list[Damage]
    there: dict[str, SeenFile] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


def _check_table(home: Home, name: str, sample: Sample, seen: Mapping[str, SeenFile]) -> _Looked:
    """Check one table; where a writer has committed meanwhile, what is missing may belong to a state that is gone."""
    looked = _Looked([])
    location = None
    for _ in range(_MOST_LOOKS):
        now = home.read_catalog()[0].get(name)
        if now is None or now == location:
            break
        location, looked = now, _look_at(home, now, sample, seen)
        if not looked.damages:
            break
    return looked


def _look_at(home: Home, location: str, sample: Sample, seen: Mapping[str, SeenFile]) -> _Looked:
    walked = walk_table(home, location)
    looked = _Looked(list(walked.damages))
    looked.report.count("tables")
    for file in walked.files:
        looked.report.count(f"{file.kind.value}s")
        key = file.uri.removeprefix(f"{home.root}/")
        known = seen.get(key)
        if known is None or sample.draws(key):
            known, damage = _read_content(home, file, known, sample.today)
            looked.damages.extend([damage] if damage else [])
            looked.report.bytes_read += file.bytes or 0
        if known is not None:
            looked.there[key] = known
    return looked


def _read_content(
    home: Home, file: TableFile, known: SeenFile | None, today: date
) -> tuple[SeenFile | None, Damage | None]:
    try:
        found = hash_table_file(home, file)
    except FileNotFoundError:
        return known, Damage(file, "is missing")
    if known is not None:
        is_same = known.sha256 == found
        return known, None if is_same else Damage(file, f"is not what it was on {known.at}: its sha256 differs")
    damage = next(find_undecodable(home, [file]), None)
    return (None if damage else SeenFile(found, today.isoformat())), damage


def _describe(home: Home, name: str, damage: Damage) -> Finding:
    file = damage.file
    day = f" {file.day}" if file.day else ""
    return Finding(
        place=f"{home.application}.{name}{day}, {file.kind}{_name_owners(file)}",
        file=file.path,
        problem=damage.problem,
        cause=LOST if damage.problem == "is missing" else ALTERED,
        repair=f"{name_way_back(home.application, name, file)}.",
        mend=next(_find_mend(name, file), None),
    )


def _name_owners(file: TableFile) -> str:
    if not file.needed_by:
        return " of an earlier state"
    tags = sorted(each for each in file.needed_by if each != HEAD)
    return f" of {', '.join([*(['the present state'] if HEAD in file.needed_by else []), *tags])}"


def _find_mend(name: str, file: TableFile) -> Iterator[Mend]:
    if file.kind is FileKind.DATA and file.day is not None and HEAD in file.needed_by and is_made_from_landing(name):
        yield Mend(MendKind.MAKE_DAY, day=file.day)
    if file.kind is FileKind.METADATA and not file.needed_by and (path := find_local_path(file.uri)) is not None:
        # An earlier state, which nothing reads, and which the table forgets after ten commits.
        yield Mend(MendKind.SET_ASIDE, path=path)
