"""SIGKILL and SIGTERM of a real capture process: what it acknowledged is in the landing zone afterwards."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets_tests.capture.samples import edit, landed, open_segments

PROCESS = (
    # A process that was started with SIGTERM ignored (by `trap '' TERM`, by some supervisors) hands that on to its
    # children: the service sealed, took the ignored signal's usual effect, and ended with 0 in one run of the suite.
    "import pathlib, signal, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    "from flywheel_assets.capture.service import serve\n"
    "from flywheel_assets.settings import Settings\n"
    "settings = Settings(home=pathlib.Path(sys.argv[1]), capture_port=0, capture_segment_bytes=20_000)\n"
    "serve(settings, ['assistant'], on_ready=lambda url: print(url, flush=True))\n"
)


class Load:
    """Clients that send edits until the service goes away, and remember what was acknowledged."""

    def __init__(self, url: str, name: str = "") -> None:
        self.url = url
        self.name = name
        self.acknowledged: set[str] = set()

    async def client(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self.url) as http:
            for turn in range(100_000):
                name = f"{self.name}{number}-{turn}"
                answer = await http.post("/v1/assistant/edits", json=edit(id=name, prompt="x" * 300))
                if answer.status_code == 202:
                    self.acknowledged.add(name)

    async def until_killed(self, process: subprocess.Popen[str], kill_signal: int, acknowledgements: int) -> None:
        clients = [asyncio.create_task(self.client(number)) for number in range(8)]
        while len(self.acknowledged) < acknowledgements:
            await asyncio.sleep(0.01)
        os.kill(process.pid, kill_signal)
        await asyncio.gather(*clients, return_exceptions=True)


def run_until(home: Path, kill_signal: int, acknowledgements: int) -> set[str]:
    with subprocess.Popen([sys.executable, "-c", PROCESS, str(home)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        load = Load(process.stdout.readline().strip())
        try:
            asyncio.run(load.until_killed(process, kill_signal, acknowledgements))
            assert process.wait(20) == -kill_signal
        finally:
            process.kill()
    return load.acknowledged


@pytest.mark.long
def test_a_killed_service_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged = run_until(tmp_path, signal.SIGKILL, 300)
    root = tmp_path / "landing"
    assert open_segments(root), "the kill came while no segment was open: it proves nothing"
    with SegmentLog(root):
        pass
    assert open_segments(root) == []
    for kind in ("prediction", "feedback"):
        assert acknowledged <= {row["prediction_id"] for row in landed(root, kind)}


def test_a_terminated_service_answers_and_seals_before_it_ends(tmp_path: Path) -> None:
    acknowledged = run_until(tmp_path, signal.SIGTERM, 50)
    root = tmp_path / "landing"
    assert open_segments(root) == []
    assert acknowledged == {row["prediction_id"] for row in landed(root, "feedback")}


async def kill_both(loads: list[Load], processes: list["subprocess.Popen[str]"]) -> None:
    """The second one works on for a while after the first was killed."""
    first, second = zip(loads, processes, strict=True)
    await asyncio.gather(
        first[0].until_killed(first[1], signal.SIGKILL, 60), second[0].until_killed(second[1], signal.SIGKILL, 180)
    )


@pytest.mark.slow
def test_processes_killed_again_and_again_side_by_side_lose_nothing(tmp_path: Path) -> None:
    """Two at a time on one landing zone: each is killed under load while the other works, and both start anew."""
    acknowledged: set[str] = set()
    for turn in range(8):
        with contextlib.ExitStack() as stack:
            processes, loads = [], []
            for number in range(2):
                command = [sys.executable, "-c", PROCESS, str(tmp_path)]
                process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
                stack.callback(process.kill)
                assert process.stdout is not None
                processes.append(process)
                loads.append(Load(process.stdout.readline().strip(), f"{turn}-{number}-"))
            asyncio.run(kill_both(loads, processes))
            acknowledged |= loads[0].acknowledged | loads[1].acknowledged
    root = tmp_path / "landing"
    with SegmentLog(root):
        pass
    assert open_segments(root) == []
    assert len(acknowledged) >= 8 * 240
    for kind in ("prediction", "feedback"):
        rows = [row["prediction_id"] for row in landed(root, kind)]
        assert acknowledged <= set(rows)
        assert len(rows) == len(set(rows)), "nobody sent anything twice"
