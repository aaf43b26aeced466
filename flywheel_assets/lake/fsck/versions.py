"""Checks every gold version: pin, export, reports, decision, trained weights, and the receipts of erasures.

An export is compared with its manifest and the gold table as `flywheel verify` does. Trained weights have their sha256
in the trainer's report. Other small files have no recorded hash: they must be readable for what they are.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.errors import DamagedFileError, FlywheelError
from flywheel_assets.lake.daily.erased_people import load_erasure_key, locate_key_file
from flywheel_assets.lake.erasure.erase import Receipt, build_receipt_path
from flywheel_assets.lake.fsck.accounts import confirm_alone
from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Mend, MendKind, Report, Sample
from flywheel_assets.lake.storage.files import decode_file
from flywheel_assets.lake.tables.decisions import list_decisions
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ERASURES, TableSpec
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exports import count_folds, read_manifest
from flywheel_assets.lake.versions.folders import (
    TRAINING_REPORT,
    VersionFolder,
    Versions,
    parse_version_number,
    read_pin,
    read_promotion,
)
from flywheel_assets.lake.versions.verification import verify_readable

HashWeights = Callable[[Path], str]
"""Hashes a trained model's folder as its trainer's report does; raises an error of ours where there is no model."""


class _Fit(msgspec.Struct, frozen=True):
    model_sha256: str | None = None


class _Trained(msgspec.Struct, frozen=True):
    """The hashes in the reports of both kinds of trainer."""

    adapter_sha256: str | None = None
    sft_adapter_sha256: str | None = None
    model_sha256: str | None = None
    judged_fits: dict[str, _Fit] = {}

    def list_models(self) -> dict[str, str]:
        """List the sha256 of each trained model by its folder."""
        found = {
            "adapter": self.adapter_sha256,
            "sft_adapter": self.sft_adapter_sha256,
            "model": self.model_sha256,
            **{name: fit.model_sha256 for name, fit in self.judged_fits.items()},
        }
        return {name: sha256 for name, sha256 in found.items() if sha256 is not None}


def check_versions(
    lake: Lake,
    versions: Versions,
    gold: TableSpec,
    sample: Sample,
    hash_weights: HashWeights,
    report: Report,
    *,
    is_gold_broken: bool,
) -> None:
    """Check every version; what differs is looked at again while nothing is cut, erased or rolled back."""
    tagged = {} if is_gold_broken else list_tags(lake, gold)
    for folder in versions:
        report.count("versions")
        check = _LookAtVersion(lake, folder, gold, tagged, sample, hash_weights, report, is_gold_broken)
        confirm_alone(lake, report, f"version {folder.version}", check, is_of_version=True)
    begun = {folder.version for folder in versions}
    for name in sorted(set(tagged) - begun):
        if parse_version_number(name):
            place = f"{lake.application} version {name}"
            kept = "restore its folder from a backup; gold can still be rolled back to it."
            report.add([Finding(place, str(versions.folder(name).path), "is missing", LOST, kept)])


class _LookAtVersion:
    def __init__(
        self,
        lake: Lake,
        folder: VersionFolder,
        gold: TableSpec,
        tagged: dict[str, int],
        sample: Sample,
        hash_weights: HashWeights,
        report: Report,
        is_gold_broken: bool,
    ) -> None:
        self._lake, self._folder, self._gold, self._sample = lake, folder, gold, sample
        self._tagged, self._hash_weights, self._report = tagged, hash_weights, report
        self._is_gold_broken, self._is_first = is_gold_broken, True
        self._place = f"{lake.application} version {folder.version}"

    def __call__(self) -> Iterator[Finding]:
        is_first, self._is_first = self._is_first, False
        yield from self._look_at_small_files()
        yield from self._look_at_export(is_first=is_first)
        yield from self._look_at_models(is_first=is_first)

    def _find(self, path: Path, problem: str, repair: str, mend: Mend | None = None) -> Finding:
        return Finding(self._place, str(path), problem, LOST if "missing" in problem else ALTERED, repair, mend)

    def _look_at_small_files(self) -> Iterator[Finding]:
        folder = self._folder
        is_exported = (folder.export / "manifest.json").exists()
        if folder.pin.exists() or is_exported:
            try:
                read_pin(folder)
            except DamagedFileError:
                problem = "cannot be read" if folder.pin.exists() else "is missing"
                mend = Mend(MendKind.WRITE_PIN, folder.pin, version=folder.version) if is_exported else None
                repair = (
                    "`flywheel fsck --repair` writes it again from the export's manifest."
                    if mend
                    else f"restore it from a backup, or `flywheel abandon {folder.version} --application "
                    f"{self._lake.application} --reason … --yes`."
                )
                yield self._find(folder.pin, problem, repair, mend)
        if folder.is_finished:
            try:
                read_promotion(folder.promotion)
            except DamagedFileError:
                yield self._find(folder.promotion, "cannot be read", self._advise_retry(folder.promotion))
        for path in sorted(folder.path.rglob("*.json")):
            own = path in (folder.pin, folder.promotion) or path.name == "manifest.json"
            if own or any(part.startswith(".") for part in path.relative_to(folder.path).parts):
                continue
            try:
                decode_file(path, Any, "")
            except DamagedFileError:
                yield self._find(path, "is no JSON", self._advise_retry(path))
            except FileNotFoundError:
                continue  # it belonged to work that has ended

    def _advise_retry(self, path: Path) -> str:
        top = self._folder.path / path.relative_to(self._folder.path).parts[0]
        again = f"mv {top} {top}.damaged && flywheel retry {self._folder.version}"
        return f"restore it from a backup; else make it again: `{again} --application {self._lake.application}`."

    def _look_at_export(self, *, is_first: bool) -> Iterator[Finding]:
        folder = self._folder
        restore = "restore the file from a backup, or cut a new version."
        if not (folder.export / "manifest.json").exists():
            if folder.export.exists() or folder.is_trained or folder.version in self._get_decided():
                yield self._find(folder.export / "manifest.json", "is missing", restore)
            return
        try:
            manifest = read_manifest(folder.export)
        except DamagedFileError:
            yield self._find(folder.export / "manifest.json", "cannot be read", restore)
            return
        damaged = False
        paths = [folder.export / file.name for file in manifest.files.values()]
        for path, file in zip(paths, manifest.files.values(), strict=True):
            size = path.stat().st_size if path.exists() else None
            if is_first:
                self._report.count("exported files")
            if size != file.bytes:
                damaged = True
                problem = "is missing" if size is None else f"has {size:,} bytes, its manifest says {file.bytes:,}"
                yield self._find(path, problem, restore)
        if damaged or not self._sample.draws(f"{folder.version}/export"):
            return
        if is_first:
            self._report.bytes_read += sum(file.bytes for file in manifest.files.values())
        if self._is_gold_broken:
            self._report.not_looked_at.append(f"rows of {self._place} in {self._gold.name}: that table cannot be read")
            return
        for difference in verify_readable(self._lake, self._gold, folder, self._tagged.get(folder.version)):
            if difference.startswith(str(folder.pin)):
                continue  # named above
            altered = [path for path in paths if difference.startswith(str(path))]
            if altered:
                yield self._find(altered[0], "has another sha256 than its manifest says", restore)
            else:
                yield self._find(folder.export, f"differs: {difference.removesuffix('.')}", restore)

    def _get_decided(self) -> set[str]:
        """Return the version's name where its model was judged; one that was abandoned needs no export."""
        try:
            decided = read_promotion(self._folder.promotion) if self._folder.is_finished else None
        except FlywheelError:
            return set()
        return {self._folder.version} if decided is not None and decided.checks else set()

    def _look_at_models(self, *, is_first: bool) -> Iterator[Finding]:
        folder = self._folder
        if not folder.is_trained:
            if folder.training.is_dir():
                yield self._find(folder.training_report, "is missing", self._advise_retry(folder.training_report))
            return
        try:
            report = decode_file(folder.training_report, _Trained, "")
        except DamagedFileError:
            return  # named above
        yield from self._look_at_trained(folder.training, report, is_first=is_first)
        yield from self._look_at_folds(is_first=is_first)

    def _look_at_trained(self, result: Path, report: _Trained, *, is_first: bool) -> Iterator[Finding]:
        """Compare the models of one training with its report."""
        for name, sha256 in report.list_models().items():
            path = result / name
            if is_first:
                self._report.count("trained models")
            if path.is_dir() and not self._sample.draws(str(path.relative_to(self._folder.path.parent))):
                continue
            try:
                found = self._hash_weights(path)
            except (FlywheelError, FileNotFoundError):
                yield self._find(path, "holds no model: it is missing", self._advise_retry(result))
                continue
            if found != sha256:
                yield self._find(path, "has another sha256 than its report", self._advise_retry(result))

    def _look_at_folds(self, *, is_first: bool) -> Iterator[Finding]:
        """Look at the models that judged a cross-fitted version, and will judge it as a champion."""
        try:
            folds = count_folds(read_manifest(self._folder.export))
        except FlywheelError:
            return  # named above
        for number in range(1, 1 + (folds or 0)):
            path = self._folder.fold(number) / TRAINING_REPORT
            try:
                report = decode_file(path, _Trained, "")
            except FileNotFoundError:
                yield self._find(path, "is missing", self._advise_retry(path))
            except DamagedFileError:
                continue  # named above
            else:
                yield from self._look_at_trained(self._folder.fold(number), report, is_first=is_first)


