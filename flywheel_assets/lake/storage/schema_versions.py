"""Refuses what a newer release wrote: every file that outlives a run, and every table, carries its schema's version.

A version is raised where this release would misread what the next one writes, never for an added column or field:
those are null or have a default, and older code may go on. What has no version was written before there were any, and
is version 1.
"""

from typing import TypeVar

import msgspec

from flywheel_assets import __version__
from flywheel_assets.errors import NewerReleaseError

S = TypeVar("S", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    schema_version: int = 1
    release: str | None = None


def decode_file(content: bytes, kind: type[S], where: str) -> S:
    """Decode a JSON file of a struct that has `schema_version`.

    Raises:
        NewerReleaseError: it has a version that this release does not know.
        msgspec.DecodeError: it is damaged.
    """
    try:
        return _refuse(msgspec.json.decode(content, type=kind), kind, where)
    except msgspec.ValidationError:
        # A newer schema need not fit at all.
        _refuse(msgspec.json.decode(content, type=_Versioned), kind, where)
        raise


def read_version(kind: type[msgspec.Struct]) -> int:
    """Return the version of a struct's schema that this release writes: the default of `schema_version`."""
    return int(next(field.default for field in msgspec.structs.fields(kind) if field.name == "schema_version"))


def refuse_newer(found: int, known: int, where: str, release: str | None = None) -> None:
    """Refuse a version that this release does not know.

    Args:
        found: the version that was read.
        known: the newest that this release knows.
        where: names what has it.
        release: of this package, that wrote it.

    Raises:
        NewerReleaseError: `found` is newer.
    """
    if found > known:
        wanted = f'"flywheel_assets>={release}"' if release else "--upgrade flywheel_assets"
        raise NewerReleaseError(
            f"{where} has schema version {found}, and this release, {__version__}, knows versions up to {known}: a "
            f"newer release wrote it. Nothing was changed. Run `pip install {wanted}` on this host, then repeat."
        )


def _refuse(found: S, kind: type[msgspec.Struct], where: str) -> S:
    refuse_newer(getattr(found, "schema_version", 1), read_version(kind), where, getattr(found, "release", None))
    return found
