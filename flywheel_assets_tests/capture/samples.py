"""Wire-format samples, each valid as it is, so that a test shows only the field it is about."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def received_days(root: Path, kind: str, application: str = "assistant") -> list[str]:
    folders = sorted((root / application / kind).glob("received_date=*"))
    return [folder.name.removeprefix("received_date=") for folder in folders]


def open_segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/_open/*"))
