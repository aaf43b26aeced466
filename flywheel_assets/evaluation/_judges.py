"""Says which adapter of each model writes for which held-out row.

A model is one adapter, or, of a cross-fitted version, one for each fold: it writes for the users of its fold, whom it
has not seen. Needs no model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.texts.resolution import find_folds
from flywheel_assets.errors import ManifestMismatchError
from flywheel_assets.evaluation.canary import Phrases
from flywheel_assets.evaluation.requests import EvaluationRequest, Scored
from flywheel_assets.lake.versions.exports import count_folds, read_manifest


@dataclass(frozen=True)
class Judges:
    """The digests of each model's adapters: one, or one for each fold in the order of the folds."""

    digests: Mapping[Scored, Sequence[str]]
    folders: Mapping[str, str]
    """Of the adapters, by digest: equal weights are loaded and scored once."""

    def find_folds(self) -> int | None:
        """Return the number of the challenger's folds; None: one adapter is judged."""
        return len(self.digests[Scored.CHALLENGER]) if Scored.DEPLOYED in self.digests else None


@dataclass(frozen=True)
class Part:
    """Rows for which each model has the same adapter throughout."""

    digests: Mapping[Scored, str]
    places: Sequence[int]


def find_judges(request: EvaluationRequest, hash_adapter: Callable[[Path], str]) -> Judges:
    """Find the adapters of every model but the base, and hash their weights.

    Raises:
        ManifestMismatchError: a cross-fitted version is to be judged without the adapters of its folds.
    """
    deployed = {Scored.SFT: request.sft_adapter, Scored.CHALLENGER: request.challenger_adapter}
    if request.champion_adapter is not None:
        deployed[Scored.CHAMPION] = request.champion_adapter
    if request.anchor_adapter is not None:
        deployed[Scored.ANCHOR] = request.anchor_adapter
    places = {
        Scored.SFT: (request.challenger_folds, request.export_dir, "sft_adapter"),
        Scored.CHALLENGER: (request.challenger_folds, request.export_dir, "adapter"),
        Scored.CHAMPION: (request.champion_folds, request.champion_export_dir, "adapter"),
        Scored.ANCHOR: (request.anchor_folds, request.anchor_export_dir, "adapter"),
    }
    folders = {model: _list_folders(folder, *places[model]) for model, folder in deployed.items()}
    if request.challenger_folds is not None:
        folders[Scored.DEPLOYED] = [request.challenger_adapter]
    hashed = {folder: hash_adapter(Path(folder)) for each in folders.values() for folder in each}
    return Judges(
        {model: [hashed[folder] for folder in each] for model, each in folders.items()},
        {digest: folder for folder, digest in hashed.items()},
    )


def _list_folders(deployed: str, folds_dir: str | None, export_dir: str | None, name: str) -> list[str]:
    folds = count_folds(read_manifest(Path(export_dir))) if export_dir is not None else None
    if (folds is None) != (folds_dir is None):
        raise ManifestMismatchError(
            f"{export_dir} is {'not ' if folds is None else ''}cross-fitted, and its folds' adapters were "
            f"{'given' if folds is None else 'not given'}: its own adapter would be judged by users it has learnt from"
        )
    if folds is None or folds_dir is None:
        return [deployed]
    return [str(Path(folds_dir) / f"fold_{fold}" / name) for fold in range(1, folds + 1)]


def part_rows(judges: Judges, subjects: Sequence[str]) -> list[Part]:
    """Part rows, given by their subjects, so that in each part every model has one adapter; places ascend."""
    columns = {
        model: np.array(digests)[_find_places(subjects, len(digests))] for model, digests in judges.digests.items()
    }
    parts: dict[tuple[str, ...], list[int]] = {}
    for place, key in enumerate(zip(*(column.tolist() for column in columns.values()), strict=True)):
        parts.setdefault(key, []).append(place)
    return [Part(dict(zip(columns, key, strict=True)), places) for key, places in parts.items()]


def _find_places(subjects: Sequence[str], adapters: int) -> npt.NDArray[np.int64]:
    return np.zeros(len(subjects), np.int64) if adapters == 1 else find_folds(subjects, adapters) - 1


def join_tables(parts: Sequence[Part], tables: Sequence[pa.Table]) -> pa.Table:
    """Join the scored rows of all parts in the order of the rows."""
    if len(tables) == 1:
        return tables[0]
    order = np.argsort(np.concatenate([part.places for part in parts]), kind="stable")
    return pa.concat_tables(tables).take(order)


def join_phrases(parts: Sequence[Part], phrases: Sequence[Phrases]) -> Phrases:
    """Join the phrases of all parts, whose rows are counted from each part's first."""
    low = np.uint64(0xFFFFFFFF)
    found = [
        (np.array(part.places, np.uint64)[(each >> np.uint64(32)).astype(np.int64)] << np.uint64(32)) | (each & low)
        for part, each in zip(parts, phrases, strict=True)
    ]
    return np.sort(np.concatenate(found))
