"""Plays the founding story, from the first wrong answer to the second promotion.

    base = prepare_base(plan, cache_dir, console)      # pretrain the model that learnt the libraries wrongly
    report = run_demo(wheel, base, door, plan, out_dir, console)

Each chapter is some days of traffic with whatever model serves, over HTTP into capture; then those days are
materialized in one range run, and the trigger decides whether the wheel turns. A promoted adapter serves the next
chapter. `out_dir` gets `demo.png` and `report.json`, which holds every number that is shown.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from flywheel_assets.demo.assistant import _narration as narration
from flywheel_assets.demo.assistant.base_model import Assistant, BaseConfig, BaseModel, Deployment, ensure_base_model
from flywheel_assets.demo.assistant.people import People
from flywheel_assets.demo.assistant.play import ArmCounts, DayStats, play_days, play_routed_day
from flywheel_assets.demo.assistant.report import (
    ChapterReport,
    DayCounts,
    DemoReport,
    TurnReport,
    VandalAccount,
    account_for_vandals,
    draw,
    measure,
)
from flywheel_assets.demo.assistant.rollback import Production, RollbackReport, play_rollback
from flywheel_assets.demo.assistant.world import Workload, World
from flywheel_assets.demo.capture_client import CaptureDoor
from flywheel_assets.demo.staging import Stopwatch, Wheel, describe_hardware, make_progress_bar

BASE_VERSION = "base"
_FIRST_IDIOMS = ("read", "write", "secret", "metric", "bus", "flag")
_NEW_IDIOMS = ("cron", "cache")
_FIRST_WEEK = Workload(dict.fromkeys(_FIRST_IDIOMS, 1.0))
# Half of the internal traffic is about the two new modules: otherwise the second turn has nothing left to learn.
_LATER_WEEKS = Workload({**dict.fromkeys(_FIRST_IDIOMS, 1.0), **dict.fromkeys(_NEW_IDIOMS, 3.0)})


@dataclass(frozen=True)
class Chapter:
    """Some days of traffic, after which the trigger is evaluated."""

    title: str
    days: int
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """The settings of the story."""

    first_day: date
    seed: int = 0
    requests_per_day: int = 320
    chapters: tuple[Chapter, ...] = (
        Chapter("week 1: the base model serves", 7, _FIRST_WEEK),
        Chapter("week 2: two more internal modules", 7, _LATER_WEEKS),
        Chapter("week 3: the same work", 5, _LATER_WEEKS),
    )
    world: World = field(default_factory=World)
    people: People = field(default_factory=People)
    base: BaseConfig = field(default_factory=BaseConfig)
    measured_per_idiom: int = 40


def prepare_base(plan: DemoPlan, cache_dir: Path, console: Console) -> BaseModel:
    """Pretrain the base model, or take it from the cache."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would draw over ours
    with make_progress_bar(console) as progress:
        task = progress.add_task("pretraining the base model", total=plan.base.steps)
        base = ensure_base_model(
            plan.world, plan.base, cache_dir, on_step=lambda done, total: progress.update(task, completed=done)
        )
        progress.update(task, completed=plan.base.steps)
    narration.print_base(console, base)
    return base


