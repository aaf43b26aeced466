"""Writes and reads the export of one gold version: its files and the manifest that seals them.

    <versions_dir>/<application>/dpo_gold_v<N>/export/          preference: JSON lines
        dpo_gold_v<N>.jsonl              training pairs
        dpo_gold_v<N>.accepted.jsonl     accepted outputs mixed into SFT; rejected is null
        dpo_gold_v<N>.holdout.jsonl      pairs of held-out subjects
        dpo_gold_v<N>.regression.jsonl   held-out subjects' accepted outputs; rejected is null
        dpo_gold_v<N>.demonstrations.jsonl   right answers where no model wrote one; rejected is null
        dpo_gold_v<N>.objections.jsonl   outputs that a reviewer confirmed as wrong; chosen is empty
        dpo_gold_v<N>.untrainable.jsonl  pair_id and reason of rows that the base model's tokenizer refuses, if any
        dpo_gold_v<N>.fold_1.jsonl …     of a cross-fit: all rows that the model of a fold learns from
        manifest.json
    <versions_dir>/<application>/<application>_gold_v<N>/export/   classification: Parquet
        <application>_gold_v<N>.parquet              sampled and weighted training rows
        <application>_gold_v<N>.evaluation.parquet   every matured row of the weeks after them
        manifest.json

A cross-fitted version's training files hold every user, and its held-out files, too: each row there is judged by the
model of its user's fold, whose file has no row of that user.

The folder appears by one rename, so a torn export is never visible under its final name. Readers verify every file
against the manifest before they use a row.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.curation.texts.resolution import find_folds
from flywheel_assets.errors import ManifestMismatchError, UnknownNameError, VersionConflictError
from flywheel_assets.lake.storage.commits import verify_locks
from flywheel_assets.lake.storage.files import decode_file, hash_file, write_folder, write_synced
from flywheel_assets.records import ExampleKind

MANIFEST_FILE = "manifest.json"


class ExportSet(StrEnum):
    """Names the use of the rows of one exported file."""

    TRAIN = "train"
    ACCEPTED = "accepted"
    HOLDOUT = "holdout"
    REGRESSION = "regression"
    EVALUATION = "evaluation"
    EARLIER_1 = "earlier_1"
    EARLIER_2 = "earlier_2"
    EARLIER_3 = "earlier_3"
    EARLIER_4 = "earlier_4"
    EARLIER_5 = "earlier_5"
    """Of a classifier: what was known before the second newest evaluation week, the third, and so on."""
    REFIT = "refit"
    """Of a classifier: what had matured when the version was cut, the evaluation weeks included; the deployed model is
    fitted on it."""
    DEMONSTRATIONS = "demonstrations"
    OBJECTIONS = "objections"
    UNTRAINABLE = "untrainable"
    """Rows that the tokenizer refused, without texts: they count among the dropped, and are never new again."""
    FOLD_1 = "fold_1"
    FOLD_2 = "fold_2"
    FOLD_3 = "fold_3"
    FOLD_4 = "fold_4"
    FOLD_5 = "fold_5"
    FOLD_6 = "fold_6"
    FOLD_7 = "fold_7"
    FOLD_8 = "fold_8"
    FOLD_9 = "fold_9"
    FOLD_10 = "fold_10"
    """Of a cross-fit: what the model of a fold learns from, every kind of row; the fold's users have none there."""


EARLIER = tuple(which for which in ExportSet if which.startswith("earlier_"))
"""The sets of the judged models before the newest, the newest of them first."""
FOLDS = tuple(which for which in ExportSet if which.startswith("fold_"))
"""The sets of a cross-fit's folds, the first of them first."""
LEARNT = (ExportSet.TRAIN, ExportSet.ACCEPTED, ExportSet.DEMONSTRATIONS, ExportSet.OBJECTIONS)
"""The sets that an adapter may learn from."""
HELD_OUT = (ExportSet.HOLDOUT, ExportSet.REGRESSION)
"""The sets that an adapter is judged by."""


class ExportedRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one line of an export; `prompt` is text, or messages as a JSON array where `prompt_format` says so."""

    pair_id: str
    prompt: str
    prompt_format: str
    chosen: str
    rejected: str | None
    subject: str
    similarity: float | None
    prompt_hash: str
    completed_date: str
    model_version: str | None
    admitted_as: str = "preference_pair"
    support_users: int = 1
    """Distinct subjects who sent nearly this row: evidence for people, never a training weight."""
    nearest_training: float | None = None
    """Of a held-out row: similarity, 0.8 to 1, to the nearest prompt that the version trains on; None: none is near."""
    example_kind: str = "preference_pair"
    tools: str | None = None
    """Functions that the model could call, as a JSON array."""
    chosen_message: str | None = None
    """The assistant message as JSON, where `chosen` does not say everything."""
    rejected_message: str | None = None


class UntrainableRow(msgspec.Struct, frozen=True, kw_only=True):
    """Names a row that the base model's tokenizer cannot encode."""

    pair_id: str
    reason: str


class _PairId(msgspec.Struct, gc=False):
    pair_id: str


class _PromptHash(msgspec.Struct, gc=False):
    prompt_hash: str


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one file of an export as its manifest records it."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Revised(msgspec.Struct, frozen=True, kw_only=True):
    """Records that an erasure has rewritten the export of a frozen version."""

    erasure: str
    manifest_sha256_before: str
    snapshot_id_before: int
    rows_removed: dict[ExportSet, int]
    """From each of the exported files."""
    gold_rows_removed: int
    """From the pinned days of the gold table."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a gold version without any user text; equal versions have equal manifests."""

    version: str
    application: str
    snapshot_id: int
    files: dict[ExportSet, ExportedFile]
    dropped: dict[str, int]
    """Rows of the closed days that resolution left out, by reason code."""
    days: dict[str, str]
    """Closed day → content hash of its gold partition, for every day that was resolved."""
    rules: dict[str, Any]
    code_version: str
    exclusions: dict[str, str] = {}
    """Id → description, of the exclusions in force when the version was pinned."""
    revision: int = 1
    """Counts up when an erasure rewrites the export."""
    erasures: list[Revised] = []
    """Each rewriting with the rows that it removed, oldest first."""
    details: dict[str, Any] = {}
    """Facts of one kind of version only, for instance the days of the evaluation rows."""
    schema_version: int = 1


def count_folds(manifest: Manifest) -> int | None:
    """Count the folds of a cross-fitted version; None: it holds users out of its only model."""
    return sum(which in manifest.files for which in FOLDS) or None


def list_reused_sets(manifest: Manifest) -> list[ExportSet]:
    """List the sets whose gold rows are in another set as well, or are dropped there.

    These are a classifier's further models', and in a cross-fit the folds' and what the folds' models are judged by.
    """
    reused = (*EARLIER, ExportSet.REFIT, *FOLDS, *(HELD_OUT if count_folds(manifest) else ()))
    return [which for which in manifest.files if which in reused]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes of a manifest, of which its sha256 is taken."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def hash_manifest(folder: Path) -> str:
    """Return the sha256 of the manifest file in `folder`."""
    return hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest without verifying its files.

    Raises:
        UnknownNameError: there is no export in `folder`.
        DamagedFileError: it is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise UnknownNameError("export", str(folder), [], "Materialize gold_snapshot for this version first.")
    way_back = (
        f"it describes and seals the export of {folder.parent.name}. Restore it from a backup, or cut a new version."
    )
    return decode_file(path, Manifest, way_back)


