"""Creates, appends, syncs and publishes one segment on disk; recovers it after its writer died.

A writer holds an exclusive `flock` on its open segment for as long as it lives, so recovery in another process takes
exactly the segments whose writer is gone: the kernel drops the lock even after SIGKILL.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets.lake.storage.files import sync_folder

log = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024


@dataclass
class OpenSegment:
    """Holds a segment that this process writes; `durable_bytes` of it survive a power cut."""

    zone: LandingZone
    path: Path
    descriptor: int
    durable_bytes: int = 0

    @classmethod
    def create(cls, zone: LandingZone, writer: str, number: int, now: datetime) -> "OpenSegment":
        """Create a locked, empty segment. Its name sorts by time, and no other process uses it."""
        make_folder_durable(zone.open_folder)
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%S%f}Z-{writer}-{number:06d}.jsonl"
        path = zone.open_folder / name
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o640)
            if _lock(descriptor) and os.fstat(descriptor).st_nlink > 0:
                break
            # Another process recovered, and removed, the empty file just before this process got the lock.
            os.close(descriptor)
            path = path.with_stem(f"{path.stem}-{secrets.token_hex(2)}")
        try:
            sync_folder(zone.open_folder)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return cls(zone, path, descriptor)

    def append(self, lines: Sequence[bytes]) -> None:
        """Hand the lines to the operating system; they are not durable before `sync`.

        Raises:
            OSError: nothing of `lines` is in the file any more. `os.write` may take a part before a full disk is
                reported, so the torn tail is cut off.
        """
        rest = memoryview(b"".join(lines))
        try:
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError:
            os.ftruncate(self.descriptor, self.durable_bytes)
            raise

    def sync(self) -> int:
        """Return when everything appended is on disk, with the number of bytes. After an error never write again."""
        os.fdatasync(self.descriptor)
        before, self.durable_bytes = self.durable_bytes, os.fstat(self.descriptor).st_size
        return self.durable_bytes - before

    def publish(self, day: date) -> None:
        """Make the segment visible under `day`, or remove it when it is empty; the lock is held until then."""
        if self.durable_bytes == 0:
            self.path.unlink()
        else:
            os.fsync(self.descriptor)
            make_folder_durable(self.zone.find_day_folder(day))
            self.zone.publish(self.path, day)
        self.close()

    def close(self) -> None:
        """Close the descriptor, which releases its lock."""
        os.close(self.descriptor)


def find_open_segments(root: Path) -> list[tuple[LandingZone, Path]]:
    """List every open segment under the landing root, of living and dead writers alike."""
    found = []
    for path in sorted(root.glob("*/*/_open/*.jsonl")):
        application, kind = path.parts[-4], path.parts[-3]
        if kind in set(EventKind):
            found.append((LandingZone(root, application, EventKind(kind)), path))
    return found


def recover_segment(zone: LandingZone, path: Path, day: date, own: OpenSegment | None = None) -> bool:
    """Publish the segment of a dead writer under `day` without its torn tail.

    Args:
        zone: where the segment lies.
        path: the open segment.
        day: the UTC day of publication.
        own: a segment of this process that failed. Its lock is held, and the bytes after its durable ones were never
            acknowledged; its descriptor is not written through any more.

    Returns:
        True when this call took the segment out of the open folder; False when its writer lives or another process
        took it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if (own is None and not _lock(descriptor)) or not _is_still_at(path, descriptor):
            return False
        size = os.fstat(descriptor).st_size
        keep = _find_end_of_last_line(descriptor, size if own is None else min(size, own.durable_bytes))
        if keep == 0:
            path.unlink()
            return True
        if keep < size:
            os.ftruncate(descriptor, keep)
        os.fsync(descriptor)
        make_folder_durable(zone.find_day_folder(day))
        zone.publish(path, day)
        log.info("recovered segment %s: kept %d bytes, cut %d", path.name, keep, size - keep)
        return True
    finally:
        os.close(descriptor)


def make_folder_durable(folder: Path) -> None:
    """Create the folder and its parents so that they survive a power cut.

    Each new name is synced in its parent.
    """
    if folder.is_dir():
        return
    make_folder_durable(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _find_end_of_last_line(descriptor: int, size: int) -> int:
    """Return the bytes up to and including the last newline before `size`; 0 when there is none."""
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
