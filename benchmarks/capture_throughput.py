"""Capture against the services that a team would write instead, with the same fsync before every acknowledgement.

Claim: at least 2 × the single events and 2.5 × the batched events of FastAPI with pydantic bodies, and a million events
leave its memory where it was.
Data: predictions of 1.1 KB as CloudEvents, each with an id of its own; one event, or 100, per request.
Command: python -m benchmarks.capture_throughput [--rounds 10] [--seconds 1] [--million]   (needs the extra `bench`)
    python -m benchmarks.capture_throughput --against CHECKOUT   (before and after a change, in the same minutes)

Peers, in the same run and on the same event log (group commit, fdatasync, then 202), each on one uvicorn worker pinned
to the same core, the load on another: FastAPI with pydantic bodies, and FastAPI with the raw body and msgspec. Capture
runs with a key, its rate limit, its counters and its size limits; the peers have none of these. The services take
turns, round by round, with 32 connections that are never idle. CPU time is the server process's own. A round that other
work on the machine disturbs costs more of both times, so the best round of each service is shown beside its median.
Latency is measured in an open loop at a fixed rate, from the moment when a request was due. Figures: docs/capture.md.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

SERVICES = ("capture", "fastapi_msgspec", "fastapi_pydantic")
EARLIER = "earlier"
CONNECTIONS = 32
TEXT = "Read the first ten rows of the orders table and tell me which customer bought most. "
EVENT = json.dumps(
    {
        "specversion": "1.0",
        "id": "@@",
        "source": "benchmark",
        "type": "flywheel.prediction",
        "time": "2026-11-01T12:00:00Z",
        "data": {
            "prompt": TEXT * 5,
            "output": (TEXT * 6)[:450],
            "model_version": "assistant-7",
            "user_id": "user-12345",
            "thread_id": "thread-67890",
        },
    }
).split("@@")


# The services --------------------------------------------------------------------------------------------------------


def serve_capture(home: Path) -> None:
    """The real thing, with a key."""
    from flywheel_assets.capture.service import serve
    from flywheel_assets.settings import Settings

    settings = Settings(home=home, capture_port=0, capture_events_per_s=1e9)
    serve(settings, ["assistant"], on_ready=lambda url: print(url, flush=True))


def serve_fastapi(home: Path, with_pydantic: bool) -> None:
    """What a team would write: FastAPI, a model per event, the same log behind it."""
    import uvicorn
    from fastapi import FastAPI

    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.capture.service import open_socket

    event_log = SegmentLog(home / "landing")
    event_log.start()
    app = FastAPI()
    (_add_pydantic_routes if with_pydantic else _add_msgspec_routes)(app, event_log)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", access_log=False, log_config=None)
    with open_socket("127.0.0.1", 0) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _add_msgspec_routes(app: Any, event_log: Any) -> None:
    import msgspec
    from fastapi import Request, Response

    from flywheel_assets.capture.events.texts import DecodedEvent, Reception, decode_cloud_event
    from flywheel_assets.capture.http.framing import split_array

    async def acknowledge(application: str, events: list[DecodedEvent]) -> Response:
        await event_log.append(application, [row for event in events for row in event.rows])
        results = [{"id": event.client_id, "status": "accepted"} for event in events]
        body = msgspec.json.encode({"accepted": len(events), "results": results})
        return Response(body, 202, media_type="application/json")

    @app.post("/v1/{application}/events")
    async def one(application: str, request: Request) -> Response:
        reception = Reception(application, datetime.now(UTC))
        return await acknowledge(application, [decode_cloud_event(await request.body(), reception)])

    @app.post("/v1/{application}/batch")
    async def many(application: str, request: Request) -> Response:
        reception = Reception(application, datetime.now(UTC))
        elements = split_array(await request.body(), 10_000)
        return await acknowledge(application, [decode_cloud_event(element, reception) for element in elements])


def _add_pydantic_routes(app: Any, event_log: Any) -> None:
    from typing import Annotated, Literal

    from fastapi import Body
    from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

    from flywheel_assets.capture.events.texts import LandedRow
    from flywheel_assets.lake.landing.disk import EventKind
    from flywheel_assets.records import make_event_id

    identifier = Annotated[str, Field(min_length=1, max_length=1024)]

    class Message(BaseModel):
        model_config = ConfigDict(extra="forbid")
        role: str
        content: str

    class Prediction(BaseModel):
        model_config = ConfigDict(extra="forbid")
        prompt: str | list[Message]
        output: str
        prediction_id: identifier | None = None  # type: ignore[valid-type]
        model_version: identifier | None = None  # type: ignore[valid-type]
        user_id: identifier | None = None  # type: ignore[valid-type]
        thread_id: identifier | None = None  # type: ignore[valid-type]
        do_not_train: bool = False

    class Event(BaseModel):
        specversion: Literal["1.0"]
        id: identifier  # type: ignore[valid-type]
        source: identifier  # type: ignore[valid-type]
        type: Literal["flywheel.prediction"]
        time: AwareDatetime | None = None
        subject: identifier | None = None  # type: ignore[valid-type]
        datacontenttype: str | None = None
        data: Prediction

    class Row(Prediction):
        event_id: str
        received_at: datetime
        occurred_at: datetime
        source: str

    class Result(BaseModel):
        id: str
        status: str

    class Answer(BaseModel):
        accepted: int
        results: list[Result]

    def row_of(application: str, event: Event, now: datetime) -> LandedRow:
        row = Row(
            event_id=make_event_id(application, event.source, event.id),
            received_at=now,
            occurred_at=event.time or now,
            source=event.source,
            **dict(event.data),
        )
        return LandedRow(EventKind.PREDICTION, row.model_dump_json(exclude_none=True).encode() + b"\n")

    async def acknowledge(application: str, events: list[Event]) -> Answer:
        now = datetime.now(UTC)
        await event_log.append(application, [row_of(application, event, now) for event in events])
        return Answer(accepted=len(events), results=[Result(id=event.id, status="accepted") for event in events])

    @app.post("/v1/{application}/events", status_code=202)
    async def one(application: str, event: Event) -> Answer:
        return await acknowledge(application, [event])

    @app.post("/v1/{application}/batch", status_code=202)
    async def many(application: str, events: Annotated[list[Event], Body()]) -> Answer:
        return await acknowledge(application, events)


@dataclass
class Server:
    """One service in a process of its own."""

    name: str
    process: "subprocess.Popen[str]"
    port: int
    key: str | None

    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Memory that it holds now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def running(names: Sequence[str], folder: Path, against: Path | None = None) -> Iterator[list[Server]]:
    """The services, each on a folder of its own; `EARLIER` is capture as another checkout has it."""
    servers: list[Server] = []
    try:
        for name in names:
            home = folder / name
            home.mkdir()
            key = _created_key(home) if name in ("capture", EARLIER) else None
            tree = against if name == EARLIER else Path.cwd()
            served = "capture" if name == EARLIER else name
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.capture_throughput", "--serve", served, "--home", str(home)],
                cwd=tree,
                env=os.environ | {"PYTHONPATH": str(tree)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            port = int(process.stdout.readline().strip().rpartition(":")[2])
            servers.append(Server(name, process, port, key))
        yield servers
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait(30)


def _created_key(home: Path) -> str:
    from flywheel_assets.capture.auth.keys import KeyRequest, create_key

    return create_key(home / "capture_keys.json", KeyRequest("assistant", "benchmark"), datetime.now(UTC)).secret


# The load ------------------------------------------------------------------------------------------------------------


@dataclass
class Requests:
    """Makes requests whose events nobody sent before."""

    server: Server
    events_per_request: int
    made: int = 0
    _head: str = field(init=False)

    def __post_init__(self) -> None:
        path = "events" if self.events_per_request == 1 or self.server.name in ("capture", EARLIER) else "batch"
        key = f"Authorization: Bearer {self.server.key}\r\n" if self.server.key else ""
        self._head = (
            f"POST /v1/assistant/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}"
            "Content-Type: application/json\r\nContent-Length: "
        )

    def next(self) -> bytes:
        """The next request's bytes."""
        first = self.made
        self.made += self.events_per_request
        before, after = EVENT
        events = [f"{before}{os.getpid()}-{id(self)}-{n}{after}" for n in range(first, self.made)]
        body = events[0] if self.events_per_request == 1 else f"[{','.join(events)}]"
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode()