def verify_manifest(folder: Path, sha256: str | None = None) -> Manifest:
    """Read a manifest and check it, and every file that it lists, byte for byte.

    Raises:
        ManifestMismatchError: the manifest is not the expected one, or a file is missing or changed.
    """
    manifest = read_manifest(folder)
    if sha256 is not None and (found := hash_manifest(folder)) != sha256:
        raise ManifestMismatchError(f"{folder / MANIFEST_FILE} has sha256 {found}, expected {sha256}")
    for file in manifest.files.values():
        path = folder / file.name
        found = hash_file(path) if path.exists() else "nothing: it is missing"
        if found != file.sha256:
            raise ManifestMismatchError(
                f"{path} has sha256 {found}, its manifest says {file.sha256}. Restore the file, or cut a new version."
            )
    return manifest


def read_rows(folder: Path, manifest: Manifest, which: ExportSet | str) -> list[ExportedRow]:
    """Read the rows of one file of an export, in file order.

    A file that the export lacks has none.
    """
    return list(iterate_rows(folder, manifest, which))


def iterate_rows(folder: Path, manifest: Manifest, which: ExportSet | str) -> Iterator[ExportedRow]:
    """Read the rows of one file of an export, one at a time, in file order.

    A file that the export lacks has none.
    """
    if which in manifest.files:
        decoder = msgspec.json.Decoder(ExportedRow)
        with open(folder / manifest.files[ExportSet(which)].name, "rb") as lines:
            yield from map(decoder.decode, lines)


_SET_OF_KIND = {
    ExampleKind.ACCEPTED_OUTPUT.value: ExportSet.ACCEPTED,
    ExampleKind.DEMONSTRATION.value: ExportSet.DEMONSTRATIONS,
    ExampleKind.OBJECTION.value: ExportSet.OBJECTIONS,
}


def read_learnt_rows(folder: Path, manifest: Manifest, fold: int | None = None) -> dict[ExportSet, list[ExportedRow]]:
    """Read the rows that a model may learn from, by their set in `LEARNT`, each in file order.

    Args:
        folder: of the export.
        manifest: of the export.
        fold: of a cross-fit, from 1; None: of the model that is deployed.
    """
    if fold is None:
        return {which: read_rows(folder, manifest, which) for which in LEARNT}
    found: dict[ExportSet, list[ExportedRow]] = {which: [] for which in LEARNT}
    for row in iterate_rows(folder, manifest, FOLDS[fold - 1]):
        found[_SET_OF_KIND.get(row.example_kind, ExportSet.TRAIN)].append(row)
    return found


def read_pair_ids(folder: Path, manifest: Manifest, which: ExportSet) -> set[str]:
    """Read the keys of one file of an export; a line's texts are skipped.

    A file that the export lacks has no key.
    """
    if which not in manifest.files:
        return set()
    decoder = msgspec.json.Decoder(_PairId)
    with open(folder / manifest.files[which].name, "rb") as lines:
        return {decoder.decode(line).pair_id for line in lines}


def read_prompt_hashes(folder: Path, manifest: Manifest, which: ExportSet) -> set[str]:
    """Read the hashes of the prompts in one file of an export; a file that it lacks has none."""
    if which not in manifest.files:
        return set()
    decoder = msgspec.json.Decoder(_PromptHash)
    with open(folder / manifest.files[which].name, "rb") as lines:
        return {decoder.decode(line).prompt_hash for line in lines}


