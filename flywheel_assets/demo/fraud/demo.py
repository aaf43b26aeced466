"""Plays the second story: a fraud that no model has seen appears, and the flywheel learns it from late labels.

    bank, static = prepare(plan, folder, console)      # ten weeks without a flywheel, and the model trained on them
    report = run_fraud_demo(wheel, bank, static, door, plan, out_dir, console)

Each chapter is some weeks of payments that the serving model decides, over HTTP into capture; then those days are
materialized in one range run, and the trigger decides whether the wheel turns. A promoted classifier decides from the
next day on. `out_dir` gets `demo-fraud.png` and `report.json`, which holds every number that is shown.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from flywheel_assets.demo.capture_client import CaptureDoor
from flywheel_assets.demo.fraud import _narration as narration
from flywheel_assets.demo.fraud.bank import (
    PREHISTORY_DAYS,
    STATIC_VERSION,
    Bank,
    DeployedClassifier,
    FraudModel,
    Policy,
    StaticModel,
    live_prehistory,
)
from flywheel_assets.demo.fraud.labels import Outside
from flywheel_assets.demo.fraud.play import PlayedDay, play_days
from flywheel_assets.demo.fraud.report import (
    DAYS_PER_WEEK,
    ClassifierTurn,
    FraudChapterReport,
    FraudDemoReport,
    MinedDays,
    compare_models,
    compute_gain,
    draw,
    group_weeks,
)
from flywheel_assets.demo.fraud.world import FraudWorld
from flywheel_assets.demo.staging import Skipped, Stopwatch, Wheel, describe_hardware, make_progress_bar


@dataclass(frozen=True)
class Chapter:
    """Some weeks of payments, after which the trigger is evaluated."""

    title: str
    weeks: int


@dataclass(frozen=True, kw_only=True)
class FraudDemoPlan:
    """The settings of the story."""

    first_day: date
    seed: int = 0
    quiet: Chapter = Chapter("weeks 1–6: the static model serves, and nothing is new", 6)
    chapters: tuple[Chapter, ...] = (
        Chapter("weeks 7–10: a new fraud appears, and its labels come late", 4),
        Chapter("weeks 11–13", 3),
        Chapter("weeks 14–16", 3),
        Chapter("weeks 17–19", 3),
        Chapter("weeks 20–22", 3),
    )
    """After the new fraud's first day."""
    world: FraudWorld = field(default_factory=FraudWorld)
    """Its seed and the new fraud's first day are the plan's."""
    outside: Outside = field(default_factory=Outside)
    policy: Policy = field(default_factory=Policy)


def prepare(plan: FraudDemoPlan, folder: Path, console: Console) -> tuple[Bank, StaticModel]:
    """Let the bank live until the first day, and train the static model on the labels until then.

    Args:
        plan: the settings of the story.
        folder: gets the static model's files.
        console: gets the story.
    """
    emerges_on = plan.first_day + timedelta(weeks=plan.quiet.weeks)
    world = replace(plan.world, seed=plan.seed, emerges_on=emerges_on)
    outside = replace(plan.outside, seed=plan.seed)
    bank = Bank(world, outside, plan.policy, plan.first_day - timedelta(days=PREHISTORY_DAYS))
    with console.status("ten weeks without a flywheel; then the static model is trained"):
        static = live_prehistory(bank, plan.first_day, folder)
    narration.print_world(console, world, static)
    return bank, static


