"""Reads the shapes that pages of formats show, so that tests can run each through its format.

The heading of a section is a format's name, `## hh-rlhf`, or ends with it, "## Langfuse (`--format langfuse`)". It has
blocks of JSON with one record a line, or one record each. A section that `read_shapes` reads has also a line
"Becomes: `choice`, `choice`." that names what the records become, in order.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_assets.formats.format import Event
from flywheel_assets.wire import Choice, Edit, PredictionCloudEvent

_SECTION = re.compile(r"^## (?:[^\n]*`--format )?([a-z0-9-]+)(?:`\))?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shape:
    """Holds the records that a page shows for one format."""

    format: str
    records: Sequence[dict[str, Any]]
    kinds: Sequence[str]
    """What the records become, in order: `edit`, `choice`, `prediction` or the name of a signal."""
    is_named: bool
    """Whether the section has a command that names the format."""


def read_shapes(page: Path) -> list[Shape]:
    """Read every section of a page that shows records."""
    shapes = []
    for name, text in _SECTION.findall(page.read_text()):
        blocks = _BLOCK.findall(text)
        becomes = re.search(r"^Becomes: (.*?)\.$", text, flags=re.MULTILINE | re.DOTALL)
        assert blocks, f"section {name} of {page.name} shows no record"
        assert becomes, f'section {name} of {page.name} has no line "Becomes: …."'
        records = [record for block in blocks for record in _read_block(block)]
        is_named = f"--format {name}" in text
        shapes.append(Shape(name, records, re.findall(r"`([a-z]+)`", becomes[1]), is_named))
    return shapes


def read_records(page: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read every record that a page shows, with the name of its format, which the heading ends with."""
    return [
        (name, record)
        for name, text in _SECTION.findall(page.read_text())
        for block in _BLOCK.findall(text)
        for record in _read_block(block)
    ]


def _read_block(block: str) -> list[dict[str, Any]]:
    """Read one record over several lines, or one record a line."""
    try:
        return [json.loads(block)]
    except ValueError:
        return [json.loads(line) for line in block.splitlines() if line.strip()]


def name_kind(event: Event) -> str:
    """Name what an event is, as pages do."""
    if isinstance(event, Choice):
        return "choice"
    if isinstance(event, Edit):
        return "edit"
    return "prediction" if isinstance(event, PredictionCloudEvent) else str(event.data.signal)
