"""Importing files against the script that a team would write instead, and against only reading the file with pandas.

Claim: importing lands rows at least 10 × as fast as a script that sends each by itself, in memory that does not grow
with the file and is less than pandas needs to read it. A script that sends 100 at a time is about as fast (0.75 to
1.25 × in small runs on a shared machine, 2026-11-28, without the service's CPU).
Data: comparisons of 1.6 KB in the shape of HH-RLHF (`--shape hh`) or in our own fields, as JSON lines; and a CSV of
edits of 400 bytes, in our own columns or, with `--map`, in a team's. Both are generated with a seed.
Command: python -m benchmarks.import_files [--comparisons 160000] [--rows 1000000] [--single 2000] [--batched 50000]

Each way is a process of its own, so that its CPU time and its peak memory are its own. The POSTs go to the real capture
service, in another process, through one kept-alive connection of httpx; its CPU time is not counted for the script, and
only a part of the file is sent (`--single`, `--batched`), because one by one it would take an hour. What is landed is
fsynced in both. The ratio to name is that of CPU seconds per row where other work shares the machine.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

SENTENCE = "which customer of the table bought most: read a first row and answer why it is not there please"
WORDS = SENTENCE.split()
TEAM_COLUMNS = ("question", "draft", "answer_sent", "agent")
OUR_COLUMNS = ("prompt", "original_llm_output", "final_user_edit", "user_id")


@dataclass(frozen=True)
class Measured:
    """What one way took: rows, seconds on the clock and of CPU, peak resident memory."""

    way: str
    rows: int
    wall_s: float
    cpu_s: float
    peak_bytes: int

    def __str__(self) -> str:
        """One line of the table."""
        return (
            f"{self.way:<28} {self.rows:>9,} rows {self.rows / self.wall_s:>9,.0f}/s "
            f"{self.cpu_s / self.rows * 1e6:>8.1f} µs CPU/row {self.peak_bytes / 2**20:>7,.0f} MiB"
        )


# The data ------------------------------------------------------------------------------------------------------------


def write_comparisons(path: Path, count: int, shape: str) -> None:
    """Write comparisons as JSON lines."""
    drawn = random.Random(14)

    def draw(words: int) -> str:
        return " ".join(drawn.choices(WORDS, k=words))

    with open(path, "w") as file:
        for _ in range(count):
            prompt, chosen, rejected = draw(80), draw(90), draw(90)
            if shape == "hh":
                told = f"\n\nHuman: {prompt}\n\nAssistant: "
                record = {"chosen": told + chosen, "rejected": told + rejected}
            else:
                record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            file.write(json.dumps(record) + "\n")


def write_table(path: Path, count: int, columns: tuple[str, ...]) -> None:
    """Write edits as CSV."""
    drawn = random.Random(15)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(count):
            question, draft = (" ".join(drawn.choices(WORDS, k=words)) for words in (15, 30))
            writer.writerow([f"{question}, {number}?", draft, f"{draft}, and\nthanks", f"agent-{number % 500}"])


# The ways, each in a process of its own ------------------------------------------------------------------------------


def import_with_flywheel(path: Path, mapping: str | None) -> int:
    """`flywheel import`, without its start."""
    from flywheel_assets.capture.importing.files import ImportPlan, import_files
    from flywheel_assets.capture.importing.sinks import LogSink
    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.formats.reading.sources import find_sources

    read = None
    if mapping:
        from flywheel_assets.formats.mapping import read_mapping

        read = read_mapping([mapping])
    with tempfile.TemporaryDirectory(dir=path.parent) as landing, SegmentLog(Path(landing)) as event_log:
        plan = ImportPlan(application="assistant", mapping=read)
        report = import_files(find_sources([path]).sources, plan, LogSink(event_log, "assistant"))
    assert report.exit_code == 0, report
    return report.accepted


def read_with_pandas(path: Path) -> int:
    """`pandas.read_csv` or `read_json`, which lands nothing."""
    import pandas as pd

    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_json(path, lines=True)
    return len(frame)


def read_line_by_line(path: Path) -> int:
    """`json.loads` of each line, or the rows of `csv.DictReader`, which lands nothing."""
    return sum(1 for _ in read_records(path))


def post(path: Path, url: str, size: int, count: int) -> int:
    """The script: read line by line, POST so many at a time."""
    import httpx

    sent = 0
    with httpx.Client(timeout=60) as client:
        records = (build_event(number, record) for number, record in enumerate(islice(read_records(path), count)))
        while batch := list(islice(records, size)):
            answer = client.post(
                f"{url}/v1/assistant/events",
                content=json.dumps(batch),
                headers={"content-type": "application/cloudevents-batch+json"},
            )
            answer.raise_for_status()
            sent += len(batch)
    return sent


def read_records(path: Path) -> Iterator[dict[str, str]]:
    """The records as Python's own modules read them."""
    with open(path, newline="") as file:
        yield from csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)


