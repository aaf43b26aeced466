"""Numbered rows for a segment log, and the disk below it, which a test can hold up or break."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.segments import SegmentLimits
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.capture.samples import landed

WAIT_S = 10.0
UNSEALED = SegmentLimits(segment_age_s=3600)


def rows(*numbers: int, kind: EventKind = EventKind.PREDICTION, padding: str = "") -> list[LandedRow]:
    return [LandedRow(kind, b'{"n":%d,"padding":"%s"}\n' % (number, padding.encode())) for number in numbers]


def numbers(root: Path, kind: str = "prediction") -> list[int]:
    return [row["n"] for row in landed(root, kind)]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Disk:
    """The operating system's write and sync, which a test can hold up or break."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.syncs = 0
        self.failing_syncs = 0
        self.free_bytes: int | None = None
        self.real_write, self.real_fdatasync = os.write, os.fdatasync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def write(self, descriptor: int, content: Any) -> int:
        if self.free_bytes is None or threading.current_thread().name != "segment-writer":
            return self.real_write(descriptor, content)
        if self.free_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.real_write(descriptor, content[: self.free_bytes])
        self.free_bytes -= written
        return written

    def fdatasync(self, descriptor: int) -> None:
        assert self.may_sync.wait(WAIT_S)
        self.syncs += 1
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.real_fdatasync(descriptor)
