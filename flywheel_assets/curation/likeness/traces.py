"""Computes what a row leaves behind for resolution, which reads no text: hashes, signatures, anchors, added words.

Everything about some rows is computed while their words are in the processor's cache, and each text's words are
found once.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, as_dictionary, to_mask
from flywheel_assets.curation.likeness._anchors import compute_anchors, write_anchors
from flywheel_assets.curation.likeness.duplicates import hash_texts, sign_words, write_hex, write_signatures
from flywheel_assets.curation.likeness.normalization import normalize
from flywheel_assets.curation.likeness.novelty import (
    MOST_NGRAMS,
    MOST_WORDS,
    KnownTexts,
    find_added_hashes,
    write_added,
)
from flywheel_assets.curation.likeness.words import cut_into_parts, find_words


def compute_traces(request: Array, said: Array, operator: Array, chosen: Array, rejected: Array) -> dict[str, Array]:
    """Compute the columns of gold that stand for a row's texts.

    Args:
        request: the last turn of the user.
        said: the prompt without the operator's text; the request itself where there is no context.
        operator: the operator's text, as a dictionary; added words are not new where it has them.
        chosen: as it is written.
        rejected: the same; null for an accepted output, which adds nothing.

    Returns:
        prompt_hash, content_hash, request_hash, request_signature, signature, anchors, added_ngrams, added_words.
    """
    has_context = ~to_mask(pc.equal(request, said))
    request, plain, output = normalize(request), normalize(chosen), normalize(rejected).fill_null("")
    with_context = np.flatnonzero(has_context)
    whole = normalize(said.take(with_context))
    request_digests = hash_texts(request)
    prompt_digests = list(request_digests)
    for row, digest in zip(with_context.tolist(), hash_texts(whole), strict=True):
        prompt_digests[row] = digest
    # The prompt's digest before the text keeps their border unambiguous.
    prefixes = pa.array(prompt_digests, pa.binary())
    contents = pc.binary_join_element_wise(prefixes, plain.cast(pa.binary()), pa.scalar(b"", pa.binary()))  # type: ignore[call-overload]
    known = KnownTexts(as_dictionary(operator), with_context, whole)
    known_words = replace(known, unit="words")
    signatures: list[npt.NDArray[np.uint8]] = [np.zeros((0, 128), np.uint8)]
    request_signatures = list(signatures)
    anchors = [np.zeros(0, np.uint64)]
    added = [np.zeros(0, np.uint64)]
    added_words = list(added)
    for part in cut_into_parts(plain):
        asked, said_by_model, written = (find_words(each[part]) for each in (request, output, plain))
        signatures.append(sign_words(written))
        request_signatures.append(sign_words(asked))
        anchors.append(compute_anchors(written, chosen[part]))
        is_edit = rejected[part].is_valid().to_numpy(zero_copy_only=False)
        texts = (asked, said_by_model)
        added.append(find_added_hashes(written, texts, is_edit, known, part.start))
        added_words.append(find_added_hashes(written, texts, is_edit, known_words, part.start))
    return {
        "prompt_hash": _write_digests(prompt_digests),
        "content_hash": _write_digests(hash_texts(contents)),
        "request_hash": _write_digests(request_digests),
        "request_signature": write_signatures(np.concatenate(request_signatures), request),
        "signature": write_signatures(np.concatenate(signatures), plain),
        "anchors": write_anchors(np.concatenate(anchors)),
        "added_ngrams": write_added(np.concatenate(added), len(chosen), MOST_NGRAMS),
        "added_words": write_added(np.concatenate(added_words), len(chosen), MOST_WORDS),
    }


def _write_digests(digests: list[bytes]) -> Array:
    return write_hex(b"".join(digests), np.full(len(digests), 16))
