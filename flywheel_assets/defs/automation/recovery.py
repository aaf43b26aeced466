"""Rolls back the gold table and the champion: one plan, then one act.

The command line and a job use it.
"""

from dataclasses import dataclass
from datetime import datetime

import dagster as dg
from pydantic import Field

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.presentation import build_numbers_table
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.rollouts import announce_step, name_folders
from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.versions.folders import Versions, read_promotion
from flywheel_assets.lake.versions.rollback import DataPlan, plan_data_rollback, record_model_rollback, roll_back_data
from flywheel_assets.models.rollout.traffic import StepKind
from flywheel_assets.stores import Stores as AnyStores

ROLLBACK_JOB = "{}_rollback"
BASE = "base"
"""The target that no gold version is: the model before the first promotion."""


@dataclass(frozen=True)
class RollbackPlan:
    """The changes that a rollback would make."""

    to: str
    data: DataPlan | None
    """None: the gold table stays as it is."""
    champion_before: str | None
    moves_champion: bool
    announces_again: bool = False
    """Whether the champion is right and the serving side has not taken that yet."""
    gate_said: str | None = None
    """The promotion gate's sentence about a version that was never promoted; None: it was, or it is the base model."""

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
            target = "the base model: no version has the alias `champion`" if self.to == BASE else self.to
            old = self.champion_before or "the base model"
            changes.append(f"the champion goes from {old} to {target}, for all users, and is announced")
        elif self.announces_again:
            changes.append(f"{self.to} is the champion already, and is announced again")
        elif self.data is None:
            changes.append(f"{self.to} is the champion already")
        if self.gate_said is not None:
            changes.append(f"{self.to} was never promoted. {self.gate_said}")
        return changes


def plan_rollback(
    application: FlywheelApplication, stores: AnyStores, to: str, *, data: bool, models: bool, force: bool = False
) -> RollbackPlan:
    """Plan a rollback without changing anything.

    Args:
        application: the owner of the models and the gold table.
        stores: where they lie.
        to: a gold version, the tag of an old head, or `base` for the base model; gold has no state of that name.
        data: whether the gold table is rolled back.
        models: whether the champion is.
        force: whether a version may serve that was never promoted.

    Raises:
        InvalidRuleError: neither data nor models are to be rolled back, or only the data to the base model, or the
            version was never promoted and `force` is not given.
        UnknownNameError: `to` is no tag, or no model was registered for it.
        VersionConflictError: a version cut since is not finished.
    """
    if not data and not models:
        raise InvalidRuleError(
            "a rollback of neither data nor models changes nothing: ask for one of them, or for both"
        )
    if to == BASE and not models:
        raise InvalidRuleError("the gold table has no state called base: leave --data out, or name a gold version")
    lake, versions = stores.lake(application.name), stores.versions(application.name)
    planned = plan_data_rollback(lake, versions, application.tables.gold, to) if data and to != BASE else None
    if not models:
        return RollbackPlan(to, planned, None, moves_champion=False)
    registry, gate_said = stores.registry(application.name), None
    if to != BASE:
        registered = registry.list_registered_versions()
        if to not in registered:
            raise UnknownNameError("version with a registered model", to, registered)
        gate_said = read_refusal(versions, to)
    state = registry.find_rollout()
    moves = state.champion != (None if to == BASE else to)
    if gate_said is not None and moves and not force:
        raise InvalidRuleError(
            f"{to} was never promoted. {gate_said} To let it serve all the same, repeat the command with --force."
        )
    again = not moves and not state.is_announced
    return RollbackPlan(to, planned, state.champion, moves, again, gate_said if moves else None)


def find_way_back(application: FlywheelApplication, stores: AnyStores) -> str:
    """Find the target that ends the rollout: the champion's predecessor, or `base`.

    Raises:
        InvalidRuleError: no predecessor is on record.
    """
    state = stores.registry(application.name).find_rollout()
    if not state.has_predecessor:
        raise InvalidRuleError(
            f"{state.champion or 'the base model'} has no predecessor on record: it came by a rollback, by another "
            "tool or by an earlier release. Name the gold version: --to VERSION, or --to base"
        )
    return state.predecessor or BASE


def read_refusal(versions: Versions, version: str) -> str | None:
    """Read what the promotion gate said about a version that it never promoted; None: it was promoted."""
    folder = versions.folder(version)
    if not folder.is_finished:
        return "The promotion gate had not decided about it."
    decided = read_promotion(folder.promotion)
    return None if decided.promoted else f"The promotion gate had said: {decided.sentence}"


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
    if plan.moves_champion:
        registry = stores.registry(application.name)
        record_model_rollback(lake, to=plan.to, champion_before=plan.champion_before, who=who, reason=reason, now=now)
        if plan.to != BASE:
            registry.promote(plan.to, plan.champion_before, kind=StepKind.ROLLBACK, now=now)
        elif plan.champion_before is not None:
            registry.retire_champion(plan.champion_before, now=now)
    if not plan.moves_champion and not plan.announces_again:
        return plan.list_changes()
    return [*plan.list_changes(), *announce_step(application, stores, name_folders(application, stores))]


class RollbackConfig(dg.Config):
    """The target of a rollback. With its defaults the job only shows how the champion's predecessor would return."""

    to: str = Field(
        default="",
        description="A gold version (dpo_gold_v6), before_rollback_<id> to take a rollback back, or base. Empty: the "
        "champion's predecessor, for the champion alone.",
    )
    reason: str = Field(default="", description="The reason; the audit table keeps it. Needed to act.")
    who: str = Field(default="", description="The person who decides; the audit table keeps the name. Needed to act.")
    data: bool = Field(default=True, description="Roll the gold table back.")
    models: bool = Field(default=True, description="Roll the champion back, and announce it to the serving side.")
    force: bool = Field(default=False, description="Let a version serve that was never promoted.")
    dry_run: bool = Field(default=True, description="Only show the changes. Set it to false to act.")


def build_rollback_job(application: FlywheelApplication) -> dg.JobDefinition:
    """Build the job that does the same as `flywheel rollback`, from the UI's launchpad."""

    @dg.op(
        name="roll_back",
        description="Shows the changes; with `dry_run: false` it rolls back the gold table, the champion or both.",
    )
    def roll_back_op(context: dg.OpExecutionContext, config: RollbackConfig, stores: Stores, clock: Clock) -> None:
        if not config.dry_run and not (config.who.strip() and config.reason.strip()):
            raise InvalidRuleError("a rollback is audited: give `who` and `reason`, or leave `dry_run` at true")
        try:
            to = config.to or find_way_back(application, stores)
        except InvalidRuleError as error:
            if not config.dry_run:
                raise
            context.add_output_metadata({"state": "nothing to plan", "changes": dg.MetadataValue.md(str(error))})
            return
        plan = plan_rollback(
            application, stores, to, data=config.data and bool(config.to), models=config.models, force=config.force
        )
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
