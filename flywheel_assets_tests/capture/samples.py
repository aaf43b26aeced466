"""Wire-format samples, each valid as it is, so that a test shows only the field it is about."""

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel_assets.capture.events.texts import LandedRow

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Seconds:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryLog:
    """An event log that keeps rows in a list, or refuses them."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.rows: list[LandedRow] = []
        self.refusal = refusal
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def find_problem(self) -> str | None:
        return None if self.refusal is None else str(self.refusal)

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.rows.extend(rows)


def prediction_event(**overrides: Any) -> dict[str, Any]:
    data = {"prompt": "How?", "output": "Thus."} | overrides.pop("data", {})
    event = {"specversion": "1.0", "id": "p-1", "source": "app", "type": "flywheel.prediction", "data": data}
    return event | overrides


def feedback_event(**overrides: Any) -> dict[str, Any]:
    data = {"prediction_id": "p-1", "signal": "accept"} | overrides.pop("data", {})
    event = {"specversion": "1.0", "id": "f-1", "source": "app", "type": "flywheel.feedback", "data": data}
    return event | overrides


def edit(**overrides: Any) -> dict[str, Any]:
    return {"prompt": "How?", "original_llm_output": "Thus.", "final_user_edit": "Like this."} | overrides


def landed(root: Path, kind: str, application: str = "assistant") -> list[dict[str, Any]]:
    """Every published row of one kind, in file order."""
    paths = sorted((root / application / kind).glob("received_date=*/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def folder_in_memory() -> Path:
    """A new folder for tests that sync hundreds of files, in memory where that can be had; the caller removes it."""
    shared_memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="capture-test-", dir=shared_memory if shared_memory.is_dir() else None))


def received_days(root: Path, kind: str, application: str = "assistant") -> list[str]:
    folders = sorted((root / application / kind).glob("received_date=*"))
    return [folder.name.removeprefix("received_date=") for folder in folders]


def open_segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/_open/*"))
