"""Refuses what a newer release wrote: every file that outlives a run, and every table, carries its schema's version.

A version is raised where this release would misread what the next one writes, never for an added column or field:
those are null or have a default, and older code may go on. What has no version was written before there were any, and
is version 1.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from flywheel_assets import __version__
from flywheel_assets.errors import NewerReleaseError

C = TypeVar("C")


class _Versioned(msgspec.Struct):
    schema_version: int = 1
    release: str | None = None


def decode_versioned(
    content: bytes, kind: type[C], where: str, dec_hook: Callable[[type, Any], Any] | None = None
) -> C:
    """Decode a JSON file; where `kind` has a `schema_version`, a newer one is refused.

    Args:
        content: the file's.
        kind: what it should hold.
        where: names the file.
        dec_hook: makes what msgspec does not know, as in `msgspec.json.decode`.

    Raises:
        NewerReleaseError: it has a version that this release does not know.
        msgspec.DecodeError: it is damaged.
    """
    try:
        found = msgspec.json.decode(content, type=kind, dec_hook=dec_hook)
    except msgspec.ValidationError:
        # A newer schema need not fit at all.
        _refuse(msgspec.json.decode(content, type=_Versioned), kind, where)
        raise
    _refuse(found, kind, where)
    return found


def read_version(kind: type) -> int | None:
    """Return the version that this release writes, the default of `schema_version`; None: the type has none."""
    fields = msgspec.structs.fields(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()
    return next((int(field.default) for field in fields if field.name == "schema_version"), None)


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


def _refuse(found: Any, kind: type, where: str) -> None:
    known = read_version(kind)
    if known is not None:
        refuse_newer(getattr(found, "schema_version", 1), known, where, getattr(found, "release", None))