class Connection(asyncio.Protocol):
    """Sends one request at a time and says when its answer is complete."""

    def __init__(self, answered: Callable[["Connection"], None]) -> None:
        self._answered = answered
        self._received = b""
        self.due = 0.0

    def connection_made(self, transport: Any) -> None:
        """Remember where to write."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            assert head.startswith(b"HTTP/1.1 202 "), self._received[:500]
            self._received = b""
            self._answered(self)


async def connections(server: Server, count: int, answered: Callable[[Connection], None]) -> list[Connection]:
    """Open connections to one service."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(answered), "127.0.0.1", server.port) for _ in range(count)]
    return [protocol for _, protocol in made]


async def closed_loop(requests: Requests, until: Callable[[int], bool]) -> int:
    """Keep every connection busy until told otherwise; returns the requests that were answered."""
    answered = 0
    waiting = CONNECTIONS
    idle = asyncio.get_running_loop().create_future()

    def on_answer(connection: Connection) -> None:
        nonlocal answered, waiting
        answered += 1
        if not until(answered):
            connection.transport.write(requests.next())
            return
        waiting -= 1
        if not waiting:
            idle.set_result(None)

    opened = await connections(requests.server, CONNECTIONS, on_answer)
    for connection in opened:
        connection.transport.write(requests.next())
    await idle
    for connection in opened:
        connection.transport.close()
    return answered


