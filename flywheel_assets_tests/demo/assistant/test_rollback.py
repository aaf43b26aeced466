"""The demo's epilogue: a model that passed is worse for people, and the daily jobs take it back."""

import io
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.capture.service import running_capture
from flywheel_assets.cli.serving import demo
from flywheel_assets.defs.resources import Stores
from flywheel_assets.demo.assistant._production import DagsterProduction
from flywheel_assets.demo.assistant.people import People, Person, Reaction
from flywheel_assets.demo.assistant.play import ArmCounts, play_routed_day
from flywheel_assets.demo.assistant.rollback import play_rollback
from flywheel_assets.demo.assistant.world import Request, Workload, World
from flywheel_assets.demo.capture_client import CaptureDoor, SimulatedClock
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.tables.specs import ROLLBACKS
from flywheel_assets.records import Signal
from flywheel_assets_tests.builders import DAY, day
from flywheel_assets_tests.defs.promoted import V1, V2, promote_two_versions
from flywheel_assets_tests.demo.assistant.scripted import Scripted

FIRST = day(30)


@dataclass(frozen=True)
class Readers(People):
    """People who rewrite four in ten answers of the faulty model, and one in ten of the other."""

    def react(self, rng: random.Random, person: Person, request: Request, output: str) -> Reaction | None:
        if rng.random() < (0.4 if output == "faulty" else 0.1):
            return Reaction(Signal.EDIT, request.right)
        return None


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.mark.slow
def test_a_challenger_that_people_correct_more_often_is_taken_back_by_the_daily_jobs(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Nothing is staged but the answers: capture, landing, join, watch, rollout, alias, hook and audit are real."""
    stores, printed = Stores(home=str(tmp_path)), io.StringIO()
    application = replace(APPLICATION, start_date=DAY)
    promote_two_versions(stores)
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    with running_capture(stores.landing_folder(), ["assistant"], clock) as capture:
        door = CaptureDoor(capture.url, capture.seal, clock)
        production = DagsterProduction(application, instance, stores, tmp_path / "serving" / "event.json", clock)
        arms = {V2: Scripted(V2, lambda _: "faulty"), V1: Scripted(V1, lambda _: "fine")}
        served: dict[str, set[str]] = {V1: set(), V2: set()}

        def play_day(on: date, route: Callable[[str], str]) -> Mapping[str, ArmCounts]:
            def remembered(user: str) -> str:
                served[route(user)].add(user)
                return route(user)

            return play_routed_day(arms, remembered, World(), Workload({"read": 1.0}), Readers(), on, 320, door, seed=0)

        report = play_rollback(production, play_day, V2, V1, FIRST, Console(file=printed, width=200))
    assert report.was_taken_back
    # A person has one model, by the hash of the hook's event.
    assert not served[V1] & served[V2]
    assert min(map(len, served.values())) > 80
    state = stores.registry("assistant").find_rollout()
    assert (state.champion, state.share, state.has_predecessor) == (V1, 1.0, False)
    event = production.read_event()
    assert (event["kind"], event["gold_version"]) == ("rollback", V1)
    assert event["traffic"]["arms"][0]["share"] == 1.0  # type: ignore[index]
    rows = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    back = [row for row in rows if row["what"] != "share"]
    assert [(row["to_version"], row["decided_by"]) for row in back] == [(V1, "flywheel")]
    assert "edited: worse" in back[0]["reason"] == report.reason
    assert "was taken back by itself after" in " ".join(printed.getvalue().split())
    # The day on which it begins decides nothing; the next one is enough for so gross a harm.
    assert (len(report.days), report.answers) == (2, 640)


def test_only_the_assistants_story_has_an_epilogue() -> None:
    with pytest.raises(SettingsError, match="leave it out"):
        demo(application="fraud", seed=0, rollback=True)
