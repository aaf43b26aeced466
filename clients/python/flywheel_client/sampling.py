"""Which predictions a sample keeps, decided by a hash of the prediction id: the same answer everywhere and for ever.

The Python client and `flywheel.js` ask the same question of the same id, so that a prediction and all feedback
about it are kept or left out together, and a higher probability only ever adds to a sample.

FNV-1a alone leaves the high bits of short consecutive ids close together; MurmurHash3's finalizer spreads them. Both
are 32-bit integer arithmetic, which JavaScript has as well. Not for secrets: a caller may choose ids that are kept.
"""

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_MASK = 0xFFFFFFFF


def sampling_position(prediction_id: str) -> float:
    """Where the id lies in [0, 1): uniform over ids, 32 bits fine."""
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
    """Whether a sample of that probability holds the prediction."""
    return sampling_position(prediction_id) < probability
