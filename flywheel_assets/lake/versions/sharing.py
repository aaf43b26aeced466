"""Writes a version as a folder in the format of a training tool: TRL, OpenAI, KTO, typed Parquet, Hugging Face.

    <out>/
        train.preference.jsonl …    trl, openai: two answers; train.sft.jsonl: one right answer
        train.jsonl …               kto
        train.parquet …             parquet: one file per set of the version
        data/preference/train.parquet …, README.md      hf
        manifest.json               version, snapshot, code, sha256 and rows of each file, rows that are not in them

The folder appears by one rename. No file says whose rows they are. What the formats are is `formats.writing`; files
without rows are not written.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.conversations import decode_answer, decode_messages
from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.errors import InvalidRuleError, VersionConflictError
from flywheel_assets.formats.writing import openai, trl
from flywheel_assets.formats.writing.card import Card, CardFile, write_card
from flywheel_assets.formats.writing.examples import Example, Gap, Kind, Shape
from flywheel_assets.formats.writing.tables import FACTS, build_schema, build_table
from flywheel_assets.lake.storage.failures import translate_disk_full
from flywheel_assets.lake.storage.files import hash_file, write_folder, write_synced
from flywheel_assets.lake.storage.schema_versions import decode_versioned
from flywheel_assets.lake.versions.exports import (
    MANIFEST_FILE,
    ExportedFile,
    ExportedRow,
    ExportSet,
    LinesFile,
    Manifest,
    hash_manifest,
    iterate_rows,
    list_reused_sets,
    verify_manifest,
)
from flywheel_assets.lake.versions.folders import VersionFolder
from flywheel_assets.lake.versions.publishing import remember_copy
from flywheel_assets.records import PromptFormat

_ROWS_AT_ONCE = 8192
_FEATURES = "features"
_SCORES = "scores"
"""The configuration of a classifier's rows."""


class SharedFormat(StrEnum):
    """Names what reads the folder."""

    TRL = "trl"
    OPENAI = "openai"
    PARQUET = "parquet"
    HF = "hf"
    KTO = "kto"


class SharedSet(StrEnum):
    """Names the rows to write, by their use."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    REGRESSION = "regression"
    ALL = "all"


_SPLIT = {
    ExportSet.TRAIN: SharedSet.TRAIN,
    ExportSet.ACCEPTED: SharedSet.TRAIN,
    ExportSet.DEMONSTRATIONS: SharedSet.TRAIN,
    ExportSet.OBJECTIONS: SharedSet.TRAIN,
    ExportSet.HOLDOUT: SharedSet.HOLDOUT,
    ExportSet.EVALUATION: SharedSet.HOLDOUT,
    ExportSet.REGRESSION: SharedSet.REGRESSION,
}


class SharedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the folder without any user text."""

    version: str
    application: str
    revision: int
    snapshot_id: int
    code_version: str
    version_manifest_sha256: str
    """Of the manifest of the version's own export."""
    format: SharedFormat
    rows: SharedSet
    files: dict[str, ExportedFile]
    """By their paths in the folder."""
    not_expressed: dict[str, int]
    """Rows that the format has no place for, by reason."""
    reasoning_left_out: int = 0
    """Rows that are there without the model's reasoning."""
    schema_version: int = 1


