"""Sends a simulated world's events to the real capture service, over HTTP, on a clock that the simulation moves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import httpx
import msgspec

from flywheel_assets.errors import CaptureUnavailableError

# Long enough after midnight that a day which is read then is closed (15 minutes after its end).
_NEXT_MORNING = time(0, 30, tzinfo=UTC)


class SimulatedClock:
    """The time in the simulated world; it moves only by `advance`, and never back."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def __call__(self) -> datetime:
        """The simulated present, UTC."""
        return self._now

    def advance(self, to: datetime) -> None:
        """Move on to `to`."""
        if to < self._now:
            raise ValueError(f"the simulated clock shows {self._now}; it cannot go back to {to}")
        self._now = to


@dataclass(frozen=True)
class CaptureDoor:
    """The address of a running capture service that reads the simulated clock."""

    url: str
    seal: Callable[[], None]
    """Publishes the acknowledged events so far under the clock's present day."""
    clock: SimulatedClock
    application: str = "assistant"

    @contextmanager
    def open_sender(self) -> Iterator["Sender"]:
        """Open a connection to the application's endpoints."""
        with httpx.Client(base_url=f"{self.url}/v1/{self.application}", timeout=30) as client:
            yield Sender(client)

    def end_day(self, day: date) -> None:
        """Publish the day, then move the clock to the next day, 00:30 UTC."""
        # The received date is the day of publication: seal before the clock leaves the day.
        self.seal()
        self.clock.advance(datetime.combine(day + timedelta(days=1), _NEXT_MORNING))


@dataclass(frozen=True)
class Sender:
    """An open connection; everything that is sent must be acknowledged."""

    client: httpx.Client

    def send_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Send a batch of CloudEvents.

        Raises:
            CaptureUnavailableError: capture refused or lost one of them.
        """
        self._post("/events", events, "application/cloudevents-batch+json", len(events))

    def send_plain(self, path: str, body: object, count: int = 1) -> None:
        """Send JSON that holds `count` elements to one of the application's plain endpoints.

        Raises:
            CaptureUnavailableError: capture refused or lost one of them.
        """
        self._post(path, body, "application/json", count)

    def _post(self, path: str, body: object, content_type: str, expected: int) -> None:
        try:
            answer = self.client.post(path, content=msgspec.json.encode(body), headers={"content-type": content_type})
        except httpx.HTTPError as error:
            raise CaptureUnavailableError(f"capture at {self.client.base_url} did not answer: {error}") from error
        accepted = answer.json().get("accepted", 0) if answer.status_code == httpx.codes.ACCEPTED else 0
        if accepted != expected:
            raise CaptureUnavailableError(
                f"capture acknowledged {accepted} of {expected} events (HTTP {answer.status_code}): {answer.text[:300]}"
            )


def build_cloud_event(source: str, kind: str, event_id: str, at: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """Build one CloudEvents envelope."""
    return {"specversion": "1.0", "id": event_id, "source": source, "type": kind, "time": at.isoformat(), "data": data}