def run_fraud_demo(
    wheel: Wheel[MinedDays, ClassifierTurn],
    bank: Bank,
    static: StaticModel,
    door: CaptureDoor,
    plan: FraudDemoPlan,
    out_dir: Path,
    console: Console,
    deploy: Callable[[Path, str], FraudModel] = DeployedClassifier,
) -> FraudDemoReport:
    """Play every chapter, print it, and write `demo-fraud.png` and `report.json` into `out_dir`.

    Args:
        wheel: the flywheel.
        bank: has lived until the plan's first day.
        static: the model that serves first, and that every later one is compared with.
        door: the capture service that the wheel's landing zone belongs to.
        plan: the settings of the story.
        out_dir: gets the two files.
        console: gets the story.
        deploy: makes the scoring model, from a model's folder and a version name.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    started = time.monotonic()
    static_model = deploy(static.folder, STATIC_VERSION)
    serving = static_model
    played: list[PlayedDay] = []
    chapters: list[FraudChapterReport] = []
    first = plan.first_day
    for chapter in (plan.quiet, *plan.chapters):
        console.rule(f"[bold]{chapter.title}")
        stages = Stopwatch()
        days = _play(bank, serving, static_model, chapter, first, door, console)
        stages.lap("play")
        with console.status(f"materializing {days[0].day} … {days[-1].day} in one run"):
            mined = wheel.materialize(days[0].day, days[-1].day)
        stages.lap("materialize")
        with console.status("the trigger counts; if it fires: cut a version, train, evaluate, decide"):
            turn = wheel.turn()
        stages.lap("turn")
        report = _report_chapter(chapter, days, mined, turn, stages.seconds)
        narration.print_chapter(console, report, group_weeks(days))
        chapters.append(report)
        played += days
        first = days[-1].day + timedelta(days=1)
        if isinstance(turn, ClassifierTurn) and turn.promoted and turn.champion is not None:
            serving = deploy(turn.champion, turn.version)
            if turn.threshold is not None:
                bank.block_from(turn.threshold)
    finished = _report_story(plan, bank, static, chapters, played, time.monotonic() - started)
    _write(finished, out_dir)
    narration.print_summary(console, finished, out_dir)
    return finished


def _play(
    bank: Bank,
    serving: FraudModel,
    static: FraudModel,
    chapter: Chapter,
    first: date,
    door: CaptureDoor,
    console: Console,
) -> list[PlayedDay]:
    days = [first + timedelta(days=offset) for offset in range(chapter.weeks * DAYS_PER_WEEK)]
    played: list[PlayedDay] = []
    with make_progress_bar(console) as progress:
        task = progress.add_task(f"playing {first} … {days[-1]} with {serving.model_version}", total=len(days))
        for day in play_days(bank, serving, static, days, door):
            played.append(day)
            progress.advance(task)
    return played


def _report_chapter(
    chapter: Chapter,
    days: Sequence[PlayedDay],
    mined: MinedDays,
    turn: ClassifierTurn | Skipped,
    seconds: Mapping[str, float],
) -> FraudChapterReport:
    return FraudChapterReport(
        title=chapter.title,
        model_version=days[0].model_version,
        first_day=days[0].day,
        last_day=days[-1].day,
        actions=_add_up([day.actions for day in days]),
        labels=_add_up([day.labels for day in days]),
        predictions_acknowledged=sum(day.predictions_acknowledged for day in days),
        labels_acknowledged=sum(day.labels_acknowledged for day in days),
        scores=compare_models(days),
        mined=mined,
        turn=turn,
        seconds=seconds,
    )


def _report_story(
    plan: FraudDemoPlan,
    bank: Bank,
    static: StaticModel,
    chapters: Sequence[FraudChapterReport],
    played: Sequence[PlayedDay],
    seconds: float,
) -> FraudDemoReport:
    emerged = [day for day in played if day.day >= bank.world.emerges_on]
    promoted = [day for day in emerged if day.model_version != STATIC_VERSION]
    waiting = emerged[: len(emerged) - len(promoted)]
    return FraudDemoReport(
        seed=plan.seed,
        first_day=plan.first_day,
        emerges_on=bank.world.emerges_on,
        static=static,
        chapters=tuple(chapters),
        weeks=tuple(group_weeks(played)),
        before_promotion=compare_models(waiting) if waiting else None,
        after_promotion=compare_models(promoted) if promoted else None,
        gain_after_promotion=compute_gain(promoted, plan.seed) if promoted else None,
        seconds=seconds,
        hardware=describe_hardware(),
    )


def _add_up(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _write(report: FraudDemoReport, out_dir: Path) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    draw(report.weeks, out_dir / "demo-fraud.png")
    (out_dir / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(to_json(report)), indent=2))


def to_json(report: FraudDemoReport) -> dict[str, Any]:
    """Convert every number of the report to JSON values, without machine paths."""
    value: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    del value["static"]["folder"]
    for chapter in value["chapters"]:
        chapter["turn"].pop("champion", None)
    return value
