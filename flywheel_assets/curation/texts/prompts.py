"""Turns prompts into readable text, also where the record holds a list of messages."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.records import PromptFormat


def make_prompts_readable(prompt: pa.Array, prompt_format: pa.Array) -> pa.Array:
    r"""Return the prompts, with every string of a message list on lines of its own.

    In JSON a line break is the two characters `\n`: the `n` would stick to a card number and hide it from a pattern
    that wants a word's beginning. All strings count, also tool arguments; JSON that cannot be read stays as it is.
    """
    in_messages = pc.equal(prompt_format, PromptFormat.MESSAGES.value)
    rows = np.flatnonzero(in_messages.to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return prompt
    texts = [_read_text(raw) for raw in prompt.filter(in_messages).to_pylist()]
    return pc.replace_with_mask(prompt, in_messages, pa.array(texts, pa.string()))


def _read_text(raw: str) -> str:
    try:
        return "\n".join(_collect_strings(msgspec.json.decode(raw)))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return raw


def _collect_strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _collect_strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _collect_strings(item)]
    return []
