"""Writes durable files: a visible file is complete, and a file reported as written survives a power cut."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from flywheel_assets.errors import DamagedFileError
from flywheel_assets.lake.storage.schema_versions import decode_versioned

_Content = TypeVar("_Content")


def write_synced(path: Path, content: bytes) -> None:
    """Write `content` and return only when it is on disk; the name may be visible before that."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_once(path: Path, content: bytes) -> bool:
    """Create `path` with `content`, whole or not at all; return False and change nothing where it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_hidden_path(path)
    try:
        write_synced(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    else:
        return True
    finally:
        temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` by one atomic rename; a file of that name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_hidden_path(path)
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def write_folder(
    final: Path, *, replaces: bool = False, before_rename: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Yield a hidden folder; it becomes `final` by one rename, or is deleted when the block fails.

    Everything in it is on disk before it appears.

    Args:
        final: does not exist yet, unless it is to be replaced; the folders above it are made.
        replaces: whether an existing `final` is replaced; between the two renames a reader finds no folder.
        before_rename: raises where the folder must not appear, for instance because a lock was lost.

    Raises:
        FileExistsError: `final` exists, perhaps only since this block began, and `replaces` is off; it is unchanged.
    """
    building, retired = make_hidden_path(final), make_hidden_path(final)
    building.mkdir(parents=True)
    try:
        yield building
        for path in building.rglob("*"):
            _sync(path)
        _sync(building)
        before_rename()
        while not _try_rename(building, final):
            if not replaces:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
            with suppress(FileNotFoundError):  # another writer has taken it away
                os.rename(final, retired)
            shutil.rmtree(retired, ignore_errors=True)
        _sync(final.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def make_hidden_path(path: Path) -> Path:
    """Return a hidden path, `.<name>.<16 hex>` in the same folder, for a file that becomes `path` when complete.

    The name is random: two containers that share a disk may have equal process ids, and two threads have the same one.
    `lake.upkeep.garbage` removes hidden folders that a killed process left in a version's folder.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _try_rename(building: Path, final: Path) -> bool:
    try:
        os.rename(building, final)
    except OSError as error:
        # The check comes after the rename: after a check before it, another writer could still come in between.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the folder's renames and links durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode_file(
    path: Path, kind: type[_Content], way_back: str, dec_hook: Callable[[type, Any], Any] | None = None
) -> _Content:
    """Decode a small JSON file that this project wrote; `dec_hook` as in `msgspec.json.decode`.

    Raises:
        DamagedFileError: it holds something else; the message ends with `way_back`.
        NewerReleaseError: it has a schema version that this release does not know.
        FileNotFoundError: there is none.
    """
    try:
        return decode_versioned(path.read_bytes(), kind, str(path), dec_hook)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A message about bytes that are no UTF-8 would quote them, and they may be a user's.
        what = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DamagedFileError(f"{path} is damaged ({what}): {way_back}") from None