def build_event(number: int, record: dict[str, str]) -> dict[str, object]:
    """The CloudEvent that a script would make of a record."""
    if "chosen" in record:
        prompt = record.get("prompt", record["chosen"].partition("\n\nAssistant: ")[0])
        data = {"signal": "choice", "final_text": record["chosen"], "original_output": record["rejected"]}
    else:
        prompt, original, final, _ = record.values()
        data = {"signal": "edit", "final_text": final, "original_output": original}
    envelope = {"specversion": "1.0", "id": str(number), "source": "script", "type": "flywheel.feedback"}
    return {**envelope, "data": {**data, "prompt": prompt, "prediction_id": str(number)}}


@contextmanager
def running_service() -> Iterator[str]:
    """Capture in a process of its own; gives its address."""
    code = (
        "from flywheel_assets.capture.service import serve\n"
        "from flywheel_assets.settings import Settings\n"
        "import sys, pathlib\n"
        "settings = Settings(home=pathlib.Path(sys.argv[1]), capture_port=0, capture_events_per_s=1e9)\n"
        "serve(settings, ['assistant'], on_ready=lambda url: print(url, flush=True))\n"
    )
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", code, home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.terminate()


def measure(way: str, *arguments: str) -> Measured:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.import_files", "--way", way, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if run.returncode:
        raise SystemExit(run.stderr)
    return Measured(way, **json.loads(run.stdout.splitlines()[-1]))


def run_way(way: str, options: argparse.Namespace) -> None:
    """Be the process of one way, and print what it took."""
    ways: dict[str, Callable[[], int]] = {
        "flywheel import": lambda: import_with_flywheel(options.file, options.map),
        "pandas, nothing landed": lambda: read_with_pandas(options.file),
        "line by line, nothing landed": lambda: read_line_by_line(options.file),
        "script, POST of 1": lambda: post(options.file, options.url, 1, options.single),
        "script, POST of 100": lambda: post(options.file, options.url, 100, options.batched),
    }
    begin, begin_cpu = time.perf_counter(), time.process_time()
    rows = ways[way]()
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": rows, "wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": peak_bytes}))


def compare(file: Path, url: str, options: argparse.Namespace, mapping: str | None) -> None:
    """Print the table of one file."""
    print(f"\n{file.name}, {file.stat().st_size / 2**20:,.0f} MiB")
    shared = ["--file", str(file), "--url", url, "--single", str(options.single), "--batched", str(options.batched)]
    ours = measure("flywheel import", *shared, *(["--map", mapping] if mapping else []))
    print(ours)
    for way in ("pandas, nothing landed", "line by line, nothing landed", "script, POST of 100", "script, POST of 1"):
        peer = measure(way, *shared)
        ratio = (peer.wall_s / peer.rows) / (ours.wall_s / ours.rows)
        print(f"{peer}   {ratio:.2f} × our time per row")


def main() -> None:
    """Make the files, and let each way take its turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=160_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--single", type=int, default=2_000, help="records that are sent one by one")
    parser.add_argument("--batched", type=int, default=50_000, help="records that are sent in batches of 100")
    parser.add_argument("--shape", choices=["hh", "own"], default="hh")
    parser.add_argument("--map", help="for the CSV, whose columns are then question, draft, answer_sent and agent")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_way(options.way, options)
        return
    with tempfile.TemporaryDirectory() as folder, running_service() as url:
        comparisons, table = Path(folder, "comparisons.jsonl"), Path(folder, "edits.csv")
        write_comparisons(comparisons, options.comparisons, options.shape)
        compare(comparisons, url, options, None)
        write_table(table, options.rows, TEAM_COLUMNS if options.map else OUR_COLUMNS)
        compare(table, url, options, options.map)


if __name__ == "__main__":
    main()
