"""The event of a rollout: its published schema, and what stays equal when it is sent again."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.models.rollout.events import BASE, ModelFacts, RolloutEvent, build_event, build_schema
from flywheel_assets.models.rollout.traffic import RolloutState, StepKind

PUBLISHED = Path(__file__).parents[3] / "docs" / "rollout_event.schema.json"
AT = datetime(2026, 3, 9, 12, tzinfo=UTC)


def describe(version: str) -> ModelFacts:
    return ModelFacts(
        gold_version=version, adapter_sha256="a" * 64, registry_version="2", mlflow_run="r", uri=f"s3://m/{version}"
    )


MODELS = {None: BASE, "v1": describe("v1"), "v2": describe("v2")}


def test_the_published_schema_is_the_programs() -> None:
    """After a change: write `json.dumps(build_schema(), indent=2)` and a newline into the file."""
    assert json.loads(PUBLISHED.read_text()) == build_schema()


@pytest.mark.parametrize(
    "state",
    [
        RolloutState(champion="v2", predecessor="v1", share=0.1, replaces="v1", started_at=AT),
        RolloutState(champion="v2", predecessor="v1", share=0.5, kind=StepKind.SHARE_CHANGE, started_at=AT),
        RolloutState(champion="v1", predecessor="v2", kind=StepKind.ROLLBACK, replaces="v2", started_at=AT),
        RolloutState(champion=None, predecessor="v2", kind=StepKind.ROLLBACK_TO_BASE, replaces="v2", started_at=AT),
        RolloutState(champion="v1"),
    ],
)
def test_every_kind_fits_the_published_schema(state: RolloutState) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    event = msgspec.to_builtins(build_event("assistant", state, MODELS, "base"))
    jsonschema.validate(event, json.loads(PUBLISHED.read_text()))
    assert msgspec.convert(event, RolloutEvent).kind == state.kind
    assert event["gold_version"] == state.champion == event["traffic"]["arms"][0]["gold_version"]
    assert sum(arm["share"] for arm in event["traffic"]["arms"]) == 1
    assert "." not in event["id"]


def test_an_arm_says_where_its_model_is() -> None:
    state = RolloutState(champion="v1", predecessor=None, share=0.95, started_at=AT)
    event = build_event("assistant", state, MODELS, "base")
    new, old = event.traffic.arms
    assert (new.share, new.uri, new.registry_version) == (0.95, "s3://m/v1", "2")
    assert (old.share, old.gold_version, old.uri) == (0.05, None, None)


def test_the_same_step_has_the_same_id_and_another_one_another() -> None:
    state = RolloutState(champion="v2", predecessor="v1", share=0.1, started_at=AT)
    announced = msgspec.structs.replace(state, is_announced=True)
    more = msgspec.structs.replace(state, share=0.5, kind=StepKind.SHARE_CHANGE)
    ids = [build_event("assistant", each, MODELS, None).id for each in (state, announced, more)]
    assert ids[0] == ids[1] != ids[2]
