"""The deterministic check: one RE2 pass over whole columns, then Python for the few rows that it hits."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

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
        findings: dict[int, list[tuple[Pattern, Evidence]]] = {}
        for name in TRAINED_FIELDS:
            column = texts[name].combine_chunks()
            hits = np.flatnonzero(_matches(column, merged))
            if len(hits):
                for row, pattern, evidence in self._find(name, column.take(pa.array(hits))):
                    findings.setdefault(int(hits[row]), []).append((pattern, evidence))
        passed = np.ones(len(texts), dtype=bool)
        passed[list(findings)] = False
        return Judgement(passed, {row: _verdict(found) for row, found in findings.items()})

    def _find(self, name: str, column: pa.Array) -> Iterator[tuple[int, Pattern, Evidence]]:
        for pattern in self.patterns:
            if name not in pattern.fields:
                continue
            for row in np.flatnonzero(_matches(column, pattern.prefilter)).tolist():
                found = 0
                for match in pattern.expression.finditer(column[row].as_py()):
                    if pattern.accepts(match):
                        found += 1
                        start, end = match.span()
                        yield row, pattern, Evidence(pattern.name, pattern.category, pattern.score, name, start, end)
                        if found == MOST_FINDINGS:
                            break


def _matches(column: pa.Array, expression: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.fill_null(
        pc.match_substring_regex(column, expression), False
    ).to_numpy(zero_copy_only=False)
    return mask


def _verdict(found: list[tuple[Pattern, Evidence]]) -> Verdict:
    gravest = max((pattern for pattern, _ in found), key=lambda pattern: SEVERITY[pattern.action])
    places = sorted({f"{evidence.check} in {evidence.field}" for pattern, evidence in found})
    return Verdict(gravest.action, gravest.reason, ", ".join(places), tuple(evidence for _, evidence in found))
