"""The record of a promotion decision; with it a gold version is finished."""

from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.storage.files import write_once


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about the model of one gold version, and on what grounds."""

    version: str
    promoted: bool
    sentence: str
    """One sentence why or why not, with the numbers."""
    champion_before: str | None
    """Gold version of the champion it was scored against; None: the base model."""
    checks: list[dict[str, Any]]
    announced: list[str] = []
    """What the serving side was told."""


def record_promotion(path: Path, promotion: Promotion) -> Promotion:
    """Write the decision once; returns the one that holds."""
    write_once(path, msgspec.json.format(msgspec.json.encode(promotion)))
    return read_promotion(path)


def read_promotion(path: Path) -> Promotion:
    """Read a decision.

    Raises:
        UnknownNameError: nothing was decided yet.
    """
    if not path.exists():
        raise UnknownNameError("promotion decision", str(path), [], "Materialize promotion for this version first.")
    return msgspec.json.decode(path.read_bytes(), type=Promotion)
