"""A home of the release before: its tables lack today's columns, and every command over gold still works on it."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, LEDGER, TableSpec
from flywheel_assets.lake.versions.exclusions import list_exclusions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.records import make_stable_id
from flywheel_assets_tests.builders import NOON, day, make_gold, table
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.lake.gold import write_gold_days

NAME = APPLICATION.name
NEW_GOLD = frozenset(
    (
        *("stance", "statement_id", "revision", "sibling_id", "retracts", "thread_id", "refused_reason", "admitted_by"),
        *("tools", "chosen_message", "rejected_message", "request_hash", "request_signature", "anchors"),
    )
)
NEW_EXCLUSIONS = frozenset(("prediction_id", "thread_id", "statement_id", "event_id", "source"))


def age(spec: TableSpec, new: frozenset[str]) -> TableSpec:
    """The table as the release before knew it."""
    assert new <= set(spec.schema.names)
    return replace(spec, schema=pa.schema([field for field in spec.schema if field.name not in new]))


def make_old_home(lake: Lake) -> None:
    """Two closed days of gold, their ledger entries, and one exclusion of a user, without any new column."""
    gold, ledger = age(CURATED_DPO_PAIRS, NEW_GOLD), age(LEDGER, frozenset(("rows_stated",)))
    for offset in (0, 1):
        kinds = ({}, {"example_kind": "accepted_output"}, {"subject": "mallory"})
        rows = [
            make_gold(
                completed_date=day(offset), prediction_id=f"{offset} {at}", feedback_event_id=f"e{offset}{at}", **kind
            )
            for at, kind in enumerate(kinds)
        ]
        # Of one output the same edit came twice: the older release kept both rows.
        rows += [{**rows[0], "feedback_event_id": f"newer{offset}", "feedback_received_at": NOON + timedelta(hours=1)}]
        with lake.connect() as connection:
            given = pa.Table.from_pylist(rows, schema=gold.schema)
            connection.register("given", given)
            file = lake.write_day(connection, gold, day(offset), "SELECT * FROM given")
        assert file is not None
        lake.replace_days(gold, [day(offset)], {day(offset): file}, {})
    stamp = {"run_id": "r", "code_version": "1", "recorded_at": datetime(2026, 3, 9, tzinfo=UTC)}
    entries = [
        {"asset": gold.name, "day": day(at), "is_closed": True, "content_hash": f"{at}", "input_hashes": "{}"}
        | {"rows_in": 4, "rows_kept": 4, "rows_by_reason": "{}", "rows_held": 0, **stamp}
        for at in (0, 1)
    ]
    lake.replace_all(ledger, lambda _: table(ledger.schema, entries), {})
    excluded = {
        "id": make_stable_id("exclusion")[:12],
        "decided_at": datetime(2026, 3, 10, tzinfo=UTC),
        "decided_by": "ada",
        "reason": "spam",
        "user_id": "mallory",
    }
    exclusions = age(EXCLUSIONS, NEW_EXCLUSIONS)
    lake.replace_all(exclusions, lambda _: table(exclusions.schema, [excluded]), {})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_old_home(Stores(home=str(tmp_path)).lake(NAME))
    return tmp_path


@pytest.mark.long
def test_every_command_over_gold_works_on_a_home_of_the_release_before(home: Path) -> None:
    stores = Stores(home=str(home))
    assert "by ada" in flywheel(home, "exclusions").stdout
    traced = flywheel(home, "trace", "0 0")
    assert "Event e00 is superseded by event newer0" in traced.stdout, traced.stderr
    assert re.search(r"is in gold as preference_pair \w+ \(similarity", traced.stdout)
    assert "keeps it out of later versions: spam" in flywheel(home, "trace", "0 2").stdout

    cut_pair_version(stores.lake(NAME), stores.versions(NAME), "dpo_gold_v1", ResolutionRules(holdout_share=0.0), "1")
    verified = flywheel(home, "verify")
    assert verified.returncode == 0, verified.stderr + verified.stdout
    shown = flywheel(home, "gold", "rows", "--version", "dpo_gold_v1")
    assert "e00" not in shown.stdout
    assert "preference_pair" in shown.stdout, shown.stderr
    day_rows = flywheel(home, "gold", "rows", "--day", day(0).isoformat(), "--subjects")
    assert "mallory" in day_rows.stdout, day_rows.stderr

    # By columns that the old table did not have; the old exclusion stays what it was.
    for rule in (("--prediction", "1 0"), ("--event", "e11"), ("--source", "app"), ("--user", "mallory")):
        said = flywheel(home, "exclude", *rule, "--reason", "r", "--yes")
        assert said.returncode == 0, said.stderr
    known = list_exclusions(stores.lake(NAME))
    assert [each.rule.user_id for each in known if each.decided_by == "ada"] == ["mallory"]
    assert len(known) == 5
    listed = flywheel(home, "exclusions").stdout
    assert len(re.findall("in force", listed)) == 5
    included = flywheel(home, "include", make_stable_id("exclusion")[:12], "--reason", "fine", "--yes")
    assert included.returncode == 0, included.stderr
    assert flywheel(home, "verify").returncode == 0


def test_days_of_both_releases_are_cut_into_one_version(home: Path) -> None:
    stores = Stores(home=str(home))
    write_gold_days(stores.lake(NAME), {day(2): 3})
    manifest = cut_pair_version(
        stores.lake(NAME), stores.versions(NAME), "dpo_gold_v1", ResolutionRules(holdout_share=0.0), "1"
    )
    assert manifest.dropped.get("superseded") == 2
    assert len(manifest.days) == 3
    assert flywheel(home, "verify").returncode == 0
    assert "dpo_gold_v1 holds it: training rows" in flywheel(home, "trace", f"{day(2)} 0").stdout
