"""Assigns users to the model versions that serve at the same time, by a hash of the user's id.

The answer is the same in every process, language and release: `clients/routing_vectors.json` holds examples for other
languages. The first arm is the new model. It takes the positions from 0 up to its share, so a user who has it at 10 %
has it at 50 % and 100 %, and the users who keep the predecessor to the end are those of the highest positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Version = TypeVar("Version")
"""A model version's name; None where an arm is the base model."""

_HEX_DIGITS = 12  # 48 bits, which a float holds exactly in every language
_POSITIONS = float(1 << 48)


def routing_position(user_id: str, salt: str) -> float:
    """Map a user to a position in [0, 1): uniform over users, and independent between salts.

    It is the first 48 bits of SHA-256 over `salt`, a colon and `user_id` in UTF-8. A surrogate without its partner
    counts as U+FFFD, as in JavaScript's `TextEncoder`.
    """
    import hashlib  # it loads OpenSSL, which a process that routes no user need not wait for

    text = f"{salt}:{user_id}".encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return int(hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS], 16) / _POSITIONS


def assign(user_id: str, arms: Sequence[tuple[Version, float]], salt: str) -> Version:
    """Return the model version that serves a user.

    Args:
        user_id: the id that is sent with the user's events; without one, the thread's id keeps a conversation together.
        arms: versions with their shares of the users, the new model first, as the rollout's event lists them. The last
            one takes what the others leave.
        salt: the event's; another one mixes the users again.

    Raises:
        ValueError: no arm, a share below 0, or shares whose sum is not 1.
    """
    total = sum(share for _, share in arms)
    if not arms or min(share for _, share in arms) < 0 or abs(total - 1) > 1e-6:
        raise ValueError(f"arms are {arms!r}; need at least one, with shares from 0 on whose sum is 1")
    position, end = routing_position(user_id, salt), 0.0
    for version, share in arms[:-1]:
        end += share
        if position < end:
            return version
    return arms[-1][0]


def assign_by_event(user_id: str, event: Mapping[str, object]) -> str | None:
    """Return the gold version that serves a user, from the last event of the promotion hook; None: the base model."""
    traffic = event["traffic"]
    if not isinstance(traffic, Mapping):
        raise ValueError(f"traffic is {traffic!r}; need the object with salt and arms that the promotion hook sends")
    arms: list[tuple[str | None, float]] = [(arm["gold_version"], arm["share"]) for arm in traffic["arms"]]
    return assign(user_id, arms, traffic["salt"])
