"""Exports appear whole, verify byte for byte, and never change."""

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import ManifestMismatchError, UnknownNameError, VersionConflictError
from flywheel_assets.lake.versions import exports
from flywheel_assets.lake.versions.exports import (
    ExportedRow,
    ExportSet,
    Manifest,
    build_json_lines_writer,
    hash_manifest,
    read_manifest,
    read_rows,
    verify_manifest,
    write_export,
)
from flywheel_assets.lake.versions.folders import Promotion, read_promotion, record_promotion

STRANGE = '\x00 \u2028 שלום 👩🏽\u200d💻 \n\r\t "quotes" \\ \x7f'


def row(number: int, **changes: Any) -> ExportedRow:
    values = {
        "pair_id": f"pair {number}",
        "prompt": f"prompt {number}",
        "prompt_format": "text",
        "chosen": "chosen",
        "rejected": "rejected",
        "subject": "ada",
        "similarity": 0.5,
        "prompt_hash": "hash",
        "completed_date": "2026-03-02",
        "model_version": None,
    }
    return ExportedRow(**{**values, **changes})


ROWS = {
    ExportSet.TRAIN: [row(1), row(2, chosen=STRANGE, prompt=STRANGE), row(3, chosen="x" * 1_000_000)],
    ExportSet.HOLDOUT: [row(4)],
    ExportSet.REGRESSION: [row(5, rejected=None, similarity=None)],
}


def export(folder: Path, rows: dict[ExportSet, list[ExportedRow]] = ROWS, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "version": "dpo_gold_v1",
        "application": "assistant",
        "snapshot_id": 2**62 + 1,
        "dropped": {"user_cap": 2},
        "days": {"2026-03-02": "content"},
        "rules": {"per_user_cap": 100, "holdout_share": 0.1},
        "code_version": "1",
    }
    values.update(changes)
    write_files = build_json_lines_writer(values["version"], [(which, row) for which in rows for row in rows[which]])
    return write_export(folder, write_files=write_files, **values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "assistant" / "dpo_gold_v1" / "export"


def test_what_was_written_is_read(folder: Path) -> None:
    manifest = export(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "dpo_gold_v1.accepted.jsonl",
        "dpo_gold_v1.demonstrations.jsonl",
        "dpo_gold_v1.holdout.jsonl",
        "dpo_gold_v1.jsonl",
        "dpo_gold_v1.objections.jsonl",
        "dpo_gold_v1.regression.jsonl",
        "manifest.json",
    ]
    assert verify_manifest(folder, hash_manifest(folder)) == read_manifest(folder) == manifest
    assert manifest.snapshot_id == 2**62 + 1
    for which in manifest.files:
        assert read_rows(folder, manifest, which.value) == ROWS.get(which, [])
        assert manifest.files[which].rows == len(ROWS.get(which, []))
        assert manifest.files[which].bytes == (folder / manifest.files[which].name).stat().st_size


def test_a_manifest_holds_no_user_text(folder: Path) -> None:
    export(folder, {ExportSet.TRAIN: [row(1, prompt="SECRET", chosen="SECRET", rejected="SECRET", subject="SECRET")]})
    assert b"SECRET" not in (folder / "manifest.json").read_bytes()


def test_the_same_export_again_is_a_success(folder: Path) -> None:
    first = export(folder)
    digest = hash_manifest(folder)
    assert export(folder) == first
    assert hash_manifest(folder) == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": {ExportSet.TRAIN: [row(1)]}},
        {"snapshot_id": 7},
        {"days": {}},
        {"dropped": {"user_cap": 1}},
        {"rules": {"per_user_cap": 1}},
        {"code_version": "2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_export_with_other_content_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    before = export(folder)
    with pytest.raises(VersionConflictError, match="holds another export of dpo_gold_v1"):
        export(folder, **changes)
    assert verify_manifest(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("which", [ExportSet.TRAIN, ExportSet.ACCEPTED, ExportSet.HOLDOUT, ExportSet.REGRESSION])
@pytest.mark.parametrize("damage", ["changed", "longer", "missing"])
def test_tampering_with_a_file_is_found(folder: Path, which: ExportSet, damage: str) -> None:
    path = folder / export(folder).files[which].name
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"chosen", b"chosem") or b" ")
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        path.unlink()
    with pytest.raises(ManifestMismatchError, match=path.name.replace(".", r"\.")):
        verify_manifest(folder)
    with pytest.raises(ManifestMismatchError):
        export(folder)


def test_another_manifest_than_the_expected_one_is_refused(folder: Path) -> None:
    export(folder)
    digest = hash_manifest(folder)
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"user_cap": 2', b'"user_cap": 3'))
    verify_manifest(folder)
    with pytest.raises(ManifestMismatchError, match=f"expected {digest}"):
        verify_manifest(folder, digest)


@pytest.mark.parametrize("step", ["LinesFile.write", "encode_manifest"])
def test_a_torn_export_is_never_visible(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"{exports.__name__}.{step}", full_disk)
        with pytest.raises(OSError, match="No space"):
            export(folder)
    assert list(folder.parent.iterdir()) == []
    export(folder)


def test_what_a_killed_process_left_does_not_disturb(folder: Path) -> None:
    """Another process died while it wrote: its folder is still there, half full."""
    leftover = folder.with_name(".export.12345")
    leftover.mkdir(parents=True)
    (leftover / "dpo_gold_v1.jsonl").write_bytes(b'{"pair')
    assert export(folder) == verify_manifest(folder)


def test_no_export_says_what_to_do(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="Materialize gold_snapshot"):
        verify_manifest(folder)


def test_a_decision_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "promotion.json"
    with pytest.raises(UnknownNameError, match="Materialize promotion"):
        read_promotion(path)
    first = Promotion(
        version="dpo_gold_v1",
        promoted=True,
        sentence="Promoted: NED fell by 0.1 [0.05, 0.15].",
        champion_before=None,
        checks=[{"name": "gain", "ok": True}],
    )
    assert record_promotion(path, first) == first
    second = Promotion(version="dpo_gold_v1", promoted=False, sentence="No.", champion_before="x", checks=[])
    assert record_promotion(path, second) == read_promotion(path) == first
