"""Counts for Prometheus and writes the log; neither holds any text of a request.

Counters are plain numbers of the event loop's thread, and a scrape writes them out: a `Counter` of the client library
takes a lock for each step, which cost a tenth of a single-event request. Numbers of the writer thread (fsyncs,
segments) are rarer and use the library's own.

The log has one JSON object per line. A message of ours names keys, segments and reasons. Of an exception only its type
and place are kept: its message may quote the text on which it failed. `json` escapes every character that is not ASCII,
so that no line break, terminal code or lone surrogate can forge a line or break a reader.
"""

import json
import logging
import sys
import time
import traceback
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from flywheel_assets.capture.http.answers import Refusal

EXPOSITION_TYPE = CONTENT_TYPE_LATEST
# A group commit takes 0.2 ms on a good SSD and seconds on a disk in trouble.
_FSYNC_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Requests(Collector):
    """Holds the counters of the event loop."""

    def __init__(self) -> None:
        self.received: Tally[str] = Tally()
        self.accepted: Tally[str] = Tally()
        self.duplicates: Tally[str] = Tally()
        self.superseded: Tally[str] = Tally()
        self.refused_requests: Tally[str] = Tally(dict.fromkeys(map(str, Refusal), 0))
        self.refused_events = 0
        self.bytes = 0

    def collect(self) -> Iterable[Metric]:
        """Return every number as Prometheus wants it."""
        for name, description, by_application in (
            ("received", "Events that arrived in requests.", self.received),
            ("accepted", "Events that were acknowledged.", self.accepted),
            ("duplicates", "Acknowledged events that were acknowledged before, not long ago.", self.duplicates),
            ("superseded", "Acknowledged events with other content under a known id, or a revision.", self.superseded),
        ):
            yield _build_counter(name, description, "application", by_application)
        yield _build_counter("refused_requests", "Requests refused as a whole.", "reason", self.refused_requests)
        events = {str(Refusal.INVALID_EVENT): self.refused_events}
        yield _build_counter("refused_events", "Events refused one by one.", "reason", events)
        yield CounterMetricFamily("flywheel_capture_received_bytes", "Bytes of bodies, inflated.", self.bytes)


class Telemetry:
    """Holds the counters of one service in this process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = _Requests()
        registry.register(self._requests)
        self._fsync = Histogram(
            "flywheel_capture_fsync_seconds",
            "How long one file's part of a group took to reach the disk.",
            buckets=_FSYNC_BUCKETS_S,
            registry=registry,
        )
        self._written = Counter("flywheel_capture_written_bytes", "Bytes made durable in segments.", registry=registry)
        self._write_failures = Counter(
            "flywheel_capture_write_failures", "Groups that the disk refused.", ["step"], registry=registry
        )
        self._sealed = Counter("flywheel_capture_sealed_segments", "Segments published in landing.", registry=registry)
        self.refusals = RefusalLog()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Report a number that changes by itself; every scrape asks for it."""
        Gauge(f"flywheel_capture_{name}", description, registry=self._registry).set_function(value)

    def note_received(self, application: str, events: int, size_bytes: int) -> None:
        """Count a readable request of a caller who may send."""
        self._requests.received[application] += events
        self._requests.bytes += size_bytes

    def note_accepted(self, application: str, events: int, repeated: int = 0, superseded: int = 0) -> None:
        """Count events that are durable and about to be acknowledged."""
        self._requests.accepted[application] += events
        if repeated:
            self._requests.duplicates[application] += repeated
        if superseded:
            self._requests.superseded[application] += superseded

    def note_repeated(self, application: str, events: int) -> None:
        """Count events of a webhook that was acknowledged before."""
        self._requests.duplicates[application] += events

    def note_refused_events(self, events: int) -> None:
        """Count events that are wrong in themselves."""
        self._requests.refused_events += events

    def note_refused_request(self, reason: Refusal) -> None:
        """Count a request that was answered with an error as a whole."""
        self._requests.refused_requests[reason] += 1
        self.refusals.note(reason)

    def note_sync(self, seconds: float, size_bytes: int) -> None:
        """Count one group that reached the disk."""
        self._fsync.observe(seconds)
        self._written.inc(size_bytes)

    def note_write_failure(self, step: str) -> None:
        """Count a group that the disk refused."""
        self._write_failures.labels(step).inc()

    def note_seal(self) -> None:
        """Count a segment that can be read now."""
        self._sealed.inc()

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


def _build_counter(name: str, description: str, label: str, tally: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"flywheel_capture_{name}", description, labels=[label])
    for value, count in list(tally.items()):
        family.add_metric([str(value)], count)
    return family


log = logging.getLogger(__name__)

_SUMMARY_S = 10.0


class JsonLines(logging.Formatter):
    """Formats a record as one line; `extra={"fields": {…}}` adds fields to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = record.exc_info[0].__name__
            entry["raised_at"] = _list_places(record.exc_info[2])
        return json.dumps(entry, ensure_ascii=True, default=str)


def log_json_lines(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Make every logger of this process write JSON lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)


class RefusalLog:
    """Writes one line every ten seconds about refused requests, so that bad requests cannot fill the log."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._next_line = 0.0
        self._counts: Tally[str] = Tally()

    def note(self, reason: str) -> None:
        """Count a refusal, and write the line when it is time."""
        self._counts[reason] += 1
        if self._monotonic() >= self._next_line:
            self.flush()

    def flush(self) -> None:
        """Write the counts since the last line."""
        if self._counts:
            log.warning("requests refused", extra={"fields": {"refused": dict(self._counts)}})
            self._counts.clear()
            self._next_line = self._monotonic() + _SUMMARY_S


def _list_places(raised: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(raised)]
