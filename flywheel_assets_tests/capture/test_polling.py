"""Readings of a system that is asked for its traces: what is read again, and what a killed reading leaves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.capture.polling import Polled, Window, poll_traces
from flywheel_assets.errors import InvalidEventError, SourceUnavailableError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import PredictionCloudEvent, PredictionData
from flywheel_assets_tests.capture.samples import NOON, Clock, landed

DAY = timedelta(days=1)
WINDOW = Window(first=NOON - 10 * DAY, reread=2 * DAY, max_traces=100)


@dataclass(frozen=True)
class Trace:
    """One trace as the system has it now."""

    trace_id: str
    began_at: datetime = NOON
    fingerprint: str = "1"
    is_finished: bool = True
    is_uploaded: bool = True
    answer: str = "Thus."


@dataclass
class System:
    """A system with traces, which can stop to answer."""

    traces: dict[str, Trace] = field(default_factory=dict)
    page_traces: int = 2
    answers_left: int = 1_000
    listed_since: list[datetime] = field(default_factory=list)

    def have(self, *traces: Trace) -> None:
        self.traces |= {trace.trace_id: trace for trace in traces}

    def list_pages(self, since: datetime) -> Iterator[Sequence[Trace]]:
        self.listed_since.append(since)
        found = sorted(
            (each for each in self.traces.values() if each.began_at >= since), key=lambda each: each.began_at
        )
        for start in range(0, len(found), self.page_traces):
            yield found[start : start + self.page_traces]

    def read(self, trace_ids: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
        for trace_id in trace_ids:
            if not self.answers_left:
                raise SourceUnavailableError("gone")
            self.answers_left -= 1
            trace = self.traces[trace_id]
            yield trace_id, {"id": trace_id, "answer": trace.answer} if trace.is_uploaded else None


def convert(record: Record) -> list[Event]:
    answer, trace_id = str(record.get("answer")), str(record.get("id"))
    if answer == "bad":
        raise InvalidEventError("quotes a text")
    if not answer:
        return []
    data = PredictionData(prompt="How?", output=answer)
    return [PredictionCloudEvent(specversion="1.0", id=trace_id, source="system", data=data)]


SYSTEM = Format(name="system", title="A system", matches=lambda _: True, convert=convert)


@pytest.fixture
def system() -> System:
    return System()


@dataclass
class Desk:
    """Reads the system into a landing zone, each time as a process of its own would."""

    folder: Path
    system: System
    clock: Clock = field(default_factory=Clock)

    def poll(self, window: Window = WINDOW) -> Polled:
        with SegmentLog(self.folder / "landing", clock=self.clock) as log:
            memory = self.folder / "sources" / "system.db"
            return poll_traces(self.system, SYSTEM, "assistant", log, memory, window, self.clock)

    def list_landed(self) -> list[str]:
        return sorted(row["prediction_id"] for row in landed(self.folder / "landing", "prediction"))


@pytest.fixture
def desk(tmp_path: Path, system: System) -> Desk:
    return Desk(tmp_path, system)


def test_only_what_is_new_or_changed_is_read(desk: Desk, system: System) -> None:
    system.have(Trace("a"), Trace("b"), Trace("c"))
    assert desk.poll().read == 3
    again = desk.poll()
    assert (again.listed, again.read, again.predictions, again.is_complete) == (3, 0, 0, True)
    system.have(Trace("b", fingerprint="2"), Trace("d"))
    assert desk.poll().read == 2
    assert desk.list_landed() == ["a", "b", "b", "c", "d"]


def test_the_window_moves_with_the_last_complete_reading(desk: Desk, system: System) -> None:
    system.have(Trace("old", NOON - 9 * DAY), Trace("new"))
    desk.poll()
    desk.clock.now += DAY
    system.have(Trace("old", NOON - 9 * DAY, fingerprint="2"))  # too late: nothing finds this any more
    assert desk.poll().read == 0
    desk.poll(replace(WINDOW, first=NOON - 20 * DAY))
    assert system.listed_since == [WINDOW.first, NOON - 2 * DAY, NOON - 20 * DAY]
    assert desk.list_landed().count("old") == 2


def test_a_long_pause_leaves_no_gap(desk: Desk, system: System) -> None:
    desk.poll()
    desk.clock.now += 30 * DAY
    system.have(Trace("meanwhile", NOON + DAY))
    assert desk.poll().predictions == 1


def test_a_reading_that_fails_keeps_its_pages_and_is_not_complete(desk: Desk, system: System) -> None:
    system.have(*(Trace(name, NOON + timedelta(seconds=number)) for number, name in enumerate("abcde")))
    system.answers_left = 3
    with pytest.raises(SourceUnavailableError):
        desk.poll()
    assert desk.list_landed() == ["a", "b"]
    system.answers_left = 1_000
    assert desk.poll().read == 3
    assert desk.list_landed() == ["a", "b", "c", "d", "e"]
    assert system.listed_since == [WINDOW.first, WINDOW.first]


def test_a_bounded_reading_goes_on_next_time(desk: Desk, system: System) -> None:
    system.have(*(Trace(name, NOON + timedelta(seconds=number)) for number, name in enumerate("abcde")))
    bounded = replace(WINDOW, max_traces=3)
    first, second = desk.poll(bounded), desk.poll(bounded)
    assert (first.read, first.is_complete, second.read, second.is_complete) == (3, False, 2, True)
    assert desk.list_landed() == ["a", "b", "c", "d", "e"]


def test_what_is_not_complete_yet_is_read_later(desk: Desk, system: System) -> None:
    system.have(Trace("running", is_finished=False), Trace("uploading", is_uploaded=False))
    assert (desk.poll().incomplete, desk.list_landed()) == (2, [])
    system.have(Trace("running"), Trace("uploading"))
    assert desk.poll().predictions == 2


def test_a_trace_that_cannot_be_used_is_counted_once_and_named_by_its_id(desk: Desk, system: System) -> None:
    system.have(Trace("a", answer="bad"), Trace("b", answer=""), Trace("c"))
    polled = desk.poll()
    assert (polled.refused, polled.refused_traces, polled.without_events, polled.predictions) == (["a"], 1, 1, 1)
    assert desk.poll().read == 0


def test_a_lost_memory_costs_duplicates_only(desk: Desk, system: System) -> None:
    system.have(Trace("a"))
    desk.poll()
    (desk.folder / "sources" / "system.db").unlink()
    desk.poll()
    rows = landed(desk.folder / "landing", "prediction")
    assert (len(rows), len({row["event_id"] for row in rows})) == (2, 1)
