"""Describes a change of the serving models as one event, in one versioned schema.

`docs/rollout_event.schema.json` is the same as JSON Schema. A field is never renamed or taken away within a schema
version; new ones are added, so that a receiver ignores the names that it does not know.
"""

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from flywheel_assets.models.rollout.traffic import RolloutState, StepKind


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Names a model and the place to fetch it from; every field is null for the base model."""

    gold_version: Annotated[str | None, msgspec.Meta(description="version of the gold data that it learnt from")]
    adapter_sha256: Annotated[
        str | None,
        msgspec.Meta(
            description="sha256 of the lines that `sha256sum` prints for the files of the registered folder, sorted by "
            "path; null also for models registered by an earlier release"
        ),
    ]
    registry_version: Annotated[str | None, msgspec.Meta(description="version of the registered model in MLflow")]
    mlflow_run: Annotated[str | None, msgspec.Meta(description="id of the MLflow run of training and evaluation")]
    uri: Annotated[
        str | None,
        msgspec.Meta(description="where MLflow keeps the files; other hosts can fetch all but a file URI"),
    ]


BASE = ModelFacts(gold_version=None, adapter_sha256=None, registry_version=None, mlflow_run=None, uri=None)


class Arm(ModelFacts, frozen=True, kw_only=True):
    """Gives a model its part of the users."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1, description="part of the users")]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Says which user gets which model; see docs/clients.md for the router."""

    salt: Annotated[str, msgspec.Meta(description="mixes the users; each champion has its own")]
    arms: Annotated[list[Arm], msgspec.Meta(min_length=1, description="the new model first; the shares' sum is 1")]


class RolloutEvent(ModelFacts, frozen=True, kw_only=True):
    """Announces a promotion, a change of shares, a rollback, or a rollback to the base model."""

    schema_version: Literal[1] = 1
    id: Annotated[str, msgspec.Meta(description="the same in every repetition; the webhook's `webhook-id`")]
    kind: StepKind
    occurred_at: Annotated[datetime | None, msgspec.Meta(description="begin of the step")]
    application: str
    replaces: Annotated[str | None, msgspec.Meta(description="gold version of the champion before; null: base model")]
    base_model: Annotated[
        str | None,
        msgspec.Meta(description="path or hub id of the base model; null: a classifier has none"),
    ]
    traffic: Traffic


def build_event(
    application: str, state: RolloutState, models: dict[str | None, ModelFacts], base_model: str | None
) -> RolloutEvent:
    """Build the event of the last step.

    Args:
        application: the application's name.
        state: the serving models.
        models: the facts of each gold version in `state`; None: the base model.
        base_model: path or hub id of the base model.
    """
    arms = [Arm(**msgspec.structs.asdict(models[version]), share=share) for version, share in state.list_shares()]
    step = (application, state.kind, state.champion, state.predecessor, state.share, state.started_at)
    champion = models[state.champion]
    return RolloutEvent(
        gold_version=champion.gold_version,
        adapter_sha256=champion.adapter_sha256,
        registry_version=champion.registry_version,
        mlflow_run=champion.mlflow_run,
        uri=champion.uri,
        id=f"rollout_{hashlib.sha256(msgspec.json.encode(step)).hexdigest()[:32]}",
        kind=state.kind,
        occurred_at=state.started_at,
        application=application,
        replaces=state.replaces,
        base_model=base_model,
        traffic=Traffic(salt=state.name_salt(application), arms=arms),
    )


def build_schema() -> dict[str, Any]:
    """Build the event's JSON Schema (2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(RolloutEvent)}
