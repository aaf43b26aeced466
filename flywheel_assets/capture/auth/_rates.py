"""How many events per second one key may send."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flywheel_assets.capture.http.answers import Refusal, RefusedError

BURST_S = 10.0
"""A key that was quiet may send this many seconds' worth at once."""


@dataclass
class _Bucket:
    events_per_s: float
    left: float
    """Events that may still come now; below zero after a request that was larger than what was left."""
    counted_at: float


class Rates:
    """A token bucket per key; of one process, so N processes together let N times as much pass.

    How many events a request holds is known only when it was read. So a request passes while anything is left, and
    what it then turns out to hold may leave the bucket in debt: the next one waits until that is paid off.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets: dict[str, _Bucket] = {}

    def check(self, key_id: str, events_per_s: float) -> None:
        """Raise `RefusedError` (429, with the seconds to wait) when the key has used up its rate."""
        bucket = self._filled(key_id, events_per_s)
        if bucket.left <= 0:
            raise RefusedError(
                Refusal.RATE_LIMITED,
                f"this key may send {events_per_s:g} events/s and has sent more; see Retry-After",
                retry_after_s=(1 - bucket.left) / events_per_s,
            )

    def charge(self, key_id: str, events: int) -> None:
        """Count what a request held."""
        bucket = self._buckets.get(key_id)
        if bucket is not None:
            bucket.left -= events

    def _filled(self, key_id: str, events_per_s: float) -> _Bucket:
        now = self._monotonic()
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.events_per_s != events_per_s:
            bucket = self._buckets[key_id] = _Bucket(events_per_s, events_per_s * BURST_S, now)
        grown = bucket.left + (now - bucket.counted_at) * events_per_s
        bucket.left, bucket.counted_at = min(grown, events_per_s * BURST_S), now
        return bucket
