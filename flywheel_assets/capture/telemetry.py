"""What the service counts, for Prometheus; labels are names of ours, never texts of a request."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from flywheel_assets.capture.answers import Refusal
from flywheel_assets.capture.logs import RefusalLog

EXPOSITION_TYPE = CONTENT_TYPE_LATEST
_RECENT_EVENTS = 65_536
# A group commit takes 0.2 ms on a good SSD and seconds on a disk in trouble.
_FSYNC_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Telemetry:
    """The counters of one service in this process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        by_application = ["application"]
        self._received = Counter(
            "flywheel_capture_received", "Events that arrived in requests.", by_application, registry=registry
        )
        self._accepted = Counter(
            "flywheel_capture_accepted", "Events that were acknowledged.", by_application, registry=registry
        )
        self._duplicates = Counter(
            "flywheel_capture_duplicates",
            f"Acknowledged events whose id was among the last {_RECENT_EVENTS} of this process.",
            by_application,
            registry=registry,
        )
        refused = Counter(
            "flywheel_capture_refused_events", "Events refused one by one.", ["reason"], registry=registry
        )
        self._invalid_events = refused.labels(Refusal.INVALID_EVENT)
        self._refused_requests = Counter(
            "flywheel_capture_refused_requests", "Requests refused as a whole.", ["reason"], registry=registry
        )
        self._bytes = Counter(
            "flywheel_capture_received_bytes", "Bytes of request bodies, inflated.", registry=registry
        )
        self._fsync = Histogram(
            "flywheel_capture_fsync_seconds",
            "How long one group of events took to reach the disk.",
            buckets=_FSYNC_BUCKETS_S,
            registry=registry,
        )
        self._written = Counter("flywheel_capture_written_bytes", "Bytes made durable in segments.", registry=registry)
        self._write_failures = Counter(
            "flywheel_capture_write_failures", "Groups that the disk refused.", ["step"], registry=registry
        )
        self._sealed = Counter("flywheel_capture_sealed_segments", "Segments published in landing.", registry=registry)
        for refusal in Refusal:
            self._refused_requests.labels(refusal)
        self._recent: dict[str, None] = {}
        self.refusals = RefusalLog()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Report a number that changes by itself, asked for at every scrape."""
        Gauge(f"flywheel_capture_{name}", description, registry=self._registry).set_function(value)

    def received(self, application: str, events: int, size_bytes: int) -> None:
        """A readable request of a caller who may send."""
        self._received.labels(application).inc(events)
        self._bytes.inc(size_bytes)

    def accepted(self, application: str, event_ids: list[str]) -> None:
        """Events that are durable and about to be acknowledged."""
        repeated = 0
        recent = self._recent
        for event_id in event_ids:
            if event_id in recent:
                repeated += 1
            else:
                recent[event_id] = None
        while len(recent) > _RECENT_EVENTS:
            del recent[next(iter(recent))]
        self._accepted.labels(application).inc(len(event_ids))
        if repeated:
            self._duplicates.labels(application).inc(repeated)

    def repeated(self, application: str, events: int) -> None:
        """Events of a webhook that was acknowledged before."""
        self._duplicates.labels(application).inc(events)

    def refused_events(self, events: int) -> None:
        """Events that are wrong in themselves."""
        self._invalid_events.inc(events)

    def refused_request(self, reason: Refusal) -> None:
        """A request that was answered with an error as a whole."""
        self._refused_requests.labels(reason).inc()
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
