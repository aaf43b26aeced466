"""Brings texts to one form: normalizes them for comparison, and makes lists of messages readable.

Normalized is composed Unicode, lower case, single spaces, and every script's digits as ASCII ones.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.conversations import PromptParts, split_prompt
from flywheel_assets.curation.arrow import Array, Dictionary, to_mask, values_of, view_bytes
from flywheel_assets.curation.digits import FOREIGN_DIGIT, write_digits
from flywheel_assets.records import PromptFormat

# Every row in which collapsing white space could change anything; most prose has none.
_UNEVEN_SPACE = (
    r"  |^ | $|[\x09-\x0d\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)

# UTF-8: every character below U+0300, the first combining mark, is its own composition (Unicode, NFC_Quick_Check); of
# those the white space that is not ASCII begins with 0xC2.
_FIRST_COMBINING, _LATIN_SPACE = 0xCC, 0xC2


def normalize(texts: Array) -> Array:
    """Bring texts to NFC, lower case, trimmed, every run of white space as one space; nulls stay null.

    Most texts are composed and evenly spaced already, so Python rewrites only those that bytes and RE2 filters found.
    """
    uneven, foreign = _find_suspects(texts)
    few = texts.take(foreign)
    composed = [unicodedata.is_normalized("NFC", text) for text in values_of(few)]
    has_digits = to_mask(pc.match_substring_regex(few, FOREIGN_DIGIT))
    uneven[foreign] |= (
        to_mask(pc.match_substring_regex(few, _UNEVEN_SPACE)) | ~np.array(composed, dtype=bool) | has_digits
    )
    if uneven.any():
        rewritten = [" ".join(unicodedata.normalize("NFC", text).split()) for text in values_of(texts.filter(uneven))]
        places = np.cumsum(uneven) - 1
        for place in places[foreign[has_digits]].tolist():
            rewritten[place] = write_digits(rewritten[place])
        texts = pc.replace_with_mask(texts, pa.array(uneven), pa.array(rewritten, pa.string()))
    return pc.utf8_lower(texts)


def _find_suspects(texts: Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Mark texts whose ASCII white space is uneven; also find rows with characters that RE2 must look at.

    One pass over all bytes: RE2 costs 0.3 µs a text for each expression.
    """
    starts, content = view_bytes(texts)
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    spaces = content == ord(" ")
    odd = (content - np.uint8(9) < 5) | (content - np.uint8(28) < 4)
    odd[:-1] |= spaces[:-1] & spaces[1:]
    uneven = np.zeros(len(texts), dtype=bool)
    uneven[np.searchsorted(starts, np.flatnonzero(odd), side="right") - 1] = True
    uneven[filled] |= spaces[starts[filled]] | spaces[starts[filled + 1] - 1]
    places = np.flatnonzero((content == _LATIN_SPACE) | (content >= _FIRST_COMBINING))
    foreign = np.unique(np.searchsorted(starts, places, side="right") - 1)
    if texts.null_count:
        # The bytes behind a null are whatever a mask left there.
        is_valid = to_mask(texts.is_valid())
        uneven, foreign = uneven & is_valid, foreign[is_valid[foreign]]
    return uneven, foreign


def remove_white_space(text: str) -> str:
    """Return `text` without any white space, in lower case: the part that a cosmetic edit does not change."""
    return "".join(text.split()).lower()


def make_prompts_readable(prompt: Array, prompt_format: Array) -> Array:
    r"""Return the prompts, with every string of a message list on lines of its own.

    In JSON a line break is the two characters `\n`: the `n` would stick to a card number and hide it from a pattern
    that wants a word's beginning. All strings count, also tool arguments; JSON that cannot be read stays as it is.
    """
    in_messages = pc.equal(prompt_format, pa.scalar(PromptFormat.MESSAGES.value))
    rows = np.flatnonzero(in_messages.to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return prompt
    texts = [_read_text(raw) for raw in values_of(prompt.filter(in_messages))]
    return pc.replace_with_mask(prompt, in_messages, pa.array(texts, pa.string()))  # type: ignore[no-any-return]


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


@dataclass(frozen=True)
class PromptColumns:
    """Holds the parts of a column of prompts (see `conversations.PromptParts`)."""

    operator: Dictionary
    """Each distinct text once: the same thousands of words stand in front of every row of a day."""
    said: Array
    """Everything but the operator's text."""
    request: Array
    """The last turn of the user; equal to `said` where there is no context."""
    documents: Dictionary
    """The results of tools; "" in most rows."""


def split_prompts(prompt: Array, prompt_format: Array) -> PromptColumns:
    """Part prompts into operator's text, what was said, and the request; each distinct prompt is decoded once."""
    in_messages = pc.equal(prompt_format, pa.scalar(PromptFormat.MESSAGES.value))
    operator = np.zeros(len(prompt), np.int32)
    documents = operator.copy()
    numbers, numbers_of_documents = {"": 0}, {"": 0}
    rows = np.flatnonzero(to_mask(in_messages))
    if len(rows) == 0:
        empty = _make_dictionary(operator, numbers)
        return PromptColumns(empty, prompt, prompt, empty)
    encoded = prompt.filter(in_messages).dictionary_encode()
    parts = [_split_messages(raw) for raw in values_of(encoded.dictionary)]
    of_row = encoded.indices.to_numpy()
    number_of_parts = np.array([numbers.setdefault(each.operator, len(numbers)) for each in parts], np.int32)
    operator[rows] = number_of_parts[of_row]
    number_of_documents = np.array(
        [numbers_of_documents.setdefault(each.documents, len(numbers_of_documents)) for each in parts], np.int32
    )
    documents[rows] = number_of_documents[of_row]
    said, request = (
        pc.replace_with_mask(prompt, in_messages, pa.array(texts, pa.string()).take(encoded.indices))
        for texts in ([each.conversation for each in parts], [each.request for each in parts])
    )
    found = (_make_dictionary(operator, numbers), _make_dictionary(documents, numbers_of_documents))
    return PromptColumns(found[0], said, request, found[1])


def _split_messages(raw: str) -> PromptParts:
    parts = split_prompt(raw, PromptFormat.MESSAGES)
    # Messages that were stored before roles were checked are read as they are judged: string by string.
    return PromptParts("", "", _read_text(raw)) if parts.request == raw else parts


def _make_dictionary(indices: npt.NDArray[np.int32], numbers: dict[str, int]) -> Dictionary:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(list(numbers), pa.string()))
