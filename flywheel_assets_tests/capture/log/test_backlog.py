from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from flywheel_assets.capture.log.backlog import Backlog
from flywheel_assets.errors import QueueFullError


@dataclass(frozen=True)
class Request:
    name: str
    events: int = 1
    size_bytes: int = 10
    written: "Future[None]" = field(default_factory=Future)


def backlog_of(*requests: Request) -> Backlog[Request]:
    backlog = Backlog[Request]("disk", 4, 40)
    for request in requests:
        backlog.put(request)
    return backlog


def test_a_group_ends_with_the_request_that_fills_it() -> None:
    backlog = backlog_of(Request("a"), Request("b"), Request("c"))
    assert [request.name for request in backlog.take(11)] == ["a", "b"]
    assert (len(backlog), backlog.events, backlog.size_bytes) == (1, 1, 10)
    assert [request.name for request in backlog.take()] == ["c"]
    assert (len(backlog), backlog.events, backlog.size_bytes) == (0, 0, 0)


def test_who_gave_up_is_in_no_group_and_holds_no_place() -> None:
    gone = Request("gone", events=3)
    backlog = backlog_of(gone, Request("stays"))
    assert gone.written.cancel()
    [stays] = backlog.take()
    assert stays.name == "stays"
    assert not stays.written.cancel()
    assert (len(backlog), backlog.events) == (0, 0)


@pytest.mark.parametrize("larger", [Request("events", events=5), Request("bytes", size_bytes=41)])
def test_what_is_larger_than_the_whole_passes_only_alone(larger: Request) -> None:
    backlog = backlog_of(Request("first"))
    with pytest.raises(QueueFullError, match=r"^1 events \(10 bytes\) wait for the disk; .* 4 events and 40 bytes$"):
        backlog.put(larger)
    assert len(backlog) == 1
    backlog.take()
    backlog.put(larger)
    assert backlog.events == larger.events