async def open_loop(requests: Requests, per_s: float, seconds: float) -> list[float]:
    """Send at a fixed rate whatever the answers do; returns each request's seconds from when it was due."""
    latencies: list[float] = []
    free: list[Connection] = []

    def on_answer(connection: Connection) -> None:
        latencies.append(time.perf_counter() - connection.due)
        free.append(connection)

    opened = await connections(requests.server, 256, on_answer)
    free.extend(opened)
    start = time.perf_counter() + 0.1
    total = int(per_s * seconds)
    for number in range(total):
        due = start + number / per_s
        if due > time.perf_counter():
            await asyncio.sleep(due - time.perf_counter())
        while not free:
            await asyncio.sleep(0.001)
        connection = free.pop()
        connection.due = due
        connection.transport.write(requests.next())
    while len(latencies) < total:
        await asyncio.sleep(0.005)
    for connection in opened:
        connection.transport.close()
    return latencies


# The measurements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """One service under full load for a while."""

    requests_per_s: float
    cpu_us_per_event: float


def loaded_round(server: Server, events_per_request: int, seconds: float) -> Round:
    """Keep one service busy for a while."""
    requests = Requests(server, events_per_request)
    cpu, began = server.cpu_s(), time.monotonic()
    answered = uvloop.run(closed_loop(requests, lambda _: time.monotonic() - began > seconds))
    took, cpu = time.monotonic() - began, server.cpu_s() - cpu
    return Round(answered / took, cpu / (answered * events_per_request) * 1e6)