class LearntPrompts:
    """Knows the prompts that a version's model learnt from.

    In a cross-fit they are those of the model of a user's fold.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read the hashes of the prompts in an export."""
        self._folds = count_folds(manifest)
        files = [LEARNT] if self._folds is None else [[which] for which in FOLDS[: self._folds]]
        self._by_fold = [
            set[str]().union(*(read_prompt_hashes(folder, manifest, which) for which in sets)) for sets in files
        ]

    def find(self, subjects: Sequence[str], prompt_hashes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Find the rows, of these subjects and prompts, whose prompt the model that judges them learnt from."""
        own = np.zeros(len(subjects), np.int64) if self._folds is None else find_folds(subjects, self._folds) - 1
        known = (prompt in self._by_fold[fold] for fold, prompt in zip(own, prompt_hashes, strict=True))
        return np.fromiter(known, bool, len(subjects))


WriteFiles = Callable[[Path], dict[ExportSet, ExportedFile]]
"""Writes the files of an export, durably, into the given folder, and describes them."""


def write_export(
    folder: Path,
    *,
    version: str,
    application: str,
    snapshot_id: int,
    write_files: WriteFiles,
    dropped: Mapping[str, int],
    days: Mapping[str, str],
    rules: Mapping[str, Any],
    code_version: str,
    exclusions: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write an export so that it appears whole or not at all; to write the same export again succeeds.

    Raises:
        VersionConflictError: `folder` holds an export with other content.
        LockLostError: a lock of the caller is gone; nothing has appeared.
    """
    try:
        # Without the lock an erasure may have begun, and this export would hold the rows that it removes.
        with write_folder(folder, before_rename=verify_locks) as building:
            manifest = Manifest(
                version=version,
                application=application,
                snapshot_id=snapshot_id,
                files=write_files(building),
                dropped=dict(dropped),
                days=dict(days),
                rules=dict(rules),
                code_version=code_version,
                exclusions=dict(exclusions or {}),
                details=dict(details or {}),
            )
            encoded = encode_manifest(manifest)
            write_synced(building / MANIFEST_FILE, encoded)
    except FileExistsError:
        there, ours = hash_manifest(folder), hashlib.sha256(encoded).hexdigest()
        if there == ours:
            return verify_manifest(folder)
        raise VersionConflictError(
            f"{folder} holds another export of {version} (manifest {there[:12]}, this one {ours[:12]}). "
            "Versions never change: cut a new one."
        ) from None
    return manifest


_JSON_LINES_SUFFIX = {
    ExportSet.TRAIN: ".jsonl",
    ExportSet.ACCEPTED: ".accepted.jsonl",
    ExportSet.HOLDOUT: ".holdout.jsonl",
    ExportSet.REGRESSION: ".regression.jsonl",
    ExportSet.DEMONSTRATIONS: ".demonstrations.jsonl",
    ExportSet.OBJECTIONS: ".objections.jsonl",
}


def build_json_lines_writer(version: str, rows: Iterable[tuple[ExportSet, ExportedRow | UntrainableRow]]) -> WriteFiles:
    """Return a writer of the files of a preference version.

    Each file has its rows in the order in which they come; without rows it is empty, and that of the refused or of a
    fold is absent.
    """

    def write_files(folder: Path) -> dict[ExportSet, ExportedFile]:
        encode = msgspec.json.Encoder().encode
        with ExitStack() as stack:
            files = {
                which: stack.enter_context(LinesFile(folder / f"{version}{suffix}"))
                for which, suffix in _JSON_LINES_SUFFIX.items()
            }
            for which, row in rows:
                if which not in files:
                    files[which] = stack.enter_context(LinesFile(folder / f"{version}.{which}.jsonl"))
                files[which].write(encode(row) + b"\n")
        return {which: file.describe() for which, file in files.items()}

    return write_files


class LinesFile:
    """Writes a file of lines, counts and hashes it meanwhile, and syncs it to disk at the end."""

    def __init__(self, path: Path) -> None:
        """Create the file; its folder exists."""
        self._path, self._file = path, open(path, "wb")  # noqa: SIM115
        self._sha256, self._rows, self._bytes = hashlib.sha256(), 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())

    def write(self, line: bytes) -> None:
        """Add one line, with its end."""
        self._file.write(line)
        self._sha256.update(line)
        self._rows += 1
        self._bytes += len(line)

    def describe(self) -> ExportedFile:
        """Return the file's rows, bytes and hash so far."""
        return ExportedFile(name=self._path.name, rows=self._rows, bytes=self._bytes, sha256=self._sha256.hexdigest())