def run_demo(
    wheel: Wheel[DayCounts, TurnReport],
    base: BaseModel,
    door: CaptureDoor,
    plan: DemoPlan,
    out_dir: Path,
    console: Console,
    deploy: Callable[[Path, Path | None, str], Assistant] = Deployment,
    production: Production | None = None,
) -> DemoReport:
    """Play every chapter, print it, and write `demo.png` and `report.json` into `out_dir`.

    Args:
        wheel: the flywheel.
        base: the base model that its versions are trained from.
        door: the capture service that the wheel's landing zone belongs to.
        plan: the settings of the story.
        out_dir: gets the two files.
        console: gets the story.
        deploy: makes the assistant that answers, from the base model, an adapter or none, and a version name.
        production: rolls the last promoted model out for the epilogue; None: there is none.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    started = time.monotonic()
    measurement = plan.world.draw_measurement(plan.measured_per_idiom, plan.seed)
    assistant = deploy(base.path, None, BASE_VERSION)
    accuracy = measure(assistant, measurement)
    narration.print_measurement(console, measurement, accuracy)
    chapters: list[ChapterReport] = []
    first = plan.first_day
    for number, chapter in enumerate(plan.chapters):
        console.rule(f"[bold]{chapter.title}")
        stages = Stopwatch()
        days = _play(assistant, chapter, number, first, plan, door, console)
        stages.lap("play")
        with console.status(f"materializing {days[0].day} … {days[-1].day} in one run"):
            counts = wheel.materialize(days[0].day, days[-1].day)
        stages.lap("materialize")
        with console.status("the trigger counts; if it fires: cut a version, train, evaluate, decide"):
            turn = wheel.turn()
        stages.lap("turn")
        first = days[-1].day + timedelta(days=1)
        accuracy_before = accuracy
        if isinstance(turn, TurnReport) and turn.promoted:
            assistant = deploy(base.path, turn.champion_adapter, turn.version)
            accuracy = measure(assistant, measurement)
        stages.lap("measure")
        report = ChapterReport(
            title=chapter.title,
            model_version=accuracy_before.model_version,
            days=days,
            counts=counts,
            accuracy=accuracy_before,
            turn=turn,
            accuracy_after=accuracy,
            seconds=stages.seconds,
        )
        narration.print_chapter(console, report)
        chapters.append(report)
    rollback = None
    if production is not None:
        rollback = _play_epilogue(production, chapters, first, base, door, plan, console, deploy)
    finished = DemoReport(
        seed=plan.seed,
        first_day=plan.first_day,
        base=base,
        chapters=tuple(chapters),
        vandals=_account_for_vandals(door.application, chapters),
        rollback=rollback,
        seconds=time.monotonic() - started + base.seconds,
        hardware=describe_hardware(),
    )
    _write(finished, out_dir)
    narration.print_summary(console, finished, out_dir)
    return finished


def _play_epilogue(
    production: Production,
    chapters: list[ChapterReport],
    first_day: date,
    base: BaseModel,
    door: CaptureDoor,
    plan: DemoPlan,
    console: Console,
    deploy: Callable[[Path, Path | None, str], Assistant],
) -> RollbackReport | None:
    promoted = [each.turn for each in chapters if isinstance(each.turn, TurnReport) and each.turn.promoted]
    if len(promoted) < 2:
        console.print("no epilogue: it needs two promotions, one model to be rolled out and one to go back to")
        return None
    before, challenger = promoted[-2:]
    arms = {
        challenger.version: deploy(base.path, None, challenger.version),
        before.version: deploy(base.path, before.champion_adapter, before.version),
    }

    def play_day(day: date, route: Callable[[str], str]) -> Mapping[str, ArmCounts]:
        # What both versions learnt: else a third of the predecessor's answers, too, would be corrected.
        workload = plan.chapters[0].workload
        return play_routed_day(
            arms, route, plan.world, workload, plan.people, day, plan.requests_per_day, door, plan.seed
        )

    return play_rollback(production, play_day, challenger.version, before.version, first_day, console)


def _play(
    assistant: Assistant,
    chapter: Chapter,
    number: int,
    first: date,
    plan: DemoPlan,
    door: CaptureDoor,
    console: Console,
) -> tuple[DayStats, ...]:
    days = [first + timedelta(days=offset) for offset in range(chapter.days)]
    played: list[DayStats] = []
    with make_progress_bar(console) as progress:
        task = progress.add_task(f"playing {first} … {days[-1]} with {assistant.model_version}", total=len(days))
        for stats in play_days(
            assistant,
            plan.world,
            chapter.workload,
            plan.people,
            days,
            plan.requests_per_day,
            door,
            seed=plan.seed,
        ):
            played.append(stats)
            progress.advance(task)
    return tuple(played)


def _account_for_vandals(application: str, chapters: list[ChapterReport]) -> VandalAccount:
    turns = [chapter.turn for chapter in chapters if isinstance(chapter.turn, TurnReport)]
    refused: dict[str, str] = {}
    for chapter in chapters:
        refused.update(chapter.counts.refused_edits)
    days = [day for chapter in chapters for day in chapter.days]
    return account_for_vandals(application, days, refused, turns[-1] if turns else None)


def _write(report: DemoReport, out_dir: Path) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    days = [day for chapter in report.chapters for day in chapter.days]
    draw(days, {each.model_version: each.accuracy for each in report.chapters}, out_dir / "demo.png")
    (out_dir / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(to_json(report)), indent=2))


def to_json(report: DemoReport) -> dict[str, Any]:
    """Convert every number of the report to JSON values, without machine paths and single predictions."""
    value: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    del value["base"]["path"]
    for chapter in value["chapters"]:
        chapter["counts"].pop("refused_edits")
        for private in ("champion_adapter", "train_pair_ids"):
            chapter["turn"].pop(private, None)
        for day in chapter["days"]:
            day["vandalism"] = dict(Counter(day["vandalism"].values()))
    return value
