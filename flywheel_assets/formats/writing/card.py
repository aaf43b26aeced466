"""Writes the dataset card of a folder that `datasets.load_dataset` reads: README.md with a YAML header.

The header's `configs` say which file is which split, so that nothing is guessed from names. Strings of the header are
JSON, which YAML contains.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NOT_STATED = "other"
"""The licence of a card where the team gives none."""


@dataclass(frozen=True)
class CardFile:
    """Describes one data file."""

    name: str
    """Its path in the folder."""
    config: str
    split: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """Holds what a card says about a version."""

    title: str
    license: str
    """An identifier of the Hugging Face hub, as `cc-by-4.0`, or `other`."""
    files: Sequence[CardFile]
    provenance: Mapping[str, str]
    left_out: Mapping[str, int]
    """Rows of gold that the version does not hold, by reason code."""
    not_expressed: Mapping[str, int]
    """Rows of the version that the files do not hold, by reason."""


def write_card(card: Card) -> str:
    """Write the page."""
    parts = [
        "---",
        *_write_header(card),
        "---",
        "",
        f"# {card.title}",
        "",
        "Made from the feedback of people who used a deployed model, by flywheel_assets.",
        "",
        f"Licence: {_describe_license(card.license)}",
        "",
        "| configuration | split | rows | file | sha256 |",
        "|---|---|---:|---|---|",
        *(f"| {each.config} | {each.split} | {each.rows} | `{each.name}` | `{each.sha256}` |" for each in card.files),
        "",
        "## Provenance",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {name} | `{value}` |" for name, value in card.provenance.items()),
        "",
        "## Rows that are not here",
        "",
        *_write_counts("Of the gold table, by reason", card.left_out),
        *_write_counts("Of the version, because the format has no place for them", card.not_expressed),
        "An erasure of a person changes the version, and no copy that was made before: export it again after one.",
        "",
    ]
    return "\n".join(parts)


def _write_header(card: Card) -> list[str]:
    configs: dict[str, list[CardFile]] = {}
    for file in card.files:
        configs.setdefault(file.config, []).append(file)
    lines = [f"license: {json.dumps(card.license)}"]
    if card.license == NOT_STATED:
        lines.append('license_name: "not stated"')
    lines += [f"pretty_name: {json.dumps(card.title)}", "tags:", "- flywheel_assets"]
    if configs:
        lines.append("configs:")
    for number, (config, files) in enumerate(configs.items()):
        lines += [
            f"- config_name: {json.dumps(config)}",
            *(["  default: true"] if number == 0 else []),
            "  data_files:",
        ]
        for file in files:
            lines += [f"  - split: {json.dumps(file.split)}", f"    path: {json.dumps(file.name)}"]
    return lines


def _describe_license(name: str) -> str:
    if name == NOT_STATED:
        return "not stated. The owner of the data decides; `flywheel gold export … --license` writes it here."
    return f"`{name}`, as the person who exported it stated."


def _write_counts(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [f"{title}: none.", ""]
    rows = (f"| `{reason}` | {number} |" for reason, number in sorted(counts.items()))
    return [f"{title}:", "", "| reason | rows |", "|---|---:|", *rows, ""]