def check_receipts(lake: Lake, versions: Versions, report: Report) -> None:
    """Check that every erasure has its receipt, and that none is unfinished."""
    confirm_alone(lake, report, "receipts of erasures", lambda: _look_at_receipts(lake, versions, report))


def _look_at_receipts(lake: Lake, versions: Versions, report: Report) -> Iterator[Finding]:
    place = f"{lake.application} erasures"
    again = "`flywheel erase --user … --reason … --yes`, for the same person: it finishes, and leaves a receipt."
    decided = list_decisions(lake, ERASURES) if lake.has_table(ERASURES) else []
    folder = build_receipt_path(versions, "any").parent
    for path in sorted(folder.glob("unfinished-*.json")):
        yield Finding(place, str(path), "is unfinished", "An erasure was killed.", again)
    report.looked_at["receipts"] = len(decided)
    if decided:
        try:
            load_erasure_key(lake, decided)
        except FlywheelError as error:
            restore = "restore `erasure.key` (or FLYWHEEL_ERASURE_KEY) from a backup."
            key = str(locate_key_file(lake)) if lake.erasure_key is None else ""
            yield Finding(place, key, f"does not open: {str(error).removesuffix('.')}", ALTERED, restore)
    for row in decided:
        path = build_receipt_path(versions, row["id"])
        try:
            decode_file(path, Receipt, "")
        except FileNotFoundError:
            if not any(folder.glob("unfinished-*.json")):
                yield Finding(place, str(path), "is missing", LOST, f"restore it from a backup; else {again}")
        except DamagedFileError:
            yield Finding(place, str(path), "cannot be read", ALTERED, f"restore it from a backup; else {again}")
