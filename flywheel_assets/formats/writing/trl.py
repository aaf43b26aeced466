"""Writes rows for TRL: preference pairs, prompts with completions, and judged completions.

| trainer | row |
|---|---|
| `DPOTrainer` and kin | `prompt`, `chosen`, `rejected`, `tools` |
| `SFTTrainer` | `prompt`, `completion`, `tools` |
| `KTOTrainer` | `prompt`, `completion`, `label`, `tools` |

`tools` is a text of JSON, which all three trainers parse: as objects, readers would fill every schema with the fields
of all others. The forms are those of <https://huggingface.co/docs/trl/dataset_formats>.
"""

from typing import Any

import msgspec

from flywheel_assets.conversations import Message
from flywheel_assets.formats.writing.examples import Example, Gap, Shape

Row = dict[str, Any]


def write_preference(example: Example, shape: Shape) -> Row:
    """Write a row of two answers."""
    assert example.chosen is not None
    assert example.rejected is not None
    chosen, rejected = shape.write_answer(example.chosen), shape.write_answer(example.rejected)
    return {"prompt": shape.write_prompt(example), "chosen": chosen, "rejected": rejected, **_write_tools(example)}


def write_completion(example: Example, shape: Shape) -> Row:
    """Write a row of one right answer."""
    assert example.chosen is not None
    completion = shape.write_answer(example.chosen)
    return {"prompt": shape.write_prompt(example), "completion": completion, **_write_tools(example)}


def write_judgements(example: Example, shape: Shape) -> list[Row]:
    """Write a row for each answer: `label` is true for the right one."""
    judged = [(example.chosen, True), (example.rejected, False)]
    return [_write_judgement(example, answer, label, shape) for answer, label in judged if answer is not None]


def _write_judgement(example: Example, answer: Message, label: bool, shape: Shape) -> Row:
    completion = shape.write_answer(answer)
    return {"prompt": shape.write_prompt(example), "completion": completion, "label": label, **_write_tools(example)}


def _write_tools(example: Example) -> Row:
    return {"tools": msgspec.json.encode(example.tools).decode()} if example.tools else {}


def find_gap(example: Example) -> Gap | None:
    """Return why a row fits neither the preference nor the completion file; None: it fits one."""
    return Gap.WRONG_ANSWER_ALONE if example.chosen is None else None
