"""Two ways to do the same, each in a process of its own: time, CPU time and peak memory, and the ratios."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def compare(root: Path, ours: Callable[[Path], int], peer: Callable[[Path], int], what: str) -> None:
    """Run both in processes of their own and print time, peak memory and ratios; both say how many rows they kept."""
    ratios = [theirs / mine for mine, theirs in zip(alone(root, ours, what), alone(root, peer, what), strict=True)]
    print("pandas / ours: {:.2f} × wall, {:.2f} × CPU, {:.2f} × memory".format(*ratios))


def alone(root: Path, run: Callable[[Path], int], what: str) -> tuple[float, float, float]:
    """Run in a process of its own; prints and returns wall seconds, CPU seconds and peak GiB."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measure, args=(run, root, answer))
    process.start()
    wall, cpu, peak, rows = answer.get()
    process.join()
    print(f"{run.__name__:>15}: {wall:6.1f} s, {cpu:6.1f} s CPU, {peak:5.2f} GiB peak, {rows:,} {what}", flush=True)
    return wall, cpu, peak


def _measure(
    run: Callable[[Path], int], root: Path, answer: "multiprocessing.Queue[tuple[float, float, float, int]]"
) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    rows = run(root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer.put((time.perf_counter() - started, time.process_time() - cpu, peak, rows))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what a step took."""
    started, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"    {what:<20} {time.perf_counter() - started:6.1f} s wall, {time.process_time() - cpu:6.1f} s CPU, "
        f"peak so far {peak:.2f} GiB",
        flush=True,
    )