def compare(servers: list[Server], events_per_request: int, rounds: int, seconds: float) -> None:
    """Let the services take turns, and print what each did."""
    for server in servers:
        loaded_round(server, events_per_request, 0.5)  # warm
    found: dict[str, list[Round]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 else reversed(servers):
            found[server.name].append(loaded_round(server, events_per_request, seconds))
    print(f"\n{events_per_request} event(s) per request, {rounds} rounds of {seconds:g} s: best (median)")
    ours = _figures(found["capture"])
    for name, each in found.items():
        theirs, size = _figures(each), events_per_request
        print(
            f"  {name:17} {theirs.best_per_s * size:8,.0f} ({theirs.median_per_s * size:,.0f})"
            f" events/s   {theirs.best_cpu_us:6.1f} ({theirs.median_cpu_us:.1f}) CPU µs/event"
            f"   capture: {ours.best_per_s / theirs.best_per_s:.2f}× ({ours.median_per_s / theirs.median_per_s:.2f}×)"
            f" the events/s, {theirs.best_cpu_us / ours.best_cpu_us:.2f}×"
            f" ({theirs.median_cpu_us / ours.median_cpu_us:.2f}×) per CPU second"
        )


@dataclass(frozen=True)
class Figures:
    """All rounds of one service."""

    best_per_s: float
    median_per_s: float
    best_cpu_us: float
    median_cpu_us: float


def _figures(rounds: list[Round]) -> Figures:
    per_s = [each.requests_per_s for each in rounds]
    cpu_us = [each.cpu_us_per_event for each in rounds]
    return Figures(max(per_s), statistics.median(per_s), min(cpu_us), statistics.median(cpu_us))


def latencies(servers: list[Server], events_per_request: int, per_s: float, seconds: float, rounds: int) -> None:
    """Print how long requests take at a moderate rate."""
    print(f"\nopen loop, {per_s:g} requests/s of {events_per_request} event(s), {rounds} × {seconds:g} s")
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.name] += uvloop.run(open_loop(Requests(server, events_per_request), per_s, seconds))
    for name, each in found.items():
        ordered = sorted(each)
        p50, p99 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99))
        print(f"  {name:17} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")


def million(server: Server) -> None:
    """Send a million events and watch the memory."""
    print("\na million events in batches of 100")
    requests = Requests(server, 100)
    before, seen, began, cpu = server.resident_mib(), [], time.monotonic(), server.cpu_s()

    def watch(answered: int) -> bool:
        if answered % 500 == 0:
            seen.append(server.resident_mib())
        return requests.made >= 1_000_000

    uvloop.run(closed_loop(requests, watch))
    took = time.monotonic() - began
    print(
        f"  {requests.made / took:,.0f} events/s, {(server.cpu_s() - cpu) / requests.made * 1e6:.1f} CPU µs/event; "
        f"resident {before:.0f} MiB before, {statistics.median(seen[: len(seen) // 2]):.0f} MiB in the first half, "
        f"{statistics.median(seen[len(seen) // 2 :]):.0f} MiB in the second, {max(seen):.0f} MiB at most"
    )


def main() -> None:
    """Run everything, or serve as one of the services."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=SERVICES)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--million", action="store_true", help="also the million events: about 1.2 GB on disk")
    parser.add_argument(
        "--against", type=Path, help="a checkout of an earlier commit: compare with its capture, not with the peers"
    )
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if chosen.serve:
        os.sched_setaffinity(0, {cores[0]})
        if chosen.serve == "capture":
            serve_capture(chosen.home)
        else:
            serve_fastapi(chosen.home, with_pydantic=chosen.serve == "fastapi_pydantic")
        return
    names = SERVICES if chosen.against is None else ("capture", EARLIER)
    with tempfile.TemporaryDirectory() as folder, running(names, Path(folder), chosen.against) as servers:
        os.sched_setaffinity(0, {cores[-1]})
        print(
            f"{len(cores)} cores, load average {os.getloadavg()[0]:.1f} of other work, {len(''.join(EVENT))} B events"
        )
        for events_per_request in (1, 100) if chosen.against is None else (1, 100, 1_000):
            compare(servers, events_per_request, chosen.rounds, chosen.seconds)
        if chosen.against is not None:
            return
        latencies(servers, 1, 200, 5.0, 2)
        latencies(servers, 100, 20, 5.0, 2)
        if chosen.million:
            million(servers[0])


if __name__ == "__main__":
    main()
