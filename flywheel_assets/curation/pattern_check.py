"""The deterministic check: one RE2 pass over whole columns, then Python for the few rows that it hits."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.patterns import TRAINED_FIELDS, Pattern
from flywheel_assets.curation.verdicts import SEVERITY, Evidence, Judgement, Verdict

MOST_FINDINGS = 5
"""Evidence kept per pattern and field: enough to review by, however many addresses a text lists."""


@dataclass(frozen=True)
class PatternCheck:
    """Finds patterns in the fields they are meant for; the gravest pattern found decides the row's action and reason.

    The filters of all patterns are merged into one RE2 expression, so that a row without any costs one pass over its
    bytes (measured: 45 patterns take 0.044 s for 21 MB, one of them alone 0.035 s). Rows that it hits are filtered by
    each pattern's own expression, and only then does Python look for the exact span.
    """

    name: str
    patterns: tuple[Pattern, ...]
    version: str = field(init=False)

    def __post_init__(self) -> None:
        identity = json.dumps([pattern.identity() for pattern in self.patterns])
        object.__setattr__(self, "version", hashlib.sha256(identity.encode()).hexdigest()[:12])

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; all rows are answered."""
        merged = "|".join(f"(?:{pattern.prefilter})" for pattern in self.patterns)
        hits = [_hits(name, texts[name].combine_chunks(), merged) for name in TRAINED_FIELDS]
        findings: dict[int, list[tuple[Pattern, Evidence]]] = {}
        for row, pattern, evidence in self._find(pa.concat_tables(hits)):
            findings.setdefault(row, []).append((pattern, evidence))
        passed = np.ones(len(texts), dtype=bool)
        passed[list(findings)] = False
        return Judgement(passed, {row: _verdict(found) for row, found in findings.items()})

    def _find(self, hits: pa.Table) -> Iterator[tuple[int, Pattern, Evidence]]:
        rows, fields, texts = hits["row"].to_pylist(), hits["field"].to_pylist(), hits["text"].combine_chunks()
        for pattern in self.patterns if rows else ():
            for number in np.flatnonzero(_matches(texts, pattern.prefilter)).tolist():
                if fields[number] in pattern.fields:
                    for start, end in _spans(pattern, texts[number].as_py()):
                        found = Evidence(pattern.name, pattern.category, pattern.score, fields[number], start, end)
                        yield rows[number], pattern, found


def _hits(name: str, column: pa.Array, expression: str) -> pa.Table:
    numbers = np.flatnonzero(_matches(column, expression))
    text = column.take(pa.array(numbers))
    return pa.table({"row": numbers, "field": pa.nulls(len(numbers), pa.string()).fill_null(name), "text": text})


def _spans(pattern: Pattern, text: str) -> list[tuple[int, int]]:
    accepted = (match.span() for match in pattern.expression.finditer(text) if pattern.accepts(match))
    return list(islice(accepted, MOST_FINDINGS))


def _matches(column: pa.Array, expression: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.fill_null(
        pc.match_substring_regex(column, expression), False
    ).to_numpy(zero_copy_only=False)
    return mask


def _verdict(found: list[tuple[Pattern, Evidence]]) -> Verdict:
    gravest = max((pattern for pattern, _ in found), key=lambda pattern: SEVERITY[pattern.action])
    places = sorted({f"{evidence.check} in {evidence.field}" for pattern, evidence in found})
    return Verdict(gravest.action, gravest.reason, ", ".join(places), tuple(evidence for _, evidence in found))