def share_version(
    folder: VersionFolder,
    out: Path,
    format_: SharedFormat,
    rows: SharedSet = SharedSet.ALL,
    license_: str = "other",
    *,
    replaces: bool = False,
) -> SharedManifest:
    """Write a version's rows in another format.

    Args:
        folder: of the version.
        out: the folder to write.
        format_: of the files.
        rows: the sets to write.
        license_: of the card of `hf`.
        replaces: whether a folder that was written by this function is replaced.

    Raises:
        ManifestMismatchError: a file of the version differs from its manifest; nothing is written.
        InvalidRuleError: the format has no form for rows with scores, or the version has no such set.
        VersionConflictError: `out` exists.
        DiskFullError: no space is left; nothing has appeared.
    """
    export = folder.export
    manifest = verify_manifest(export)
    # What the folds' models are judged by is among the training rows: apart from those models it is no holdout.
    reused = list_reused_sets(manifest)
    there = [which for which in _SPLIT if which in manifest.files and which not in reused]
    sets = [which for which in there if rows in (SharedSet.ALL, _SPLIT[which])]
    if not sets:
        known = sorted({_SPLIT[which].value for which in there})
        raise InvalidRuleError(f"{manifest.version} has no set {rows.value!r}; valid: {', '.join(known)}, all")
    writer = _Writer(export, manifest, sets)
    write = _find_way(writer, format_)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        _require_replaceable(out, replaces=replaces)
    # Remembered before the first row is copied: an erasure could not name an unknown copy.
    remember_copy(folder, str(out.resolve()))
    try:
        with translate_disk_full(out.parent), write_folder(out, replaces=replaces) as building:
            write(building)
            shared = SharedManifest(
                version=manifest.version,
                application=manifest.application,
                revision=manifest.revision,
                snapshot_id=manifest.snapshot_id,
                code_version=manifest.code_version,
                version_manifest_sha256=hash_manifest(export),
                format=format_,
                rows=rows,
                files=dict(sorted(_describe_files(building, writer.rows))),
                not_expressed={gap.value: number for gap, number in sorted(writer.gaps.items())},
                reasoning_left_out=writer.reasoning_left_out,
            )
            if format_ is SharedFormat.HF:
                card = write_card(_describe_version(manifest, shared, license_)).encode()
                write_synced(building / "README.md", card)
                digest = hashlib.sha256(card).hexdigest()
                shared.files["README.md"] = ExportedFile(name="README.md", rows=0, bytes=len(card), sha256=digest)
            encoded = msgspec.json.format(msgspec.json.encode(shared, order="deterministic"), indent=2)
            write_synced(building / MANIFEST_FILE, encoded + b"\n")
    except FileExistsError:
        raise VersionConflictError(f"{out} has appeared meanwhile; choose another folder") from None
    return shared


def _require_replaceable(out: Path, *, replaces: bool) -> None:
    if not replaces:
        raise VersionConflictError(f"{out} exists: choose another folder with --out, or replace it with --replace")
    try:
        decode_versioned((out / MANIFEST_FILE).read_bytes(), SharedManifest, str(out / MANIFEST_FILE))
    except (OSError, msgspec.DecodeError):
        # `--out .. --replace` must not remove a folder of other things.
        raise VersionConflictError(
            f"{out} was not written by `flywheel gold export --format`, so --replace leaves it alone; choose another "
            "folder with --out"
        ) from None


def _find_way(writer: "_Writer", format_: SharedFormat) -> Callable[[Path], None]:
    if writer.has_scores:
        ways = {SharedFormat.PARQUET: writer.write_score_tables, SharedFormat.HF: writer.write_score_splits}
        if format_ not in ways:
            raise InvalidRuleError(
                f"{writer.manifest.version} holds scores and labels, which --format {format_.value} has no form for; "
                "valid: hf, parquet"
            )
        return ways[format_]
    return {
        SharedFormat.TRL: writer.write_trl,
        SharedFormat.OPENAI: writer.write_openai,
        SharedFormat.KTO: writer.write_kto,
        SharedFormat.PARQUET: writer.write_tables,
        SharedFormat.HF: writer.write_splits,
    }[format_]


