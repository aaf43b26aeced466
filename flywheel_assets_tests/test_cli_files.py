"""`flywheel import` and `flywheel curate` as a person sees them: what was found, what was not, and the exit codes."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets_tests.command_line import flywheel

EDIT = {"prompt": "How do I sum?", "original_llm_output": "use sumall(x)", "final_user_edit": "use sum(x)"}


def write(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def landed_files(home: Path) -> list[Path]:
    return list((home / "landing").rglob("*.jsonl"))


def test_a_look_before_an_import_lands_nothing(tmp_path: Path) -> None:
    lines = [EDIT | {"id": number, "colour": "red", "prompt": "x" * 500} for number in range(4)]
    file = write(tmp_path / "edits.jsonl", *lines, *['{"prompt": "p"}'] * 30, "{'prompt': 'p'}")
    looked = flywheel(tmp_path, "import", file, "-a", "assistant", "--dry-run")
    assert looked.returncode == 3
    assert "edits.jsonl: JSON lines, edits (" in looked.stdout
    assert "fields that are not taken: colour" in looked.stdout
    assert "4 of 35 records would be accepted, 31 refused" in looked.stdout
    assert "events: 4 edit" in looked.stdout
    assert (looked.stdout.count("prediction row"), looked.stdout.count("feedback row")) == (2, 1), "three rows"
    assert "x" * 60 + "…" in looked.stdout
    assert "x" * 70 not in looked.stdout
    assert "30 × lacks `original_llm_output`, `final_user_edit`; valid: prompt, " in looked.stderr
    assert "(first: edits.jsonl, line 5)" in looked.stderr
    assert "1 × this is Python's own notation of a dict" in looked.stderr
    assert "next:" not in looked.stdout
    assert landed_files(tmp_path) == []


@pytest.mark.parametrize(
    ("lines", "code"), [([EDIT, EDIT | {"id": 1}], 0), ([EDIT, {"prompt": "p"}], 3), ([{"prompt": "p"}], 1), ([], 1)]
)
def test_exit_codes_of_an_import(tmp_path: Path, lines: list[Any], code: int) -> None:
    imported = flywheel(tmp_path, "import", write(tmp_path / "x.jsonl", *lines), "-a", "assistant")
    assert imported.returncode == code
    assert ("next: flywheel turn --now" in imported.stdout) == (code != 1)
    assert bool(landed_files(tmp_path)) == (code != 1)


def test_history_outside_the_projects_folder_lands_nothing(tmp_path: Path) -> None:
    # A newcomer stood where the export was. The rows landed, then Dagster's instance could not be made: the days were
    # never reported, and the repeated import said that no day had changed.
    file = write(tmp_path / "edits.jsonl", EDIT | {"occurred_at": "2026-11-02T09:00:00Z"})
    arguments = ("import", file, "-a", "assistant", "--history", "--reason", "the first days")
    refused = flywheel(tmp_path, *arguments, folder=tmp_path)
    assert refused.returncode == 1
    assert "run from the project's folder" in refused.stderr
    assert landed_files(tmp_path) == []
    landed = flywheel(tmp_path, *arguments)
    assert "next: flywheel backfill 2026-11-02" in landed.stdout


def test_a_look_before_history_says_which_days_would_receive_rows(tmp_path: Path) -> None:
    """A table of labels whose column of times was not named passed the look, and landed on the day of the import."""
    edits = [EDIT | {"id": day, "occurred_at": f"2026-11-0{day}T09:00:00Z"} for day in (2, 5)]
    file = write(tmp_path / "edits.jsonl", *edits, EDIT | {"id": 9, "said_at": "2026-11-03T09:00:00Z"})
    looked = flywheel(tmp_path, "import", file, "-a", "assistant", "--history", "--reason", "a look", "--dry-run")
    assert "days that would receive rows: 2026-11-02 … 2026-11-05 (2)" in looked.stdout
    assert "2 rows have no time of their own and would land on today: --map occurred_at=" in looked.stderr
    assert landed_files(tmp_path) == []


def test_standard_input_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "a.json.gz").write_bytes(gzip.compress(json.dumps([EDIT]).encode()))
    (tmp_path / "logs" / "README.md").write_text("words, and more words")
    imported = flywheel(tmp_path, "import", str(tmp_path / "logs"), "-a", "assistant")
    assert (imported.returncode, "a.json.gz: JSON, gzip" in imported.stdout) == (0, True)
    assert "passed over, no data by their names: README.md" in imported.stderr
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(EDIT).encode())))
    assert "stdin: JSON lines" in flywheel(tmp_path, "import", "-", "-a", "assistant").stdout


def test_options_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "edits.txt"
    table.write_bytes("prompt|original_llm_output|final_user_edit\nGröße?|old\\none|new\\none\n".encode("latin-1"))
    options = ["-a", "assistant", "--encoding", "latin-1", "--delimiter", "|"]
    imported = flywheel(tmp_path, "import", str(table), *options)
    assert imported.returncode == 0, imported.stderr
    assert r"1 rows hold \n, \r or \t as two characters; they are kept so. --escapes reads them" in imported.stdout
    escaped = flywheel(tmp_path, "import", str(table), *options, "--escapes", "--quoting", "none", "--dry-run")
    assert "new\\none" in escaped.stdout, "a line break is shown as one"
    assert "--escapes reads" not in escaped.stdout


def test_a_wrong_format_or_file_names_the_valid_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", {"colour": "red"})
    unknown = flywheel(tmp_path, "import", file, "-a", "assistant")
    assert (unknown.returncode, "no format has the fields of x.jsonl: colour" in unknown.stderr) == (
        1,
        True,
    )
    wrong = flywheel(tmp_path, "import", file, "-a", "assistant", "--format", "open-web-ui")
    assert (wrong.returncode, "unknown format 'open-web-ui'; known: " in wrong.stderr) == (1, True)
    absent = flywheel(tmp_path, "import", str(tmp_path / "absent.jsonl"), "-a", "assistant")
    assert (absent.returncode, "or - for standard input" in absent.stderr) == (1, True)
    listed = flywheel(tmp_path, "import", "--list-formats", "-a", "assistant")
    assert (listed.returncode, "edits" in listed.stdout) == (0, True)


def test_curating_nothing_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "gold.jsonl"
    good, unchanged = write(tmp_path / "a.jsonl", EDIT), EDIT | {"final_user_edit": EDIT["original_llm_output"]}
    assert flywheel(tmp_path, "curate", good, "-o", str(out)).returncode == 0
    kept = out.read_bytes()
    nothing = flywheel(tmp_path, "curate", write(tmp_path / "b.jsonl", unchanged), "-o", str(out))
    assert (nothing.returncode, out.read_bytes()) == (1, kept)
    assert "was not written; --allow-empty writes it" in nothing.stderr
    assert flywheel(tmp_path, "curate", str(tmp_path / "b.jsonl"), "-o", str(out), "--allow-empty").returncode == 0
    assert out.read_bytes() == b""
