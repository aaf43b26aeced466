import io
import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from flywheel_assets.demo.fraud.bank import STATIC_VERSION, Bank, Policy, StaticModel
from flywheel_assets.demo.fraud.demo import Chapter, FraudDemoPlan, run_fraud_demo
from flywheel_assets.demo.fraud.labels import Outside
from flywheel_assets.demo.fraud.report import ClassifierTurn
from flywheel_assets.demo.fraud.world import FraudWorld
from flywheel_assets.demo.staging import Skipped
from flywheel_assets_tests.demo.fraud.scripted import RecordingDoor, Scripted, ScriptedWheel, turn_report

FIRST = date(2026, 3, 2)
PLAN = FraudDemoPlan(
    first_day=FIRST,
    quiet=Chapter("quiet", 1),
    chapters=(Chapter("new", 1), Chapter("learnt", 2)),
    world=FraudWorld(cards=100, terminals=120, terminals_compromised_per_day=0.005),
)
CHAMPION = Path("versions/fraud_gold_v1/training")


class Played:
    """A finished demo and everything that it left."""

    def __init__(self, out_dir: Path, turns: list[ClassifierTurn | Skipped]) -> None:
        self.deployed: list[tuple[Path, str]] = []
        self.wheel = ScriptedWheel(turns)
        self.door = RecordingDoor(FIRST)
        world = replace(PLAN.world, emerges_on=FIRST + timedelta(weeks=PLAN.quiet.weeks))
        bank = Bank(world, Outside(), Policy(), FIRST)
        told = io.StringIO()
        self.report = run_fraud_demo(
            self.wheel,
            bank,
            StaticModel(Path("static"), 1_000, 10),
            self.door,  # type: ignore[arg-type]
            PLAN,
            out_dir,
            Console(file=told, width=120),
            self._deploy,
        )
        self.told = told.getvalue()

    def _deploy(self, folder: Path, version: str) -> Scripted:
        self.deployed.append((folder, version))
        return Scripted(version, "amount" if version == STATIC_VERSION else "card_mean_amount_1d")


def test_a_promoted_classifier_decides_from_the_next_chapter_on(tmp_path: Path) -> None:
    promoted = turn_report("fraud_gold_v1", promoted=True, champion=CHAMPION)
    played = Played(tmp_path, [Skipped("12 of 250 new positives"), promoted, Skipped("nothing new")])
    assert played.deployed == [(Path("static"), STATIC_VERSION), (CHAMPION, "fraud_gold_v1")]
    assert [chapter.model_version for chapter in played.report.chapters] == [STATIC_VERSION] * 2 + ["fraud_gold_v1"]
    versions = [event["data"]["model_version"] for event in played.door.of("flywheel.prediction")]
    assert set(versions) == {STATIC_VERSION, "fraud_gold_v1"}
    assert "12 of 250 new positives" in played.told
    after = played.report.after_promotion
    assert after is not None
    assert after.payments == played.report.chapters[2].scores.payments
    assert played.report.gain_after_promotion is not None


@pytest.mark.long
def test_the_bank_blocks_from_the_promoted_threshold_on(tmp_path: Path) -> None:
    """It blocked from the static model's threshold on, which for a new model means another number of alerts."""
    promoted = replace(turn_report("fraud_gold_v1", promoted=True, champion=CHAMPION), threshold=0.05)
    played = Played(tmp_path / "new", [Skipped("no"), promoted, Skipped("no")])
    unchanged = replace(promoted, threshold=None)
    before = Played(tmp_path / "old", [Skipped("no"), unchanged, Skipped("no")])
    blocks = [each.report.chapters[2].actions.get("block", 0) for each in (before, played)]
    assert blocks[0] < blocks[1], blocks
    assert before.report.chapters[1].actions == played.report.chapters[1].actions


def test_what_is_not_promoted_never_serves(tmp_path: Path) -> None:
    blocked = turn_report("fraud_gold_v1", promoted=False)
    played = Played(tmp_path, [Skipped("no"), blocked, Skipped("no")])
    assert played.deployed == [(Path("static"), STATIC_VERSION)]
    assert played.report.after_promotion is None
    assert "not better" in played.told
    assert "the static model decided to the end" in played.told


def test_every_chapter_is_materialized_once_and_no_day_is_left_out(tmp_path: Path) -> None:
    played = Played(tmp_path, [Skipped("no")] * 3)
    day = timedelta(days=1)
    assert played.wheel.materialized == [
        (FIRST, FIRST + 6 * day),
        (FIRST + 7 * day, FIRST + 13 * day),
        (FIRST + 14 * day, FIRST + 27 * day),
    ]
    assert played.door.ended == [FIRST + offset * day for offset in range(28)]
    assert [week.scores.emerging > 0 for week in played.report.weeks] == [False, True, True, True]


def test_the_report_holds_every_number_and_no_path(tmp_path: Path) -> None:
    promoted = turn_report("fraud_gold_v1", promoted=True, champion=tmp_path)
    played = Played(tmp_path, [promoted, Skipped("no"), Skipped("no")])
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert str(tmp_path) not in text
    assert len(report["weeks"]) == 4
    assert report["weeks"][3]["scores"]["live"]["ap"] == played.report.weeks[3].scores.live.ap
    assert report["chapters"][0]["turn"]["ap_challenger"] == 0.5
    assert set(report["chapters"][0]["seconds"]) == {"play", "materialize", "turn"}
    assert report["hardware"]["cores"] >= 1


@pytest.mark.long
def test_the_picture_is_a_png_of_readable_width(tmp_path: Path) -> None:
    Played(tmp_path, [turn_report("fraud_gold_v1", promoted=True, champion=CHAMPION), Skipped("no"), Skipped("no")])
    image = (tmp_path / "demo-fraud.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(image[16:20], "big") == pytest.approx(1_100, abs=150)
