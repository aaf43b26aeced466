"""Commands over gold, as a person uses them: say first, act with --yes, answer unknown names with the known ones."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.partitions import build_version_partitions
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.running import open_instance
from flywheel_assets.lake.versions.exclusions import list_exclusions
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.command_line import ROOT, flywheel
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.prepared import PreparedFolder

NAME = APPLICATION.name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """Three gold days, the first two of them in dpo_gold_v1."""
    home = tmp_path_factory.mktemp("home")
    stores = Stores(home=str(home))
    lake, versions = stores.lake(NAME), stores.versions(NAME)
    write_gold_days(lake, {day(0): 3, day(1): 4})
    cut_pair_version(lake, versions, "dpo_gold_v1", ResolutionRules(holdout_share=0.0), "1")
    write_gold_days(lake, {day(2): 5})
    return PreparedFolder(home)


@pytest.fixture
def home(prepared: PreparedFolder) -> Path:
    return prepared.restored()


@pytest.mark.long
def test_an_exclusion_from_dry_run_to_its_end(home: Path) -> None:
    week = ("exclude", "--from", "2026-03-02", "--to", "2026-03-02", "--by", "occurred", "--reason", "garbage")
    said = flywheel(home, *week)
    assert "leaves out 12 rows of 3 days" in said.stdout, said.stderr
    assert "repeat the command with --yes" in said.stdout
    lake = Stores(home=str(home)).lake(NAME)
    assert list_exclusions(lake) == []

    done = flywheel(home, *week, "--who", "ada", "--yes")
    (exclusion,) = list_exclusions(lake)
    assert f"exclusion {exclusion.id}: occurred 2026-03-02 … 2026-03-02" in done.stdout
    again = flywheel(home, "exclude", "--user", f"user {day(0)} 1", "--reason", "mallory")
    assert "leaves out 0 rows" in again.stdout, "they are out already"

    listed = flywheel(home, "exclusions").stdout
    assert re.search(rf"{exclusion.id}.*by ada.*garbage.*in force", listed)
    assert "lets in again 12 rows" in flywheel(home, "include", exclusion.id, "--reason", "fine").stdout
    flywheel(home, "include", exclusion.id, "--reason", "fine", "--yes")
    assert "ended" in flywheel(home, "exclusions").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["include", "nothing", "--reason", "r"], "unknown exclusion in force 'nothing'; known: none yet"),
        (["exclude", "--reason", "r"], "would exclude everything"),
        (["exclude", "-a", "fraud", "--thread", "t", "--reason", "r"], "hard_examples has no column for thread_id"),
        (["exclude", "--user", "u", "--by", "guess", "--reason", "r"], "unknown kind of day 'guess'; known: occurred"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    failed = flywheel(tmp_path, *arguments)
    assert failed.returncode == 1
    assert complaint in failed.stderr
    assert "Traceback" not in failed.stderr


def test_one_prediction_an_event_and_a_file_are_kept_out(home: Path) -> None:
    said = flywheel(home, "exclude", "--prediction", f"{day(0)} 1", "--reason", "r", "--yes")
    assert "one prediction leaves out 1 rows of 1 days" in said.stdout, said.stderr
    gone = flywheel(home, "exclude", "--prediction", f"{day(0)} 1", "--user", f"user {day(0)} 1", "--reason", "r")
    assert "leaves out 0 rows" in gone.stdout
    assert "one event leaves out 1 rows" in flywheel(home, "exclude", "--event", f"{day(1)} 2", "--reason", "r").stdout
    file = flywheel(home, "exclude", "--import", "edits.jsonl", "--event", "7", "--reason", "r").stdout
    assert "one statement leaves out 0 rows" in file
    assert "source app leaves out 11 rows" in flywheel(home, "exclude", "--source", "app", "--reason", "r").stdout
    two = flywheel(home, "exclude", "--source", "app", "--import", "edits.jsonl", "--reason", "r")
    assert "two sources" in two.stderr
    assert f"{day(0)} 1" in flywheel(home, "exclusions").stdout


@pytest.mark.long
def test_a_retraining_is_requested_at_once_and_only_once(home: Path) -> None:
    assert "would request dpo_gold_v2" in flywheel(home, "retrain", "--reason", "a poisoned week").stdout
    with open_instance(home / "dagster", ROOT / "dagster.yaml") as instance:
        partitions = str(build_version_partitions(NAME).name)
        assert instance.get_dynamic_partitions(partitions) == []
        flywheel(home, "retrain", "--reason", "a poisoned week", "--yes")
        assert instance.get_dynamic_partitions(partitions) == ["dpo_gold_v2"]
    refused = flywheel(home, "retrain", "--reason", "again", "--yes")
    assert "dpo_gold_v2 was requested and is not finished" in refused.stderr


@pytest.mark.long
def test_a_retraining_on_todays_rows_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """600 edits were imported today; `flywheel retrain` left an empty version, behind which the trigger stood still."""
    today = datetime.now(UTC).date()
    write_gold_days(Stores(home=str(tmp_path)).lake(NAME), {today: 600}, is_closed=False)
    refused = flywheel(tmp_path, "retrain", "--reason", "the first one", "--yes")
    assert refused.returncode == 1
    assert "dpo_gold_v1 would fail, so it is not requested: gold has no closed day; today's 600 pairs" in refused.stderr
    with open_instance(tmp_path / "dagster", ROOT / "dagster.yaml") as instance:
        assert instance.get_dynamic_partitions(str(build_version_partitions(NAME).name)) == []
    write_gold_days(Stores(home=str(tmp_path)).lake(NAME), {day(0): 600})
    assert "dpo_gold_v1 is trained" in flywheel(tmp_path, "retrain", "--reason", "the first one", "--yes").stdout


@pytest.mark.long
def test_a_version_is_exported_in_another_format(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    done = flywheel(home, "gold", "export", "dpo_gold_v1", "--format", "trl", "--out", str(out))
    assert re.search(r"train\.preference\.jsonl  7 rows, [\d,]+ bytes", done.stdout), done.stderr
    assert "No erasure reaches this copy" in done.stdout
    assert (out / "manifest.json").exists()
    assert str(out) in flywheel(home, "gold", "show", "dpo_gold_v1").stdout
    again = flywheel(home, "gold", "export", "dpo_gold_v1", "--format", "hf", "--out", str(out))
    assert "exists: choose another folder with --out, or replace it with --replace" in again.stderr
    replaced = flywheel(home, "gold", "export", "dpo_gold_v1", "--format", "hf", "--out", str(out), "--replace")
    assert replaced.returncode == 0, replaced.stderr
    assert (out / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give --to FOLDER for the version's own files, or --format"),
        (["--to", "there", "--format", "trl"], "give --to FOLDER"),
        (["--format", "alpaca"], "unknown format 'alpaca'; known: hf, kto, openai, parquet, trl"),
        (["--format", "trl", "--set", "accepted"], "unknown set 'accepted'; known: all, holdout, regression, train"),
        (["--format", "trl", "--out", "s3://bucket/x"], "writes a folder on this machine"),
    ],
)
def test_what_an_export_cannot_do_is_said(home: Path, arguments: list[str], complaint: str) -> None:
    failed = flywheel(home, "gold", "export", "dpo_gold_v1", *arguments)
    assert failed.returncode == 1
    assert complaint in failed.stderr


def test_a_narrow_terminal_breaks_no_name(home: Path) -> None:
    """In 80 columns `fraud_gold_v1` was `fraud_g/old_v1`, and each header was broken, too."""
    listed = flywheel(home, "gold", "list", width=80).stdout
    assert re.search(r"│ dpo_gold_v1 +│.*│ not decided +│", listed), listed
    assert "exclusions, model." in listed


def test_versions_are_listed_shown_compared_and_copied(home: Path) -> None:
    stores = Stores(home=str(home))
    cut_pair_version(
        stores.lake(NAME), stores.versions(NAME), "dpo_gold_v2", ResolutionRules(holdout_share=0.0, per_user_cap=9), "1"
    )
    listed = flywheel(home, "gold", "list").stdout
    assert re.search(r"dpo_gold_v1.*train 7.*2026-03-02 … 2026-03-03", listed), listed
    shown = flywheel(home, "gold", "show", "dpo_gold_v2").stdout
    manifest = read_manifest(stores.versions(NAME).folder("dpo_gold_v2").export)
    for fact in (str(manifest.snapshot_id), manifest.files[ExportSet.TRAIN].sha256, "rows: train", "per_user_cap"):
        assert fact in shown
    compared = flywheel(home, "gold", "diff", "dpo_gold_v1", "dpo_gold_v2").stdout
    assert re.search(r"train\W+5\W+0\W+0\W+7", compared), compared
    assert "rule per_user_cap" in compared
    assert "100 → 9" in compared
    copied = flywheel(home, "gold", "export", "dpo_gold_v1", "--to", str(home / "copies"))
    assert "dpo_gold_v1.parquet" in copied.stdout
    assert (home / "copies" / "dpo_gold_v1.manifest.json").exists()
    assert str(home / "copies") in flywheel(home, "gold", "show", "dpo_gold_v1").stdout


def test_rows_are_shown_and_texts_and_people_only_on_demand(home: Path) -> None:
    shown = flywheel(home, "gold", "rows", "--version", "dpo_gold_v1", "--limit", "3")
    assert "dpo_gold_v1, train: 3 rows" in shown.stdout, shown.stderr
    assert re.search(r"preference_pair\W+2026-03-0[23]\W+changes\W+user\W+0\.50\W+1\W+preference_pair", shown.stdout)
    assert not any(words in shown.stdout for words in ("prompt 2026", "chosen 2026", "user 2026"))
    more = flywheel(home, "gold", "rows", "--day", str(day(2)), "--text", "--subjects").stdout
    assert "2026-03-04: 5 rows" in more
    for words in ("prompt 2026-03-04 4", "chosen 2026-03-04 4", "rejected 2026-03-04 4", "user 2026-03-04 4"):
        assert words in more
    assert "holdout: 0 rows" in flywheel(home, "gold", "rows", "--version", "dpo_gold_v1", "--set", "holdout").stdout
    unknown = flywheel(home, "gold", "rows", "--version", "dpo_gold_v1", "--set", "evaluation")
    assert "unknown set of dpo_gold_v1 'evaluation'; known: accepted, demonstrations, holdout" in unknown.stderr
    assert "give --version, or --day" in flywheel(home, "gold", "rows").stderr
    assert "unknown export" in flywheel(home, "gold", "rows", "--version", "dpo_gold_v9").stderr


def test_an_event_is_traced_and_an_unknown_one_is_an_error(home: Path) -> None:
    traced = flywheel(home, "trace", f"{day(0)} 1")
    assert traced.returncode == 0, traced.stderr
    assert "is in gold as preference_pair" in traced.stdout
    assert "dpo_gold_v1 holds it: training rows." in traced.stdout
    assert "prompt 2026" not in traced.stdout
    unknown = flywheel(home, "trace", "nothing")
    assert unknown.returncode == 1
    assert "knows no event, prediction or pair 'nothing'. Looked at: ground_truth, raw_predictions, " in unknown.stderr
    assert unknown.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["gold", "show", "dpo_gold_v9"],
        ["gold", "diff", "dpo_gold_v9", "dpo_gold_v1"],
        ["gold", "export", "dpo_gold_v9", "--to", "nowhere"],
        ["rollback", "--to", "dpo_gold_v9", "--reason", "r"],
    ],
)
def test_an_unknown_version_is_answered_with_the_known_ones(home: Path, arguments: list[str]) -> None:
    failed = flywheel(home, *arguments)
    assert failed.returncode == 1
    assert re.search(r"unknown (gold version|tag) 'dpo_gold_v9'; known: dpo_gold_v1\.", failed.stderr), failed.stderr


def test_the_data_are_rolled_back_only_with_yes(home: Path) -> None:
    lake, gold = Stores(home=str(home)).lake(NAME), APPLICATION.tables.gold
    said = flywheel(home, "rollback", "--to", "dpo_gold_v1", "--data", "--reason", "poison").stdout
    assert "1 days change, with 5 rows before and 0 after" in said
    assert lake.count_rows_per_day(gold) == {day(0): 3, day(1): 4, day(2): 5}
    flywheel(home, "rollback", "--to", "dpo_gold_v1", "--data", "--reason", "poison", "--yes")
    assert lake.count_rows_per_day(gold) == {day(0): 3, day(1): 4}
    refused = flywheel(home, "rollback", "--to", "dpo_gold_v1", "--models", "--reason", "r")
    assert "unknown version with a registered model 'dpo_gold_v1'; known: none yet" in refused.stderr


def test_a_person_is_counted_first_and_erased_with_yes(home: Path) -> None:
    person = f"user {day(0)} 1"
    said = flywheel(home, "erase", "--user", person, "--reason", "their request").stdout
    assert re.search(r"curated_dpo_pairs\W+1\b", said), said
    assert re.search(r"dpo_gold_v1\W+1\b", said), said
    lake, gold = Stores(home=str(home)).lake(NAME), APPLICATION.tables.gold
    assert lake.count_rows_per_day(gold)[day(0)] == 3
    done = flywheel(home, "erase", "--user", person, "--reason", "their request", "--grace-hours", "0", "--yes")
    assert re.search(r"dpo_gold_v1\W+1, of the export 1\b", done.stdout), done.stderr
    assert lake.count_rows_per_day(gold)[day(0)] == 2
    assert "1 versions agree with their manifests" in flywheel(home, "verify").stdout
    (receipt,) = (home / "versions" / NAME / "erasures").glob("*.json")
    assert person not in receipt.read_text()
    assert "revision" in flywheel(home, "gold", "show", "dpo_gold_v1").stdout


def test_a_retraining_that_could_not_be_promoted_is_said_and_still_requested(tmp_path: Path) -> None:
    write_gold_days(Stores(home=str(tmp_path)).lake(NAME), {day(0): 60})
    sentence = "dpo_gold_v1: 5 held-out users of 60 with new rows would judge a version cut now, and the"
    asked = flywheel(tmp_path, "retrain", "--reason", "the first one")
    assert sentence in asked.stdout, asked.stderr
    assert "would request dpo_gold_v1" in asked.stdout
    done = flywheel(tmp_path, "retrain", "--reason", "the first one", "--yes")
    assert sentence in done.stdout
    assert "dpo_gold_v1 is trained at the trigger's next tick" in done.stdout

    examined = flywheel(tmp_path, "doctor").stdout
    assert "promotion of assistant" in examined
    assert "held-out" in examined
    assert "no tables yet" in " ".join(examined.split()), "those of the other application"
