"""One turn from HTTP to a promoted adapter: real capture, runs, sensor, and the trainer in its own process."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest

from flywheel_assets.application import PreferenceApplication, PromotionHook, Trigger
from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, RETRY_REQUESTED
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, request_retry
from flywheel_assets.lake.versions.exports import read_manifest
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets_tests.training.small_world import RECIPE, ask, trained_base

pytestmark = pytest.mark.long

FIRST = date(2026, 9, 1)
MORNING = datetime(2026, 9, 1, 9, tzinfo=UTC)
NEXT_DAY = datetime(2026, 9, 2, 9, tzinfo=UTC)
PEOPLE = 120


def traffic() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Everybody corrects some internal answers and accepts some neutral ones."""
    rng = random.Random(3)
    edits, events = [], []
    for number in range(500):
        wanted = ask(rng, internal=True)
        person = f"person-{number % PEOPLE}"
        edits.append(
            {
                "prompt": wanted.prompt,
                "original_llm_output": wanted.wrong,
                "final_user_edit": wanted.right,
                "user_id": person,
                "id": f"edit-{number}",
            }
        )
    for number in range(200):
        known = ask(rng, internal=False)
        person = f"person-{number % PEOPLE}"
        prediction = {"prediction_id": f"p{number}", "prompt": known.prompt, "output": known.right, "user_id": person}
        accept = {"prediction_id": f"p{number}", "signal": "accept", "user_id": person}
        for kind, data in (("prediction", prediction), ("feedback", accept)):
            envelope = {"specversion": "1.0", "source": "app", "type": f"flywheel.{kind}", "id": f"{kind}-{number}"}
            events.append({**envelope, "data": data})
    return edits, events


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home into whose landing zone one day of HTTP traffic went."""
    home = tmp_path_factory.mktemp("home")
    edits, events = traffic()
    with running_capture(home / "landing", ["assistant"], clock=lambda: MORNING) as capture:
        for path, body in (("edits", edits), ("events", events)):
            kind = "application/json" if path == "edits" else "application/cloudevents-batch+json"
            answer = httpx.post(
                f"{capture.url}/v1/assistant/{path}", json=body, headers={"content-type": kind}, timeout=30
            )
            assert answer.status_code == 202, answer.text
    return home


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def driver(home: Path, instance: dg.DagsterInstance, **changes: object) -> Driver:
    application = PreferenceApplication(
        name="assistant",
        description="test",
        start_date=FIRST,
        base_model=str(trained_base()),
        trigger=Trigger(min_new_pairs=100),
        resolution=ResolutionRules(holdout_share=0.3, accepted_min_ratio=0.5),
        recipe=replace(RECIPE, preference_epochs=0.0),
        on_promotion=PromotionHook(command=("sh", "-c", f"cat > {home}/announced.json")),
    )
    application = replace(application, **changes)
    definitions = preference_flywheel(application, Stores(home=str(home)), Clock(fixed=NEXT_DAY.isoformat()))
    return Driver(application, definitions, instance)


def test_http_to_a_promoted_adapter(home: Path, instance: dg.DagsterInstance) -> None:
    wheel = driver(home, instance)
    assert wheel.materialize(FIRST, FIRST).succeeded
    ticked = wheel.tick()
    assert ticked.version == "dpo_gold_v1"

    # The first attempt meets a broken recipe; the version is tried again, not skipped and not cut anew.
    broken = driver(home, instance, base_model="no_such_model").turn("dpo_gold_v1", ticked.tags)
    assert not broken.succeeded
    assert instance.get_run_by_id(broken.run_id).tags[FAILURE_TAG] == PERMANENT
    assert "`flywheel retry dpo_gold_v1 -a assistant`" in wheel.tick().reason
    request_retry(instance, "assistant", "dpo_gold_v1")
    assert instance.get_run_by_id(broken.run_id).tags[FAILURE_TAG] == RETRY_REQUESTED
    again = wheel.tick()
    assert again.version == "dpo_gold_v1"

    finished = wheel.turn("dpo_gold_v1", again.tags)
    assert finished.succeeded, finished.error
    stores = Stores(home=str(home))
    folder = stores.versions("assistant").folder("dpo_gold_v1")
    promotion = read_promotion(folder.promotion)
    assert promotion.promoted, promotion.sentence
    champion = stores.registry("assistant").find_champion()
    assert champion is not None
    assert champion.gold_version == "dpo_gold_v1"
    assert (home / "announced.json").read_text().count("dpo_gold_v1") >= 1

    # Nothing is new, so the wheel rests. The upper bound holds the duplicates that the version left out: they stay in
    # gold, because which of them counts is decided at resolution.
    duplicates = read_manifest(folder.export).dropped["duplicate"]
    resting = wheel.tick()
    assert resting.version is None
    assert f"at most {duplicates} of 100 new pairs, 0 of 1 new closed partitions" in resting.reason
    # A run that only repeats a finished version verifies and returns.
    weights = (folder.training / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert wheel.turn("dpo_gold_v1", {}).succeeded
    assert (folder.training / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == weights


def test_user_text_stays_out_of_dagster_and_mlflow(home: Path, instance: dg.DagsterInstance) -> None:
    """Erasure can only be complete if texts are where it looks: landing, lake and exports."""
    shown = "".join(
        str(entry.dagster_event or entry.user_message)
        for run in instance.get_runs()
        for entry in instance.all_logs(run.run_id)
    )
    assert shown
    texts = [str(edit["final_user_edit"]) for edit in traffic()[0][:50]]
    assert not [text for text in texts if text in shown]
    for path in [home / "mlflow.db", *(home / "mlartifacts").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert not [text for text in texts if text.encode() in content], path
