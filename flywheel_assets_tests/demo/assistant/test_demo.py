import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from flywheel_assets.capture.service import running_capture
from flywheel_assets.demo.assistant.base_model import Assistant, BaseModel
from flywheel_assets.demo.assistant.demo import BASE_VERSION, Chapter, DemoPlan, run_demo
from flywheel_assets.demo.assistant.people import People
from flywheel_assets.demo.assistant.report import DayCounts, DemoReport, TurnReport
from flywheel_assets.demo.assistant.world import Workload
from flywheel_assets.demo.capture_client import CaptureDoor, SimulatedClock
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.measures.texts import Interval
from flywheel_assets.records import make_pair_id
from flywheel_assets_tests.demo.assistant.scripted import Scripted, ScriptedWheel, turn_report

FIRST = date(2026, 9, 1)
WORKLOAD = Workload({"read": 1.0})
PLAN = DemoPlan(
    first_day=FIRST,
    requests_per_day=40,
    chapters=(Chapter("one", 2, WORKLOAD), Chapter("two", 1, WORKLOAD), Chapter("three", 1, WORKLOAD)),
    people=People(engineers=20, vandals=5),
    measured_per_idiom=2,
)
BASE = BaseModel(Path("base"), 10, was_cached=True, seconds=0.5, loss=0.1)
COUNTS = DayCounts(joined=20, kept=15, dropped={"trivial_edit": 5}, refused_edits={})
V1, V2 = Path("v1/adapter"), Path("v2/adapter")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[CaptureDoor]:
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    with running_capture(tmp_path / "landing", ["assistant"], clock) as capture:
        yield CaptureDoor(capture.url, capture.seal, clock)


class Played:
    """A finished demo and everything that it left."""

    def __init__(self, tmp_path: Path, door: CaptureDoor, turns: list[TurnReport | Skipped], counts: DayCounts) -> None:
        self.deployed: list[tuple[Path, Path | None, str]] = []
        self.wheel = ScriptedWheel(turns, counts)
        self.out_dir = tmp_path / "demo"
        told = io.StringIO()
        self.report: DemoReport = run_demo(
            self.wheel, BASE, door, PLAN, self.out_dir, Console(file=told, width=120), self._deploy
        )
        self.told = told.getvalue()

    def _deploy(self, base: Path, adapter: Path | None, version: str) -> Assistant:
        self.deployed.append((base, adapter, version))
        return Scripted(version)


def test_a_promoted_adapter_serves_the_next_chapter(tmp_path: Path, door: CaptureDoor) -> None:
    turns = [
        turn_report("dpo_gold_v1", promoted=True, adapter=V1),
        turn_report("dpo_gold_v2", promoted=True, adapter=V2),
    ]
    played = Played(tmp_path, door, [*turns, Skipped("12 of 120 new pairs")], COUNTS)
    assert played.deployed == [
        (BASE.path, None, BASE_VERSION),
        (BASE.path, V1, "dpo_gold_v1"),
        (BASE.path, V2, "dpo_gold_v2"),
    ]
    versions = [day.model_version for chapter in played.report.chapters for day in chapter.days]
    assert versions == [BASE_VERSION, BASE_VERSION, "dpo_gold_v1", "dpo_gold_v2"]
    assert len(played.report.turns) == 2
    assert "12 of 120 new pairs" in played.told


def test_the_table_says_what_the_preference_part_added_and_where_it_added_nothing(
    tmp_path: Path, door: CaptureDoor
) -> None:
    added = turn_report("dpo_gold_v1", promoted=True, adapter=V1)
    nothing = replace(added, version="dpo_gold_v2", challenger_stage="sft", stage_reason="It is inferior.")
    told = " ".join(Played(tmp_path, door, [added, nothing, Skipped("no")], COUNTS).told.split())
    assert re.search(r"sampled answers that say what was corrected │ 90\.0 % │ 0\.0 %", told)
    assert "0.0 % (0.0 to 1.0) of sampled answers say what was corrected, 6.0 % (2.0 to 12.0) of SFT's" in told
    assert "the bounds do not overlap" in told
    assert "NED 0.030 against 0.040" in told
    assert "The preference part added nothing: the challenger is the SFT adapter. It is inferior." in told
    few = replace(added, wrong_answers={**added.wrong_answers, "sft": Interval(0.01, 0.0, 0.12, 60, 30)})
    assert "these few people cannot prove" in few.preference_sentence
    assert "no answers were sampled" in replace(added, wrong_answers={}).preference_sentence


