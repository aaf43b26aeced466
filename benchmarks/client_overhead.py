"""What telling capture about one edit costs the product's own thread, with the Python client and with a plain POST.

Claim: one held and ended interaction costs the caller less than 1 ms at the 99th percentile, whether capture answers or
not; a POST in the request's path costs its fsync and more, and fails with capture.
Data: edits of 4 KB of text in one thread, 20,000 with the client and 2,000 with the POST, against the real service in
a process of its own; then the client alone with capture gone. The caller pauses 1 ms every four edits, as requests
come and go.
Command: .venv/bin/python -m benchmarks.client_overhead [--edits 20000]

The peer is httpx with one kept-alive connection, called where the product handles its request. A caller that only
makes the edited text is timed as well: what it loses at the far percentiles is what other processes take.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from flywheel_client import FlywheelClient

PROMPT, OUTPUT = "How do I read the first rows? " * 40, "Like this: rows.head(10). " * 60


@contextmanager
def running_service() -> Iterator[str]:
    """Capture in a process of its own; gives its address."""
    code = (
        "from flywheel_assets.capture.service import serve\n"
        "from flywheel_assets.settings import read_settings\n"
        "serve(read_settings(), ['assistant'], on_ready=lambda url: print(url, flush=True))\n"
    )
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"FLYWHEEL_HOME": home, "FLYWHEEL_CAPTURE_PORT": "0"}
        command = [sys.executable, "-c", code]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.terminate()


def measured(call: Callable[[int], object], edits: int) -> list[float]:
    """Sorted seconds per call."""
    seconds = []
    for number in range(edits):
        begin = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - begin)
        if number % 4 == 0:
            time.sleep(0.001)
    return sorted(seconds)


def shown(name: str, seconds: list[float]) -> None:
    """One line of percentiles."""
    median, p99, p999 = (seconds[int(len(seconds) * share)] * 1e3 for share in (0.5, 0.99, 0.999))
    print(
        f"{name:42} median {median:.3f} ms   p99 {p99:.3f} ms   p99.9 {p999:.3f} ms   most {seconds[-1] * 1e3:.3f} ms"
    )


def with_client(client: FlywheelClient) -> Callable[[int], object]:
    """An interaction that ends with an edit."""

    def interact(number: int) -> None:
        with client.interaction(PROMPT, OUTPUT, user_id="ada") as interaction:
            interaction.edited(f"{OUTPUT}{number}")

    return interact


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--edits", type=int, default=20_000)
    edits = options.parse_args().edits
    logging.disable(logging.WARNING)
    with running_service() as url:
        with FlywheelClient(url, "assistant") as client:
            answered = measured(with_client(client), edits)
        counts = client.counts().delivery
        with httpx.Client(base_url=url) as http:
            body = {"prompt": PROMPT, "original_llm_output": OUTPUT}
            posted = measured(
                lambda number: http.post(
                    "/v1/assistant/edits", json={**body, "final_user_edit": f"{OUTPUT}{number}"}
                ).raise_for_status(),
                edits // 10,
            )
    with FlywheelClient("http://127.0.0.1:1", "assistant") as client:
        unanswered = measured(with_client(client), edits)
        client.close(0.0)
    shown("nothing but the text", measured(lambda number: f"{OUTPUT}{number}", edits))
    shown("client, capture answers", answered)
    shown("client, capture is gone", unanswered)
    shown("peer: POST in the caller's path", posted)
    print(f"accepted {counts.accepted}, dropped {counts.dropped}")
    print(f"the client's median is {posted[len(posted) // 2] / answered[len(answered) // 2]:.0f} × shorter")


if __name__ == "__main__":
    main()
