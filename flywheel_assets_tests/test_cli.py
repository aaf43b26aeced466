"""The command line, as a person uses it: one edit from HTTP to gold, files through the gate, errors in one line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from flywheel_assets import cli
from flywheel_assets.applications import assistant
from flywheel_assets.capture.service import running_capture
from flywheel_assets.defs.failures import FAILURE_TAG, RETRY_REQUESTED
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.partitions import PARTITION_TAG
from flywheel_assets.defs.running import open_instance, request_retry
from flywheel_assets.errors import UnknownNameError
from flywheel_assets_tests.command_line import ROOT, flywheel

EDIT = {
    "prompt": "Read the first 10 rows of orders",
    "original_llm_output": 'rows = ledger.get_table("orders").head(10)',
    "final_user_edit": 'rows = ledger.read("orders", limit=10)',
}


def flywheel_process(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, where nothing is imported yet."""
    environment = {**os.environ, "FLYWHEEL_HOME": str(home), "COLUMNS": "200"}
    environment.pop("DAGSTER_HOME", None)
    return subprocess.run(
        [sys.executable, "-m", "flywheel_assets.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.long
def test_a_first_edit_reaches_gold_with_turn_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Since three days: `turn` makes up for all days that are missing, and the example's become more every day.
    config = replace(assistant.APPLICATION, start_date=(datetime.now(UTC) - timedelta(days=3)).date())
    monkeypatch.setattr(assistant, "APPLICATION", config)
    monkeypatch.setattr(assistant, "defs", preference_flywheel(config))
    with running_capture(tmp_path / "landing", ["assistant"]) as capture:
        assert httpx.post(f"{capture.url}/v1/assistant/edits", json=EDIT).status_code == 202
    turned = flywheel(tmp_path, "turn", "--now")
    assert turned.returncode == 0, turned.stderr
    assert "kept" in turned.stdout
    assert "provisional until it closes" in turned.stdout
    assert "training trigger: at most 0 of 5,000 new pairs" in turned.stdout  # its day is open


def test_curate_needs_no_dagster_and_counts_what_it_drops(tmp_path: Path) -> None:
    pairs, gold = tmp_path / "pairs.jsonl", tmp_path / "gold.jsonl"
    same = {**EDIT, "final_user_edit": EDIT["original_llm_output"]}
    pairs.write_text("\n".join([json.dumps(EDIT), json.dumps(same), "{broken"]) + "\n")
    curated = flywheel_process(tmp_path, "curate", str(pairs), "--out", str(gold))
    assert curated.returncode == 3, "a line could not be read"
    assert [set(json.loads(line)) for line in gold.read_text().splitlines()] == [{"prompt", "chosen", "rejected"}]
    for reason in ("unchanged", "malformed_event"):
        assert reason in curated.stdout
    assert "line 3" in curated.stderr
    assert not (tmp_path / "dagster").exists()


def test_import_lands_a_file_and_says_what_is_next(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text(json.dumps(EDIT) + "\n" + '{"prompt": 1}\n')
    imported = flywheel(tmp_path, "import", str(file), "--application", "assistant")
    assert imported.returncode == 3, "only a part was accepted"
    assert "1 of 2 records accepted, 1 refused" in imported.stdout
    assert "next: flywheel turn --now --application assistant" in imported.stdout
    assert "line 2" in imported.stderr
    assert len(list((tmp_path / "landing" / "assistant" / "feedback").glob("received_date=*/*.jsonl"))) == 1


@pytest.mark.long
def test_a_process_that_fails_says_one_line_and_ends_with_1(tmp_path: Path) -> None:
    failed = flywheel_process(tmp_path, "turn", "-a", "asistant")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: UnknownNameError: unknown application 'asistant'; known: assistant")
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["turn", "-a", "asistant"], "unknown application 'asistant'; known: assistant"),
        (["abandon", "gold_7", "--reason", "test"], "unknown gold version 'gold_7'"),
        (["abandon", "dpo_gold_v7", "--reason", "test", "--yes"], "unknown gold version 'dpo_gold_v7'"),
        (["retry", "dpo_gold_v7"], "unknown ended run of version 'dpo_gold_v7'"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    failed = flywheel(tmp_path, *arguments)
    assert failed.returncode == 1
    assert complaint in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["2026-09-05", "2026-09-01"], "2026-09-05 is later than 2026-09-01"),
        (["2020-01-01", "2026-09-01"], "2020-01-01 has no partition: assistant starts on 2026-09-01"),
        (["2026-09-01", "2999-01-01"], "2999-01-01 is in the future"),
    ],
)
def test_backfill_refuses_what_is_no_range(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.setattr(cli.days, "_run_range", lambda *_: pytest.fail("ran"))
    refused = CliRunner().invoke(cli.app, ["backfill", *arguments], env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert complaint in refused.output


def test_turn_before_the_first_day_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(cli.terminal.load_application("assistant"), start_date=datetime.now(UTC).date())
    monkeypatch.setattr(cli.days, "load_application", lambda _: config)
    refused = CliRunner().invoke(cli.app, ["turn"], env={"COLUMNS": "300"})
    assert refused.exit_code == 2
    assert "today's rows come with --now" in refused.output


def test_a_decided_version_is_neither_retried_nor_abandoned(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "assistant" / "dpo_gold_v1"
    folder.mkdir(parents=True)
    (folder / "promotion.json").write_text("{}")
    for arguments in (["retry", "dpo_gold_v1"], ["abandon", "dpo_gold_v1", "--reason", "test", "--yes"]):
        assert "unknown unfinished version 'dpo_gold_v1'" in flywheel(tmp_path, *arguments).stderr


def test_abandon_says_first_what_it_would_do(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "assistant" / "dpo_gold_v1"
    folder.mkdir(parents=True)
    assert "would finish dpo_gold_v1" in flywheel(tmp_path, "abandon", "dpo_gold_v1", "--reason", "broken").stdout
    assert not (folder / "promotion.json").exists()
    flywheel(tmp_path, "abandon", "dpo_gold_v1", "--reason", "broken", "--yes")
    assert json.loads((folder / "promotion.json").read_text())["sentence"] == "Abandoned: broken"


def test_retry_marks_the_last_run(tmp_path: Path) -> None:
    import dagster as dg

    @dg.op
    def breaks() -> None:
        raise RuntimeError("broken on purpose")

    @dg.job(name="assistant_turn")
    def job() -> None:
        breaks()

    with open_instance(tmp_path / "dagster", ROOT / "dagster.yaml") as instance:
        with pytest.raises(UnknownNameError):
            request_retry(instance, "assistant", "dpo_gold_v1")
        ended = job.execute_in_process(instance=instance, tags={PARTITION_TAG: "dpo_gold_v1"}, raise_on_error=False)
        assert request_retry(instance, "assistant", "dpo_gold_v1") == ended.run_id
        assert instance.get_run_by_id(ended.run_id).tags[FAILURE_TAG] == RETRY_REQUESTED