def test_what_is_not_promoted_never_serves(tmp_path: Path, door: CaptureDoor) -> None:
    blocked = turn_report("dpo_gold_v1", promoted=False, adapter=V1)
    played = Played(tmp_path, door, [blocked, Skipped("nothing new"), Skipped("nothing new")], COUNTS)
    assert played.deployed == [(BASE.path, None, BASE_VERSION)]
    assert {chapter.model_version for chapter in played.report.chapters} == {BASE_VERSION}
    assert "not better" in played.told


def test_every_chapter_is_materialized_once_and_no_day_is_left_out(tmp_path: Path, door: CaptureDoor) -> None:
    played = Played(tmp_path, door, [Skipped("no")] * 3, COUNTS)
    day = timedelta(days=1)
    assert played.wheel.materialized == [
        (FIRST, FIRST + day),
        (FIRST + 2 * day, FIRST + 2 * day),
        (FIRST + 3 * day, FIRST + 3 * day),
    ]
    assert door.clock() > datetime.combine(FIRST + 4 * day, datetime.min.time(), UTC)


@pytest.mark.long
def test_vandals_are_followed_to_where_their_edits_ended(tmp_path: Path, door: CaptureDoor) -> None:
    days = [
        day for chapter in Played(tmp_path, door, [Skipped("no")] * 3, COUNTS).report.chapters for day in chapter.days
    ]
    culprits = [prediction for day in days for prediction in day.vandalism]
    caught, trained = culprits[0], culprits[1]
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    counts = DayCounts(
        joined=20, kept=15, dropped={"secret": 1}, refused_edits={caught: "secret", "not-a-vandal": "empty"}
    )
    turn = turn_report(
        "dpo_gold_v1",
        promoted=False,
        pair_ids=frozenset({make_pair_id("assistant", trained), make_pair_id("assistant", "honest")}),
    )
    with running_capture(tmp_path / "again", ["assistant"], clock) as capture:
        again = CaptureDoor(capture.url, capture.seal, clock)
        played = Played(tmp_path, again, [turn, Skipped("no"), Skipped("no")], counts)
    account = played.report.vandals
    assert account.edits == len(culprits)
    assert account.caught == {"secret": 1}
    assert sum(account.in_gold.values()) == len(culprits) - 1
    assert (account.in_last_training, account.last_training_pairs) == (1, 2)
    assert account.sentence in " ".join(played.told.split())


def test_the_report_holds_the_numbers_but_no_text_and_no_path(tmp_path: Path, door: CaptureDoor) -> None:
    turns: list[TurnReport | Skipped] = [
        turn_report("dpo_gold_v1", promoted=True, adapter=tmp_path),
        Skipped("no"),
        Skipped("no"),
    ]
    played = Played(tmp_path, door, turns, COUNTS)
    text = (played.out_dir / "report.json").read_text()
    report = json.loads(text)
    assert report["seed"] == PLAN.seed
    assert [day["requests"] for chapter in report["chapters"] for day in chapter["days"]] == [40] * 4
    assert report["chapters"][0]["turn"]["ned_challenger"] == 0.03
    assert report["hardware"]["cores"] >= 1
    assert set(report["chapters"][0]["seconds"]) == {"play", "materialize", "turn", "measure"}
    assert str(tmp_path) not in text
    assert "no idea about" not in text


def test_the_picture_is_a_png_of_readable_width(tmp_path: Path, door: CaptureDoor) -> None:
    turns: list[TurnReport | Skipped] = [
        turn_report("dpo_gold_v1", promoted=True, adapter=V1),
        Skipped("no"),
        Skipped("no"),
    ]
    image = (Played(tmp_path, door, turns, COUNTS).out_dir / "demo.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(image[16:20], "big") == pytest.approx(1_100, abs=150)
