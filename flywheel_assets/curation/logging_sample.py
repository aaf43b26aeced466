"""Decides by a hash of the prediction id whether a sample keeps a prediction.

The answer is the same everywhere and for ever. The Python client, `flywheel.js` and the maintenance that trims the lake
use the same hash of the same id, so that a prediction and all feedback about it are kept or left out together, and a
higher probability only ever adds to a sample.

FNV-1a alone leaves the high bits of short consecutive ids close together; MurmurHash3's finalizer spreads them. Both
are 32-bit integer arithmetic, which JavaScript has as well. Not for secrets: a sender who chooses an id chooses the
answer.
"""

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_MASK = 0xFFFFFFFF


def compute_sampling_position(prediction_id: str) -> float:
    """Map the id to a position in [0, 1): uniform over ids, 32 bits fine."""
    state = _FNV_OFFSET
    for byte in prediction_id.encode("utf-8", "surrogatepass"):
        state = ((state ^ byte) * _FNV_PRIME) & _MASK
    state ^= state >> 16
    state = (state * 0x85EBCA6B) & _MASK
    state ^= state >> 13
    state = (state * 0xC2B2AE35) & _MASK
    state ^= state >> 16
    return state / 2**32


def is_sampled(prediction_id: str, probability: float) -> bool:
    """Return whether a sample of that probability contains the prediction."""
    return compute_sampling_position(prediction_id) < probability
