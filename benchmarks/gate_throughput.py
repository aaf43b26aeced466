"""The gate's throughput on real post-edits, against a plain logger in the same run.

Claim: the edit-distance step costs half the plain logger's CPU, with the seeds' rule a ninth; the whole gate
with every check, near duplicates among them, costs just under three times the logger's CPU, its output written to disk
once.
Data: MLQE-PE, 16,000 real (source, machine output, human edit) triples, tiled to 200,000 rows; copies after the first
get a number behind each word of their source, because near duplicates would leave the gate early. 13 % of the rows are
unedited.
Command: .venv/bin/python -m benchmarks.gate_throughput [--rows 200000] [--repeats 5]

The plain logger is what one writes in an afternoon: per pair `Levenshtein.distance`, a check for three words, one file
append (open, write, close) of a JSON line. Because an open handle is an obvious improvement, that is shown as well, and
so is its bare distance loop. Each number is the best of `--repeats`; peers alternate, so that other load hits all.
CPU time per row is shown because a busy machine takes the second core, and with it the gate's threads, away first.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.texts._edits import EditBands, classify_edits
from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.records import JOINED_FEEDBACK, make_stable_id
from flywheel_assets_tests.builders import make_joined
from flywheel_assets_tests.real_data import real_edits

WORDS = ("hack", "bypass", "exploit")
Edit = tuple[str, str, str]


def tiled(edits: list[Edit], rows: int) -> list[Edit]:
    """`rows` edits; every copy of the data after the first has a number behind each word of its source."""
    result: list[Edit] = []
    copy = 0
    while len(result) < rows:
        # Each word: with a number behind the whole text, nearly all copies would leave the gate as near duplicates.
        mark = f"x{copy} " if copy else " "
        result += [(mark.join(source.split()) + mark.rstrip(), output, final) for source, output, final in edits]
        copy += 1
    return result[:rows]


def as_joined(edits: list[Edit]) -> pa.Table:
    """The edits as one day's joined feedback, each by a user and for a prediction of its own."""
    template = make_joined()
    columns = {field.name: pa.array([template[field.name]] * len(edits), field.type) for field in JOINED_FEEDBACK}
    numbers = range(len(edits))
    columns["feedback_event_id"] = pa.array([make_stable_id(number) for number in numbers])
    columns["prediction_id"] = pa.array([f"prediction-{number}" for number in numbers])
    columns["subject"] = columns["user_id"] = pa.array([f"user-{number}" for number in numbers])
    for position, name in enumerate(("prompt", "output", "final_text")):
        columns[name] = pa.array([edit[position] for edit in edits])
    return pa.table(columns, schema=JOINED_FEEDBACK)


def log_plainly(edits: list[Edit], log: Path) -> None:
    """Distance, three words, one append per pair."""
    for prompt, output, final in edits:
        if Levenshtein.distance(output, final) and not any(word in final for word in WORDS):
            with open(log, "a") as file:
                file.write(json.dumps({"prompt": prompt, "chosen": final, "rejected": output}) + "\n")


def log_to_open_file(edits: list[Edit], log: Path) -> None:
    """The same with one handle, buffered: faster, and everything since the last flush is lost in a crash."""
    with open(log, "a") as file:
        for prompt, output, final in edits:
            if Levenshtein.distance(output, final) and not any(word in final for word in WORDS):
                file.write(json.dumps({"prompt": prompt, "chosen": final, "rejected": output}) + "\n")


def loop_distances(edits: list[Edit]) -> None:
    """The plain logger's distance calls alone."""
    for _, output, final in edits:
        Levenshtein.distance(output, final)


def gate_to_file(joined: pa.Table, file: Path) -> tuple[int, dict[str, int]]:
    """The whole gate: checks, ids, hashes, duplicates, kept and refused tables, and the kept pairs as JSON lines."""
    curated = curate(joined, "assistant", GateRules())
    kept = curated.kept.select(["prompt", "chosen", "rejected"])
    duckdb.from_arrow(kept).query("kept", f"COPY kept TO '{file}' (FORMAT json)")
    return curated.kept.num_rows, curated.counts


def main() -> None:
    """Run all peers and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    texts = [(edit["prompt"], edit["original_llm_output"], edit["final_user_edit"]) for edit in real_edits()]
    edits = tiled(texts, options.rows)
    joined = as_joined(edits)
    requests = joined["prompt"].to_pylist()
    outputs, finals = joined["output"].combine_chunks(), joined["final_text"].combine_chunks()
    output_list, final_list = outputs.to_pylist(), finals.to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder, "log.jsonl"), Path(folder, "gold.jsonl")
        peers: dict[str, Callable[[], object]] = {
            "plain logger, one append per pair": lambda: log_plainly(edits, log),
            "plain logger, one open handle": lambda: log_to_open_file(edits, log),
            "its distance loop alone": lambda: loop_distances(edits),
            "rapidfuzz on the whole column, lists given": lambda: process.cpdist(
                output_list, final_list, scorer=Levenshtein.normalized_similarity, workers=-1
            ),
            "edit-distance step, rule seed": lambda: classify_edits(outputs, finals, EditBands(), "seed"),
            "edit-distance step, rule local": lambda: classify_edits(outputs, finals, EditBands(), "local", requests),
            "whole gate, every check, kept rows to JSONL": lambda: gate_to_file(joined, out),
        }
        wall = dict.fromkeys(peers, float("inf"))
        processor = dict.fromkeys(peers, float("inf"))
        for _ in range(options.repeats):
            for name, run in peers.items():
                log.unlink(missing_ok=True)
                begin, begin_processor = time.perf_counter(), time.process_time()
                run()
                wall[name] = min(wall[name], time.perf_counter() - begin)
                processor[name] = min(processor[name], time.process_time() - begin_processor)
        kept, counts = gate_to_file(joined, out)
    logger, _, loop, *_ = wall.values()
    load = os.getloadavg()[0]
    print(f"{options.rows:,} rows, {os.cpu_count()} cores, load {load:.1f}, best of {options.repeats}")
    print(f"kept {kept:,}, refused {counts}")
    print(f"{'':46}{'rows/s':>12}{'× logger':>10}{'× its loop':>12}{'CPU µs/row':>12}")
    for name, taken in wall.items():
        cost = processor[name] / options.rows * 1e6
        print(f"{name:46}{options.rows / taken:12,.0f}{logger / taken:10.2f}{loop / taken:12.2f}{cost:12.2f}")


if __name__ == "__main__":
    main()
