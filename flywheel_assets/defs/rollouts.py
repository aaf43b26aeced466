"""Announces the last step of a rollout, and changes the shares of its two models.

The promotion, the rollback and the command line use it. A step is stored before it is announced, with a mark that is
set afterwards: repeated after a crash, it is announced as the same event under the same id.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from flywheel_assets.application import FlywheelApplication, PreferenceApplication
from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.versions.rollback import record_share_change
from flywheel_assets.models.rollout.announce import announce_champion
from flywheel_assets.models.rollout.events import build_event
from flywheel_assets.models.rollout.traffic import RolloutState, StepKind
from flywheel_assets.stores import Stores


def announce_step(
    application: FlywheelApplication, stores: Stores, more: Mapping[str, object] | None = None
) -> tuple[str, ...]:
    """Announce the last step to the serving side, and mark it as announced; return one sentence per finished message.

    Args:
        application: its hook is run.
        stores: of the registry.
        more: facts that only the caller knows, under names that the schema does not have.

    Raises:
        RolloutError: the serving side did not take the event. To repeat it is safe.
    """
    registry, hook = stores.registry(application.name), application.on_promotion
    state = registry.find_rollout()
    versions = [version for version, _ in state.list_shares()]
    base_model = None
    if isinstance(application, PreferenceApplication):
        base_model = stores.base_model(application.base_model)
    event = build_event(application.name, state, registry.describe_models(versions), base_model)
    announced = announce_champion(
        {**(more or {}), **msgspec.to_builtins(event)},
        command=hook.command,
        webhook=hook.webhook,
        timeout_s=hook.timeout_s,
        secret=stores.where.promotion_webhook_secret,
    )
    if not state.is_announced:
        registry.replace_rollout(state, msgspec.structs.replace(state, is_announced=True))
    return announced


def name_folders(application: FlywheelApplication, stores: Stores) -> dict[str, object]:
    """Name the champion's folder under both names: an adapter's hook expects one of them, a classifier's the other."""
    champion = stores.registry(application.name).find_champion()
    folder = str(champion.model_dir) if champion else None
    return {"adapter_dir": folder, "model_dir": folder}


def change_share(
    application: FlywheelApplication, stores: Stores, share: float, *, who: str, reason: str, now: datetime
) -> list[str]:
    """Give the champion another share of the users, record it, and announce it; return the changes made.

    A repeated call after a crash announces the share again.

    Raises:
        InvalidRuleError: no champion, no predecessor on record, or a share that is none.
        VersionConflictError: the rollout has changed meanwhile.
        RolloutError: the serving side did not take the event; repeat the call.
    """
    registry = stores.registry(application.name)
    state = registry.find_rollout()
    if state.champion is None:
        raise InvalidRuleError(f"{application.name} has no champion: the base model serves all users, without shares")
    if not state.has_predecessor:
        raise InvalidRuleError(
            f"{state.champion} serves all users and no predecessor is on record: it came by a rollback, by another "
            "tool or by an earlier release. The next promotion begins a rollout"
        )
    if not 0 < share <= 1:
        raise InvalidRuleError(
            f"share is {share}; need more than 0, at most 1. To take the champion back: flywheel rollback"
        )
    if share == state.share and state.is_announced:
        return [f"{state.champion} has {share:.1%} of the users already"]
    if share != state.share:
        record_share_change(
            stores.lake(application.name),
            champion=state.champion,
            share=share,
            share_before=state.share,
            who=who,
            reason=reason,
            now=now,
        )
        changed = RolloutState(
            champion=state.champion,
            predecessor=state.predecessor,
            share=share,
            kind=StepKind.SHARE_CHANGE,
            replaces=state.replaces,
            started_at=now,
            is_announced=False,
        )
        registry.replace_rollout(state, changed)
    announced = announce_step(application, stores, name_folders(application, stores))
    if share == state.share:
        return [f"{state.champion} has {share:.1%} of the users already, which is announced again", *announced]
    return [f"{state.champion} goes from {state.share:.1%} of the users to {share:.1%}", *announced]
