"""What holds for every test."""

import gc
import os
import shutil
import sys
from pathlib import Path

import pytest

_IN_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30
"""Of free memory: two workers' folders are some 500 MB, and pytest keeps those of three runs."""

_TRAINING_ROOMS = ("e2e", "evaluation", "training")
_LARGE = 200
"""Modules: what the model libraries bring is thousands."""
_settled_modules = 0


def pytest_configure(config: pytest.Config) -> None:
    """Put `tmp_path` into memory where there is room, because a lake waits 1 ms of the disk for every file it fsyncs.

    `--basetemp` and `PYTEST_DEBUG_TEMPROOT` still decide where they are given.
    """
    has_room = os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free >= _ROOM_BYTES
    if config.option.basetemp is None and has_room:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one of two workers get every room that trains: importing the model libraries takes 7 s of each CPU."""
    items.sort(key=lambda item: item.path.parent.name not in _TRAINING_ROOMS)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: the workers of one run must give a test one name, and bytes may hold the time."""
    return argname if isinstance(val, bytes) else None


def pytest_runtest_logfinish() -> None:
    """Keep libraries that a test imported out of every later garbage collection.

    A trainer collects three times in a training of 12 steps, 0.5 s each with torch, transformers and trl in memory.
    """
    global _settled_modules
    if len(sys.modules) > _settled_modules + _LARGE:
        _settled_modules = len(sys.modules)
        gc.collect()
        gc.freeze()
