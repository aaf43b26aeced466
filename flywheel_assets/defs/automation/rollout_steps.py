"""Takes the next step of a rollout by the watch's verdict: more users, none, or the predecessor again.

A job does it once a day, after the reports. It exists where the rollout leaves users on the predecessor and is
`automatic`: without them there is nothing to compare.
"""

from datetime import datetime, timedelta

import dagster as dg

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.automation.recovery import find_way_back, plan_rollback, roll_back
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.rollouts import change_share
from flywheel_assets.lake.daily.arm_users import LiveVersions, WatchReport, find_versions_on_last_day, watch_versions
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets.models.rollout.traffic import RolloutState
from flywheel_assets.promotion.rollout_steps import Move, decide_rollout
from flywheel_assets.stores import Stores as AnyStores

ROLLOUT_JOB = "{}_rollout"
WHO = "flywheel"
"""Who decided, in the audit table and in events."""


def take_step(application: PreferenceApplication, stores: AnyStores, limits: WatchLimits, now: datetime) -> list[str]:
    """Take the step that follows from the watch's verdict; return what was done, or why nothing was.

    The comparison begins on the day after the share was changed last. Every day before it counts as a look that was
    taken, which is at least the number of those that were.

    Raises:
        RolloutError: the serving side did not take the event; the next run announces it again.
        VersionConflictError: the rollout has changed meanwhile.
    """
    state = stores.registry(application.name).find_rollout()
    if not state.has_predecessor or state.share >= 1:
        return ["one model serves all users: there is nothing to compare"]
    if not state.is_announced:
        return change_share(application, stores, state.share, who=WHO, reason="announce again", now=now)
    report = _watch(application, stores, state, limits)
    if isinstance(report, str):
        return [report]
    following = application.rollout.find_next_step(state.share)
    step = decide_rollout(report.verdict, 1.0 if following is None else state.share)
    reason = report.describe(limits)
    if step.move == Move.TAKE_BACK:
        plan = plan_rollback(
            application, stores, find_way_back(application, stores), data=False, models=True, force=True
        )
        return [reason, *roll_back(application, stores, plan, who=WHO, reason=reason, now=now)]
    if step.move == Move.GO_ON and following is not None:
        return [reason, *change_share(application, stores, following, who=WHO, reason=reason, now=now)]
    return [reason, f"{state.champion} stays at {state.share:.1%} of the users"]


def _watch(
    application: PreferenceApplication, stores: AnyStores, state: RolloutState, limits: WatchLimits
) -> WatchReport | str:
    """Compare champion and predecessor since the last change of shares; return the reason where it cannot be done."""
    lake = stores.lake(application.name)
    found = find_versions_on_last_day(lake)
    if found is None:
        return "fewer than two model versions served in the last week: does the product ask the router?"
    live, until = found
    wanted = {state.champion, state.predecessor or live.predecessor}
    if live.current != state.champion or live.predecessor not in wanted:
        return (
            f"predictions carry the model versions {live.current} and {live.predecessor}, the rollout is of "
            f"{state.champion} against {state.predecessor or 'the base model'}: send `model_version` as the event has "
            "it"
        )
    assert state.started_at is not None, "has_predecessor says so"
    since = max(live.since, state.started_at.date() + timedelta(days=1))
    earlier = max(0, (since - live.since).days)
    versions = LiveVersions(live.current, live.predecessor, since)
    return watch_versions(lake, versions, until, limits, earlier) or (
        f"no closed day since the share was changed on {state.started_at:%Y-%m-%d}"
    )


def is_automatic(application: PreferenceApplication) -> bool:
    """Return whether the rollout leaves users on the predecessor and takes its steps by itself."""
    plan = application.rollout
    return application.watch is not None and plan.automatic and plan.compute_share(plan.steps[0]) < 1


def build_rollout_job(application: PreferenceApplication, limits: WatchLimits) -> dg.JobDefinition:
    """Build the job that takes one step, if one follows."""

    @dg.op(name="take_rollout_step", description="Gives the champion more users, or takes it back, by the watch.")
    def take_rollout_step(context: dg.OpExecutionContext, stores: Stores, clock: Clock) -> None:
        done = take_step(application, stores, limits, clock.now())
        context.add_output_metadata({"step": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in done))})

    @dg.job(
        name=ROLLOUT_JOB.format(application.name),
        description="One step of the rollout, from production_watch's verdict; see docs/production_watch.md.",
        executor_def=dg.in_process_executor,
    )
    def rollout() -> None:
        take_rollout_step()

    return rollout


def build_rollout_schedule(application: PreferenceApplication, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Build the daily schedule, 01:45 UTC: after the days were closed and reported."""
    return dg.ScheduleDefinition(
        name=f"{application.name}_daily_rollout",
        job=job,
        cron_schedule="45 1 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
