"""The service's log: one JSON object per line, with nothing in it that a client sent.

A message of ours names keys, segments and reasons. Of an exception only its type and where it was raised are kept: its
message may quote what it failed on. `json` escapes what is not ASCII, so that no line break, terminal code or lone
surrogate can forge a line or break a reader.
"""

import json
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

log = logging.getLogger(__name__)

_SUMMARY_S = 10.0


class JsonLines(logging.Formatter):
    """Formats a record as one line; `extra={"fields": {…}}` adds fields to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = record.exc_info[0].__name__
            entry["raised_at"] = _places(record.exc_info[2])
        return json.dumps(entry, ensure_ascii=True, default=str)


def log_json_lines(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Make every logger of this process write JSON lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)


class RefusalLog:
    """One line every ten seconds about refused requests: whoever sends nonsense must not be able to fill the log."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._next_line = 0.0
        self._counts: Counter[str] = Counter()

    def note(self, reason: str) -> None:
        """Count a refusal, and write the line when it is time."""
        self._counts[reason] += 1
        if self._monotonic() >= self._next_line:
            self.flush()

    def flush(self) -> None:
        """Write what was counted since the last line."""
        if self._counts:
            log.warning("requests refused", extra={"fields": {"refused": dict(self._counts)}})
            self._counts.clear()
            self._next_line = self._monotonic() + _SUMMARY_S


def _places(raised: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(raised)]
