"""The deterministic policy's throughput, every check on, and what each check costs.

Claim: at least 50,000 texts of 200 characters a second on two cores.
Data: 1,000,000 texts of 200 characters, cut at running offsets from MLQE-PE (Estonian, Romanian and English sentences),
DeFacto's news articles and RealHumanEval's chats of programmers with code, in equal parts. They are judged as edits of
the text cut one character earlier, so that the fact check has something to compare.
Command: .venv/bin/python -m benchmarks.policy_throughput [--texts 1000000]

The peer is the naive logger's check for three words, one text at a time, in the same run.
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from benchmarks.policy import NAIVE_WORDS, articles, chats
from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS
from flywheel_assets_tests.real_data import real_edits

CHARACTERS = 200
ROWS_AT_ONCE = 65_536


def pieces(texts: int) -> tuple[list[str], list[str]]:
    """Chosen and rejected texts, a third of each data set."""
    sources = [" ".join(edit["prompt"] + " " + edit["final_user_edit"] for edit in real_edits())]
    sources += [" ".join(articles()), " ".join(chats())]
    chosen, rejected = [], []
    for number in range(texts):
        source = sources[number % 3]
        start = 1 + (number * 211) % (len(source) - CHARACTERS - 2)
        chosen.append(source[start : start + CHARACTERS])
        rejected.append(source[start - 1 : start - 1 + CHARACTERS])
    return chosen, rejected


def tables(chosen: list[str], rejected: list[str]) -> Iterator[pa.Table]:
    """The texts as the gate hands them to the policy."""
    for start in range(0, len(chosen), ROWS_AT_ONCE):
        some = chosen[start : start + ROWS_AT_ONCE], rejected[start : start + ROWS_AT_ONCE]
        yield pa.table({"prompt": [""] * len(some[0]), "chosen": some[0], "rejected": some[1]}, schema=TEXTS)


def main() -> None:
    """Time the whole policy on all cores, then each check on one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1_000_000)
    options = parser.parse_args()
    policy = build_default_policy()
    chosen, rejected = pieces(options.texts)
    batches = list(tables(chosen, rejected))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        stopped = sum(map(len, threads.map(policy.audit, batches)))
    taken, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    begin = time.perf_counter()
    naive = sum(bool(NAIVE_WORDS.search(text)) for text in chosen)
    naive_taken = time.perf_counter() - begin
    cores = os.cpu_count() or 1
    print(f"{options.texts:,} texts of {CHARACTERS} characters, {cores} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':28}{'texts/s':>12}{'CPU µs/text':>14}{'stopped':>10}")
    print(f"{'policy, every check':28}{options.texts / taken:12,.0f}{cpu / options.texts * 1e6:14.2f}{stopped:10,}")
    naive_cost = naive_taken / options.texts * 1e6
    print(f"{'three words, one core':28}{1e6 / naive_cost:12,.0f}{naive_cost:14.2f}{naive:10,}")
    rows = sum(map(len, batches[:2]))
    for check in policy.checks:
        begin_cpu = time.process_time()
        found = sum(len(check.judge(batch).verdicts) for batch in batches[:2])
        print(f"  {check.name:26}{'':12}{(time.process_time() - begin_cpu) / rows * 1e6:14.2f}{found:10,}")


if __name__ == "__main__":
    main()
