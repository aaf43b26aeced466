"""What the service counts, for Prometheus; labels are names of ours, never texts of a request.

Counters are plain numbers of the event loop's thread, written out when somebody asks: a `Counter` of the client library
takes a lock for each step, which for single events was a tenth of a request. What the writer thread tells (fsyncs,
segments) is rarer and uses the library's own.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from flywheel_assets.capture.http.answers import Refusal
from flywheel_assets.capture.operations.logs import RefusalLog

EXPOSITION_TYPE = CONTENT_TYPE_LATEST
_REMEMBERED_EVENTS = 32_768
# A group commit takes 0.2 ms on a good SSD and seconds on a disk in trouble.
_FSYNC_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Requests(Collector):
    """What the event loop counts."""

    def __init__(self) -> None:
        self.received: Tally[str] = Tally()
        self.accepted: Tally[str] = Tally()
        self.duplicates: Tally[str] = Tally()
        self.refused_requests: Tally[str] = Tally(dict.fromkeys(map(str, Refusal), 0))
        self.refused_events = 0
        self.bytes = 0

    def collect(self) -> Iterable[Metric]:
        """Every number as Prometheus wants it."""
        for name, description, by_application in (
            ("received", "Events that arrived in requests.", self.received),
            ("accepted", "Events that were acknowledged.", self.accepted),
            ("duplicates", f"Acknowledged events whose id was among the last {_REMEMBERED_EVENTS}.", self.duplicates),
        ):
            yield _counter(name, description, "application", by_application)
        yield _counter("refused_requests", "Requests refused as a whole.", "reason", self.refused_requests)
        events = {str(Refusal.INVALID_EVENT): self.refused_events}
        yield _counter("refused_events", "Events refused one by one.", "reason", events)
        yield CounterMetricFamily("flywheel_capture_received_bytes", "Bytes of bodies, inflated.", self.bytes)


class Telemetry:
    """The counters of one service in this process."""

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
        # Two sets that take turns: forgetting one by one, oldest first, would cost more than remembering.
        self._recent: set[str] = set()
        self._earlier: set[str] = set()
        self.refusals = RefusalLog()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Report a number that changes by itself, asked for at every scrape."""
        Gauge(f"flywheel_capture_{name}", description, registry=self._registry).set_function(value)

    def received(self, application: str, events: int, size_bytes: int) -> None:
        """A readable request of a caller who may send."""
        self._requests.received[application] += events
        self._requests.bytes += size_bytes

    def accepted(self, application: str, event_ids: list[str]) -> None:
        """Events that are durable and about to be acknowledged."""
        repeated = 0
        for event_id in event_ids:
            if event_id in self._recent or event_id in self._earlier:
                repeated += 1
            else:
                self._recent.add(event_id)
        if len(self._recent) > _REMEMBERED_EVENTS:
            self._recent, self._earlier = set(), self._recent
        self._requests.accepted[application] += len(event_ids)
        if repeated:
            self._requests.duplicates[application] += repeated

    def repeated(self, application: str, events: int) -> None:
        """Events of a webhook that was acknowledged before."""
        self._requests.duplicates[application] += events

    def refused_events(self, events: int) -> None:
        """Events that are wrong in themselves."""
        self._requests.refused_events += events

    def refused_request(self, reason: Refusal) -> None:
        """A request that was answered with an error as a whole."""
        self._requests.refused_requests[reason] += 1
        self.refusals.note(reason)

    def synced(self, seconds: float, size_bytes: int) -> None:
        """One group reached the disk."""
        self._fsync.observe(seconds)
        self._written.inc(size_bytes)

    def write_failed(self, step: str) -> None:
        """The disk refused a group."""
        self._write_failures.labels(step).inc()

    def sealed(self) -> None:
        """A segment can be read."""
        self._sealed.inc()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


def _counter(name: str, description: str, label: str, tally: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"flywheel_capture_{name}", description, labels=[label])
    for value, count in list(tally.items()):
        family.add_metric([str(value)], count)
    return family
