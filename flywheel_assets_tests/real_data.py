"""Real post-edits (MLQE-PE, CC0) as the importer takes them; nothing of it is ever committed."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REAL_DATA = Path(os.environ.get("FLYWHEEL_REALDATA_DIR", ROOT.parent / "shared" / "data"))
_ARCHIVES = ["ro-en-train", "et-en-train", "ro-en-dev", "et-en-dev"]


def needs_real_data(*parts: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where the data is absent."""
    folder = REAL_DATA.joinpath(*parts)
    return pytest.mark.skipif(not folder.exists(), reason=f"{folder} is absent; set FLYWHEEL_REALDATA_DIR")


def real_edits() -> Iterator[dict[str, str]]:
    """16,000 times source sentence, machine translation and its human post-edit."""
    for archive in _ARCHIVES:
        with tarfile.open(REAL_DATA / "mlqe_pe" / f"{archive}.tar.gz") as files:
            names = {
                name.rsplit(".", 1)[-1]: name for name in files.getnames() if name.endswith((".src", ".mt", ".pe"))
            }
            columns = [files.extractfile(names[kind]).read().decode().splitlines() for kind in ("src", "mt", "pe")]
        for number, (source, output, edit) in enumerate(zip(*columns, strict=True)):
            yield {
                "id": f"{archive}-{number}",
                "prompt": source,
                "original_llm_output": output,
                "final_user_edit": edit,
                "model_version": "mbart50",
            }


def write_real_edits(path: Path) -> int:
    """Write them as JSON lines; returns their number."""
    with open(path, "w", encoding="utf-8") as lines:
        return sum(bool(lines.write(json.dumps(edit, ensure_ascii=False) + "\n")) for edit in real_edits())
