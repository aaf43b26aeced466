"""A small file system of its own in memory, for tests of a full disk."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class MountedDisk:
    """A mounted tmpfs, of which a ballast leaves as much as a test wants."""

    folder: Path

    @property
    def ballast(self) -> Path:
        return self.folder / "ballast"

    def leave_free(self, free_bytes: int) -> None:
        self.ballast.unlink(missing_ok=True)
        found = os.statvfs(self.folder)
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_bsize - free_bytes)


@contextmanager
def mount_disk(folder: Path, megabytes: int) -> Iterator[MountedDisk]:
    """Mount a disk on a new folder; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if mounted.returncode:
        pytest.skip(f"no file system of our own can be mounted here: {mounted.stderr.strip()}")
    try:
        yield MountedDisk(folder)
    finally:
        # Lazily: DuckDB and SQLite may hold a file for a moment longer.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