class _Writer:
    """Writes the files of one version; counts their rows, and the rows that are in none."""

    def __init__(self, export: Path, manifest: Manifest, sets: list[ExportSet]) -> None:
        self.manifest = manifest
        self.rows = Counter[str]()
        self.gaps = Counter[Gap]()
        self.reasoning_left_out = 0
        self._export, self._sets = export, sets

    @property
    def has_scores(self) -> bool:
        """Return whether the version is a classifier's."""
        return self.manifest.files[ExportSet.TRAIN].name.endswith(".parquet")

    def write_trl(self, folder: Path) -> None:
        shapes = self._find_shapes()
        with _Files(folder) as files:
            for which, example in self._read():
                if gap := trl.find_gap(example):
                    self.gaps[gap] += 1
                    continue
                is_pair = example.kind is Kind.PREFERENCE
                row = (trl.write_preference if is_pair else trl.write_completion)(example, shapes[example.kind])
                files.write(f"{_SPLIT[which]}.{example.kind}.jsonl", row)
        self.rows = files.rows

    def write_openai(self, folder: Path) -> None:
        with _Files(folder) as files:
            for which, example in self._read():
                if example.kind is Kind.OBJECTION:
                    self.gaps[Gap.WRONG_ANSWER_ALONE] += 1
                    continue
                is_pair = example.kind is Kind.PREFERENCE
                written = (openai.write_preference if is_pair else openai.write_chat)(example)
                if isinstance(written, Gap):
                    self.gaps[written] += 1
                    continue
                self.reasoning_left_out += written.has_lost_reasoning
                files.write(f"{_SPLIT[which]}.{example.kind}.jsonl", written.row)
        self.rows = files.rows

    def write_kto(self, folder: Path) -> None:
        shape = Shape.find(example for _, example in self._read())
        with _Files(folder) as files:
            for which, example in self._read():
                for row in trl.write_judgements(example, shape):
                    files.write(f"{_SPLIT[which]}.jsonl", row)
        self.rows = files.rows

    def write_tables(self, folder: Path) -> None:
        shape = Shape.find(example for _, example in self._read())
        for which in self._sets:
            examples = (example for _, example in self._read([which]))
            self._write_parquet(folder, f"{which}.parquet", build_schema(None, shape), _build(examples, None, shape))

    def write_splits(self, folder: Path) -> None:
        for kind, shape in self._find_shapes().items():
            for split, sets in self._list_splits():
                examples = (example for _, example in self._read(sets) if example.kind is kind)
                tables = _build(examples, kind, shape)
                self._write_parquet(folder, f"data/{kind}/{split}.parquet", build_schema(kind, shape), tables)

    def write_score_tables(self, folder: Path) -> None:
        for which in self._sets:
            schema = self._build_score_schema([which])
            self._write_parquet(folder, f"{which}.parquet", schema, self._read_scores(which, schema))

    def write_score_splits(self, folder: Path) -> None:
        # One schema for all: the splits of a configuration have the same columns.
        schema = self._build_score_schema(self._sets)
        for which in self._sets:
            name = f"data/{_SCORES}/{_SPLIT[which]}.parquet"
            self._write_parquet(folder, name, schema, self._read_scores(which, schema))

    def _read(self, sets: Iterable[ExportSet] | None = None) -> Iterator[tuple[ExportSet, Example]]:
        for which in self._sets if sets is None else sets:
            for row in iterate_rows(self._export, self.manifest, which):
                yield which, _build_example(row, which)

    def _find_shapes(self) -> dict[Kind, Shape]:
        shapes: dict[Kind, Shape] = {}
        for _, example in self._read():
            shapes.setdefault(example.kind, Shape()).widen(example)
        return {kind: shapes[kind] for kind in Kind if kind in shapes}

    def _list_splits(self) -> list[tuple[SharedSet, list[ExportSet]]]:
        splits = dict.fromkeys(_SPLIT[which] for which in self._sets)
        return [(split, [which for which in self._sets if _SPLIT[which] is split]) for split in splits]

    def _open_scores(self, which: ExportSet) -> pq.ParquetFile:
        return pq.ParquetFile(self._export / self.manifest.files[which].name)

    def _build_score_schema(self, sets: Iterable[ExportSet]) -> pa.Schema:
        fields: dict[str, pa.DataType] = {}
        for which in sets:
            with self._open_scores(which) as file:
                empty = file.schema_arrow.empty_table()
            fields |= {field.name: field.type for field in _flatten(empty).schema}
        return pa.schema(sorted(fields.items(), key=lambda field: field[0].startswith(f"{_FEATURES}.")))

    def _read_scores(self, which: ExportSet, schema: pa.Schema) -> Iterator[pa.Table]:
        with self._open_scores(which) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                rows = _flatten(pa.Table.from_batches([batch]))
                for field in schema:
                    if field.name not in rows.column_names:
                        rows = rows.append_column(field, pa.nulls(len(rows), field.type))
                yield rows.select(schema.names).cast(schema)

    def _write_parquet(self, folder: Path, name: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                if writer is None:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    writer = pq.ParquetWriter(folder / name, schema, compression="zstd")
                writer.write_table(table)
                self.rows[name] += len(table)
        finally:
            if writer is not None:
                writer.close()


def _build(examples: Iterable[Example], kind: Kind | None, shape: Shape) -> Iterator[pa.Table]:
    examples = iter(examples)
    while some := list(islice(examples, _ROWS_AT_ONCE)):
        yield build_table(some, kind, shape)


def _flatten(rows: pa.Table) -> pa.Table:
    """Put each feature into a column `features.<name>`: bare names may be those of other columns, as `amount`."""
    features = unpack_features(rows)
    rows = rows.drop_columns([_FEATURES, "subject"])
    for name in features.column_names:
        rows = rows.append_column(f"{_FEATURES}.{name}", features[name])
    return rows


def _build_example(row: ExportedRow, which: ExportSet) -> Example:
    facts: dict[str, Any] = {name: getattr(row, name) for name in FACTS.names}
    facts["completed_date"] = date.fromisoformat(row.completed_date)
    is_objection = which is ExportSet.OBJECTIONS
    return Example(
        prompt=decode_messages(row.prompt) if row.prompt_format == PromptFormat.MESSAGES else row.prompt,
        chosen=None if is_objection else decode_answer(row.chosen, row.chosen_message),
        rejected=None if row.rejected is None else decode_answer(row.rejected, row.rejected_message),
        tools=msgspec.json.decode(row.tools) if row.tools else None,
        facts=facts,
    )


class _Files:
    """Opens files of lines when their first row comes, and counts their rows."""

    def __init__(self, folder: Path) -> None:
        self.rows = Counter[str]()
        self._folder, self._open, self._stack = folder, dict[str, LinesFile](), ExitStack()
        self._encode = msgspec.json.Encoder().encode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        if name not in self._open:
            self._open[name] = self._stack.enter_context(LinesFile(self._folder / name))
        self._open[name].write(self._encode(row) + b"\n")
        self.rows[name] += 1


def _describe_files(folder: Path, rows: Mapping[str, int]) -> Iterator[tuple[str, ExportedFile]]:
    for name, number in rows.items():
        path = folder / name
        file = ExportedFile(name=name, rows=number, bytes=path.stat().st_size, sha256=hash_file(path))
        yield name, file


def _describe_version(manifest: Manifest, shared: SharedManifest, license_: str) -> Card:
    files = []
    for name, file in shared.files.items():
        _, config, split = Path(name).with_suffix("").parts
        files.append(CardFile(name=name, config=config, split=split, rows=file.rows, sha256=file.sha256))
    order = [*Kind, _SCORES]
    splits = list(dict.fromkeys(_SPLIT.values()))
    return Card(
        title=f"{manifest.version} of {manifest.application}",
        license=license_,
        files=sorted(files, key=lambda file: (order.index(file.config), splits.index(SharedSet(file.split)))),
        provenance={
            "application": manifest.application,
            "version": f"{manifest.version}, revision {manifest.revision}",
            "snapshot of the gold table": str(manifest.snapshot_id),
            "code version": manifest.code_version,
            "sha256 of the version's manifest": shared.version_manifest_sha256,
            "days": f"{min(manifest.days, default='none')} … {max(manifest.days, default='none')}",
        },
        left_out=manifest.dropped,
        not_expressed=shared.not_expressed,
    )
