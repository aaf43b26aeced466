"""Rolls back the gold table and the champion: one plan, then one act.

The command line and a job use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
from pydantic import Field

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.presentation import build_numbers_table
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.versions.rollback import DataPlan, plan_data_rollback, record_model_rollback, roll_back_data
from flywheel_assets.models.rollout import announce_champion
from flywheel_assets.stores import Stores as AnyStores

ROLLBACK_JOB = "{}_rollback"


@dataclass(frozen=True)
class RollbackPlan:
    """The changes that a rollback would make."""

    to: str
    data: DataPlan | None
    """None: the gold table stays as it is."""
    champion_before: str | None
    moves_champion: bool

    def list_changes(self) -> list[str]:
        """List every change as a sentence for people."""
        changes = []
        if self.data is not None and self.data.changes_nothing:
            changes.append(f"the gold table stands at {self.to} already")
        elif self.data is not None:
            before = sum(day.rows_before for day in self.data.days.values())
            after = sum(day.rows_after for day in self.data.days.values())
            changes.append(
                f"the gold table goes from snapshot {self.data.head} to {self.data.target}: "
                f"{len(self.data.days)} days change, with {before:,} rows before and {after:,} after"
            )
            changes.append(f"the old head stays readable as {self.data.saved_head}")
            changes += [f"{version} no longer counts as trained" for version in self.data.undone]
            changes += [f"{version} counts as trained again" for version in self.data.restored]
        if self.moves_champion:
            changes.append(f"the champion goes from {self.champion_before or 'nothing'} to {self.to}, and is announced")
        elif self.data is None:
            changes.append(f"{self.to} is the champion already")
        return changes


def plan_rollback(
    application: FlywheelApplication, stores: AnyStores, to: str, *, data: bool, models: bool
) -> RollbackPlan:
    """Plan a rollback without changing anything.

    Raises:
        InvalidRuleError: neither data nor models are to be rolled back.
        UnknownNameError: `to` is no tag, or no model was registered for it.
        VersionConflictError: a version cut since is not finished.
    """
    if not data and not models:
        raise InvalidRuleError(
            "a rollback of neither data nor models changes nothing: ask for one of them, or for both"
        )
    lake, versions = stores.lake(application.name), stores.versions(application.name)
    planned = plan_data_rollback(lake, versions, application.tables.gold, to) if data else None
    champion = stores.registry(application.name).find_champion() if models else None
    if models:
        registered = stores.registry(application.name).list_registered_versions()
        if to not in registered:
            raise UnknownNameError("version with a registered model", to, registered)
    before = champion.gold_version if champion else None
    return RollbackPlan(to, planned, before, moves_champion=models and before != to)


def roll_back(
    application: FlywheelApplication, stores: AnyStores, plan: RollbackPlan, *, who: str, reason: str, now: datetime
) -> list[str]:
    """Carry out a plan, the data first, and return the changes made.

    A repeated call after a crash finishes the rollback.

    Raises:
        VersionConflictError: gold or the champion has changed since the plan was made.
        RolloutError: the serving side did not accept the old model; repeat to announce it again.
    """
    lake = stores.lake(application.name)
    if plan.data is not None:
        versions, gold = stores.versions(application.name), application.tables.gold
        roll_back_data(lake, versions, gold, plan.data, who=who, reason=reason, now=now)
    announced: Sequence[str] = ()
    if plan.moves_champion:
        record_model_rollback(lake, to=plan.to, champion_before=plan.champion_before, who=who, reason=reason, now=now)
        model = stores.registry(application.name).promote(plan.to, plan.champion_before)
        hook = application.on_promotion
        event = {
            "application": application.name,
            "gold_version": plan.to,
            "replaces": plan.champion_before,
            # Both names: the one that a preference application's hook expects, and the general one.
            "adapter_dir": str(model.model_dir),
            "model_dir": str(model.model_dir),
        }
        announced = announce_champion(event, command=hook.command, webhook=hook.webhook, timeout_s=hook.timeout_s)
    return [*plan.list_changes(), *announced]


class RollbackConfig(dg.Config):
    """The target of a rollback. With its defaults the job only shows the changes."""

    to: str = Field(description="A gold version (dpo_gold_v6), or before_rollback_<id> to take a rollback back.")
    reason: str = Field(description="The reason; the audit table keeps it.")
    who: str = Field(description="The person who decides; the audit table keeps the name.")
    data: bool = Field(default=True, description="Roll the gold table back.")
    models: bool = Field(default=True, description="Roll the champion back, and announce it to the serving side.")
    dry_run: bool = Field(default=True, description="Only show the changes. Set it to false to act.")


def build_rollback_job(application: FlywheelApplication) -> dg.JobDefinition:
    """Build the job that does the same as `flywheel rollback`, from the UI's launchpad."""

    @dg.op(
        name="roll_back",
        description="Shows the changes; with `dry_run: false` it rolls back the gold table, the champion or both.",
    )
    def roll_back_op(context: dg.OpExecutionContext, config: RollbackConfig, stores: Stores, clock: Clock) -> None:
        plan = plan_rollback(application, stores, config.to, data=config.data, models=config.models)
        changes = plan.list_changes()
        if not config.dry_run:
            changes = roll_back(application, stores, plan, who=config.who, reason=config.reason, now=clock.now())
        days = plan.data.days if plan.data else {}
        context.add_output_metadata(
            {
                "state": "only planned: set dry_run to false to act" if config.dry_run else "done",
                "changes": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in changes)),
                "days": build_numbers_table(
                    ["day", "rows before", "rows after"],
                    [[str(day), each.rows_before, each.rows_after] for day, each in days.items()],
                ),
            }
        )

    @dg.job(
        name=ROLLBACK_JOB.format(application.name),
        description="Rolls back gold, the champion or both to a gold version; see docs/gold.md. A dry run by default.",
        executor_def=dg.in_process_executor,
    )
    def rollback() -> None:
        roll_back_op()

    return rollback
