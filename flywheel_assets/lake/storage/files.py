"""Durable files: what is visible is complete, and what was reported written survives a power cut."""

import hashlib
import os
import secrets
from pathlib import Path


def write_synced(path: Path, content: bytes) -> None:
    """Write `content` and return only when it is on disk; the name may be visible before that."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_once(path: Path, content: bytes) -> bool:
    """Create `path` with `content`, whole or not at all; return False when it existed, and leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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
    """Put `content` at `path` by one atomic rename, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    # Threads of one process may write the same file at the same moment.
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Make the folder's renames and links durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
