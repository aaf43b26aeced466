"""Near duplicates: throughput, recall and false positives, planted and on labelled records.

Claim: rows that share at least 0.85 of their word pairs *and all anchors* are found at least 99 times in 100, rows
below 0.7 never; tracing and clustering whole columns costs less CPU than rensa used as its manual shows, text by text.
Data: 100,000 texts of about 1.1 KB made of MLQE-PE's sentences, 10 % of them copies with every 60th word replaced;
DBLP-ACM (2,473 labelled pairs of bibliographic records), of which only those that are textually near can be found.
Command: .venv/bin/python -m benchmarks.near_duplicates [--texts 100000]
"""

import argparse
import os
import random
import re
import time
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rensa import RMinHash, RMinHashLSH

from flywheel_assets.curation.likeness.duplicates import SIMILARITY, Likeness, find_clusters
from flywheel_assets.curation.likeness.traces import compute_traces
from flywheel_assets_tests.real_data import REAL_DATA, real_edits

PLANTED_SHARE = 0.1
CHARACTERS = 1_100


def word_pairs(text: str) -> set[tuple[str, str]]:
    """What two texts are compared by."""
    return set(pairwise(re.findall(r"\w+", text.lower())))


def jaccard(one: str, other: str) -> float:
    """The exact similarity that the signatures estimate."""
    first, second = word_pairs(one), word_pairs(other)
    return len(first & second) / max(1, len(first | second))


def cluster(texts: list[str]) -> tuple[npt.NDArray[np.int64], list[str | None], float, float]:
    """Clusters, and the CPU seconds that tracing (hashes, signatures, anchors) and clustering took."""
    column, empty = pa.array(texts), pa.array([""] * len(texts))
    begin = time.process_time()
    traces = compute_traces(empty, empty, empty.dictionary_encode(), column, pa.nulls(len(texts), pa.string()))
    middle = time.process_time()
    labels = find_clusters(Likeness.read(pa.table(traces)), np.zeros(len(texts), np.int64), np.arange(len(texts)))
    return labels, traces["anchors"].to_pylist(), middle - begin, time.process_time() - middle


def by_the_manual(texts: list[str]) -> float:
    """CPU seconds of rensa's own classes, one text at a time, with the same words."""
    begin = time.process_time()
    index = RMinHashLSH(threshold=SIMILARITY, num_perm=128, num_bands=16)
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update([f"{one} {two}" for one, two in pairwise(words)])
        index.query(sketch)
        index.insert(number, sketch)
    return time.process_time() - begin


def planted(size: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts, and which of them are copies of which."""
    rng = random.Random(0)
    sentences = [edit["final_user_edit"] for edit in real_edits()]
    originals = []
    for _ in range(int(size * (1 - PLANTED_SHARE))):
        text = ""
        while len(text) < CHARACTERS:
            text += rng.choice(sentences) + " "
        originals.append(text)
    pairs = []
    for number in range(size - len(originals)):
        words = originals[number].split()
        for place in rng.sample(range(len(words)), max(1, len(words) // 60)):
            words[place] = rng.choice(sentences).split()[0]
        pairs.append((number, len(originals)))
        originals.append(" ".join(words))
    return originals, pairs


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=100_000)
    options = parser.parse_args()
    texts, pairs = planted(options.texts)
    labels, anchors, signing, clustering = cluster(texts)
    sample = texts[: max(1_000, options.texts // 10)]
    manual = by_the_manual(sample) / len(sample)
    length = np.mean([len(text) for text in texts])
    print(f"{len(texts):,} texts of {length:,.0f} characters, load {os.getloadavg()[0]:.1f}; texts per CPU second:")
    print(f"  tracing {len(texts) / signing:,.0f}, clustering {len(texts) / clustering:,.0f}, both ", end="")
    print(f"{len(texts) / (signing + clustering):,.0f}; rensa by its manual {1 / manual:,.0f}")
    similar = [jaccard(texts[one], texts[other]) for one, other in pairs]
    found = [labels[one] == labels[other] for one, other in pairs]
    agreeing = [anchors[one] == anchors[other] for one, other in pairs]
    print(f"  {sum(not agrees for agrees in agreeing):,} copies have other anchors and must not be found")
    for low in (0.8, 0.85, 0.9):
        near = [hit for hit, value, agrees in zip(found, similar, agreeing, strict=True) if value >= low and agrees]
        share = f"{sum(near):,} of {len(near):,} found ({np.mean(near):.2%})"
        print(f"  planted copies with Jaccard ≥ {low} and equal anchors: {share}")
    merged = len(texts) - len(np.unique(labels))
    print(f"  rows merged that nobody planted: {merged - sum(found):,}")

    rows = [line.rstrip("\n").split("\t") for line in (REAL_DATA / "dblp_acm" / "valid.txt").read_text().splitlines()]
    records = [[re.sub(r"\b(?:COL|VAL) ?\w*", lambda match: "", side) for side in row[:2]] for row in rows]
    flat = [side for record in records for side in record]
    labels, *_ = cluster(flat)
    same = labels[0::2] == labels[1::2]
    is_match = np.array([row[2] == "1" for row in rows])
    values = np.array([jaccard(*record) for record in records])
    print(f"dblp_acm, {len(rows):,} labelled pairs, {is_match.sum():,} of them the same publication")
    print("  Jaccard     same, of those found   different, of those merged")
    for low, high in ((0.9, 1.0), (0.8, 0.9), (0.7, 0.8), (0.0, 0.7)):
        within = (values >= low) & ((values < high) | (high == 1.0))
        counts = [int((within & which).sum()) for which in (is_match, is_match & same, ~is_match, ~is_match & same)]
        print("  {:.1f} to {:.1f} {:7} {:14} {:11} {:16}".format(low, high, *counts))


if __name__ == "__main__":
    main()
