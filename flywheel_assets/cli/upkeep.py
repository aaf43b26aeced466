"""Commands that look after what is stored: look for damage, roll back, do the weekly maintenance, erase a person."""

import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import (
    Application,
    Reason,
    Who,
    Yes,
    app,
    console,
    errors,
    find_applications,
    load_application,
    name_decider,
    open_stores,
)
from flywheel_assets.errors import FlywheelError, InvalidRuleError

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.lake.erasure.erase import ErasurePlan, Place, Receipt
    from flywheel_assets.lake.fsck.findings import Finding, Report
    from flywheel_assets.stores import Stores

_SMALLEST_SAMPLE = 0.0001
_KEPT_TRACEBACKS = 20


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option(
            help="The gold version, before_rollback_<id> to undo a rollback, or base. Default: the champion's "
            "predecessor, for the champion alone."
        ),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Roll back only the gold table.")] = False,
    models: Annotated[bool, typer.Option("--models", help="Roll back only the champion.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Let a version serve that was never promoted.")] = False,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Roll the gold table and the champion back to a version.

    With --data or --models only one of them is rolled back. `--to base` takes the champion back to the base model.
    """
    from flywheel_assets.defs.automation.recovery import find_way_back, plan_rollback, roll_back

    config, stores = load_application(application), open_stores()
    if to is None:
        if data:
            raise InvalidRuleError("the gold table goes back to a version that you name: --to VERSION")
        to, models = find_way_back(config, stores), True
    both = data == models
    plan = plan_rollback(config, stores, to, data=data or both, models=models or both, force=force)
    if plan.data is not None and plan.data.days:
        table = Table("day", "rows before", "rows after")
        for day, each in plan.data.days.items():
            table.add_row(str(day), f"{each.rows_before:,}", f"{each.rows_after:,}")
        console.print(table)
    if not yes:
        _print_sentences([f"would change: {sentence}" for sentence in plan.list_changes()])
        console.print("To do it, repeat the command with --yes.")
        return
    _print_sentences(roll_back(config, stores, plan, who=name_decider(who), reason=reason, now=datetime.now(UTC)))


@app.command()
def rollout(
    share: Annotated[
        float | None, typer.Option(help="The champion's part of the users from now on: 0.5. Without it: show.")
    ] = None,
    following: Annotated[bool, typer.Option("--next", help="Go on to the next step of the plan.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="The reason; it is stored for audits.")] = "",
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Show the models that serve and their parts of the users, or change the champion's part.

    `flywheel rollback` ends a rollout: it takes the champion back for all users.
    """
    from flywheel_assets.defs.rollouts import change_share

    config, stores = load_application(application), open_stores()
    state = stores.registry(application).find_rollout()
    next_share = config.rollout.find_next_step(state.share) if state.has_predecessor else None
    if following and next_share is None:
        raise InvalidRuleError(f"the rollout of {application} has no further step; look at it with flywheel rollout")
    share = next_share if following else share
    if share is None:
        since = "" if state.started_at is None else f"; {state.kind} at {state.started_at:%Y-%m-%d %H:%M} UTC"
        parts = [f"{v or 'the base model'} serves {part:.1%} of the users" for v, part in state.list_shares()]
        _print_sentences([*parts, f"the router's salt is {state.name_salt(application)}{since}"])
        if not state.is_announced:
            _print_sentences(["the serving side has not taken this yet: repeat what began it"])
        if next_share is not None:
            _print_sentences([f"next: {next_share:.1%}, by flywheel rollout -a {application} --next --reason … --yes"])
        return
    if not reason:
        raise InvalidRuleError("a change of shares needs its reason for the audit: add --reason TEXT")
    if not yes:
        serving = state.champion or "the base model"
        change = f"would change: {serving} goes from {state.share:.1%} of the users to {share:.1%}"
        _print_sentences([change, "To do it, repeat the command with --yes."])
        return
    _print_sentences(change_share(config, stores, share, who=name_decider(who), reason=reason, now=datetime.now(UTC)))


def _print_sentences(sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True)


@app.command()
def maintain(application: Application = "assistant", yes: Yes = False) -> None:
    """Do the weekly maintenance now: trim predictions, expire snapshots, delete unused files.

    Without --yes it only measures the stored bytes and prints the rules that apply.
    """
    import uuid

    from flywheel_assets.defs.automation.maintenance import list_storage_rows, run_maintenance
    from flywheel_assets.lake.daily.ledger import RunStamp
    from flywheel_assets.lake.upkeep.garbage import explain_versions_left
    from flywheel_assets.lake.upkeep.maintenance import MAINTENANCE_CODE_VERSION, weigh_stages

    config, stores = load_application(application), open_stores()
    if not yes:
        table = Table("stage", "files", "bytes")
        lake, versions = stores.lake(application), stores.versions(application)
        weighed = weigh_stages(lake, config.tables, versions, stores.landing())
        for stage, stored in weighed.items():
            table.add_row(stage, f"{stored.files:,}", f"{stored.bytes:,}")
        console.print(table)
        _print_sentences([f"would apply: {config.maintenance}. To do it, repeat the command with --yes."])
        return
    stamp = RunStamp(f"maintain {uuid.uuid4().hex}", MAINTENANCE_CODE_VERSION, datetime.now(UTC))
    upkeep = run_maintenance(config, stores, stamp)
    table = Table("stage", "files before", "after", "bytes before", "after")
    for name, *numbers in list_storage_rows(upkeep):
        table.add_row(str(name), *(f"{number:,}" for number in numbers))
    console.print(table)
    _print_sentences(
        [
            f"{upkeep.snapshots_expired} snapshots expired, {upkeep.files_deleted.files} files deleted, "
            f"{upkeep.files_waiting.files} wait for their grace period",
            f"{sum(upkeep.predictions_trimmed.values())} predictions trimmed",
            f"{upkeep.segments_removed} landed segments removed",
            *explain_versions_left(stores.lake(application).warehouse, upkeep.versions_deleted),
        ]
    )


@app.command()
def fsck(
    application: Annotated[
        str | None, typer.Option("--application", "-a", help="Only this application. Default: all that are installed.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Do the repairs that lose nothing; the others are printed.")
    ] = False,
    sample: Annotated[
        float,
        typer.Option(
            min=_SMALLEST_SAMPLE,
            max=1,
            help="Share of the files read before whose content is read again. Default: all of them.",
        ),
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look for damaged files in everything that the home holds: one line a finding, with its cause and repair.

    Existence, sizes and structure are looked at in every file, whatever the sample is. The exit code is 1 when there
    are findings that were not repaired.
    """
    import time

    from flywheel_assets.defs.automation.inspection import inspect_home
    from flywheel_assets.discovery import read_configuration

    stores = open_stores()
    names = [application] if application is not None else list(find_applications())
    configs = [read_configuration(name) for name in names]
    began = time.process_time()
    with errors.status("looking at every file"):
        report = inspect_home(stores, configs, sample, datetime.now(UTC))
    left = list(report.findings)
    mended: list[str] = []
    if repair and left:
        mended = _repair_findings(stores, configs, left)
        with errors.status("looking again"):
            report = inspect_home(stores, configs, sample, datetime.now(UTC))
        left = list(report.findings)
    if as_json:
        _print_report_as_json(report, mended)
    else:
        _print_sentences([f"repaired: {each}" for each in mended])
        for finding in left:
            console.print(str(finding), style="red", markup=False, highlight=False, soft_wrap=True)
        _print_sentences([f"not looked at: {each}" for each in report.not_looked_at])
        looked_at = ", ".join(f"{number:,} {kind}" for kind, number in report.looked_at.items())
        read = f"{report.bytes_read / 2**20:,.1f} MiB read in {time.process_time() - began:.1f} s of CPU"
        _print_sentences([f"{len(left)} findings in {looked_at or 'nothing: the home is empty'}; {read}"])
    if left:
        raise typer.Exit(1)


def explain_damage(error: Exception) -> bool:
    """Say which damaged files may have caused a library's error; return False where the home is whole.

    Libraries fail over garbage in too many ways to tell them apart, and seldom name the file: so every file is looked
    at, as `fsck` does, and hardly any is read whole, since a home may be large.
    """
    from flywheel_assets.defs.automation.inspection import inspect_home
    from flywheel_assets.discovery import read_configuration

    stores = open_stores()
    configs = [read_configuration(name) for name in find_applications()]
    try:
        with errors.status("looking for damaged files"):
            found = inspect_home(stores, configs, _SMALLEST_SAMPLE, datetime.now(UTC)).findings
    except Exception as another:  # the first error is the one to show
        error.add_note(f"flywheel fsck failed, too: {type(another).__name__}")
        return False
    if not found:
        return False
    errors.print(f"[bold red]error:[/] {type(error).__name__}: the command stopped, and files of this home are damaged")
    for finding in found:
        errors.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    errors.print(_keep_traceback(error, stores.scratch("tracebacks")), markup=False, highlight=False, soft_wrap=True)
    return True


def _keep_traceback(error: Exception, folder: Path) -> str:
    """Write an error's traceback with its causes to a file; return the sentence that says where.

    The damage need not be the cause: an error of ours in a damaged home once left no trace at all. A library's message
    may quote a user's text, which no erasure would find there, so only its own words are kept.
    """
    from flywheel_assets.lake.storage.files import replace_file

    lines = list(_describe_chain(error))
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.txt"
    try:
        replace_file(path, "".join(lines).encode())
        for old in sorted(folder.glob("*.txt"))[:-_KEPT_TRACEBACKS]:
            old.unlink(missing_ok=True)
    except OSError as refused:
        return f"the traceback could not be written ({refused.strerror}); it ended with: {lines[-1].strip()}"
    return f"where the repairs do not help, the damage was not the cause: {path} has the traceback, for a report"


def _describe_chain(error: BaseException) -> Iterator[str]:
    from flywheel_assets.models.process_failures import keep_library_words

    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _describe_chain(cause)
        yield "\nwhich led to:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    words = str(error) if isinstance(error, FlywheelError) else keep_library_words(error)
    yield f"{type(error).__module__}.{type(error).__qualname__}: {words or 'its message may quote a text'}\n"


def _print_report_as_json(report: "Report", mended: list[str]) -> None:
    import msgspec

    content = {
        "findings": [
            {
                "place": each.place,
                "file": each.file,
                "problem": each.problem,
                "cause": each.cause,
                "repair": each.repair,
                "is_repaired_by_fsck": each.mend is not None,
            }
            for each in report.findings
        ],
        "repaired": mended,
        "looked_at": report.looked_at,
        "bytes_read": report.bytes_read,
        "not_looked_at": report.not_looked_at,
    }
    typer.echo(msgspec.json.encode(content).decode())


def _repair_findings(
    stores: "Stores", configs: Sequence["FlywheelApplication"], findings: Sequence["Finding"]
) -> list[str]:
    """Do the safe repairs; days last, since they need the home's other parts."""
    from flywheel_assets.cli.terminal import build_driver
    from flywheel_assets.lake.fsck.findings import MendKind
    from flywheel_assets.lake.fsck.mending import explain_refusal, mend

    done: list[str] = []
    days: dict[str, set[date]] = {}
    for finding in findings:
        # Findings about what all applications share name none of them; any of them may mend these.
        config = next((each for each in configs if finding.application == each.name), configs[0])
        if finding.mend is None:
            continue
        if finding.mend.kind is MendKind.MAKE_DAY:
            assert finding.mend.day is not None
            days.setdefault(config.name, set()).add(finding.mend.day)
            continue
        try:
            done.append(mend(finding, stores.lake(config.name), stores.versions(config.name), datetime.now(UTC).date()))
        except FlywheelError as error:
            errors.print(f"not repaired: {error}", markup=False, highlight=False, soft_wrap=True)
    for config in configs:
        for day in sorted(days.get(config.name, ())):
            refusal = explain_refusal(stores.lake(config.name), config.tables, day)
            # Of imported history the configuration alone has no partitions.
            driver = build_driver(load_application(config.name))
            finished = driver.materialize(day, day) if refusal is None else None
            if finished is not None and finished.succeeded:
                done.append(f"made {day} of {config.name} again, from landing to gold")
            else:
                why = refusal or (finished.error if finished else None) or "see the run's log"
                errors.print(f"not repaired: {config.name} {day}: {why}", markup=False, highlight=False, soft_wrap=True)
    return done


@app.command()
def erase(
    user: Annotated[str, typer.Option(help="The user id of the person.")],
    reason: Reason,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Hours for which unreachable files stay, for running readers.")
    ] = 24,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Erase a person from landing, tables, every version and export, then from the disk. It leaves a receipt."""
    from flywheel_assets.capture.log.shipping import wait_until_shipped
    from flywheel_assets.lake.erasure import erase as erasure
    from flywheel_assets.lake.landing.disk import wait_until_sealed

    stores = open_stores()
    place = build_erasure_place(load_application(application), stores)
    if yes:
        with console.status("waiting for capture to seal its open segments, and to ship them where landing is on S3"):
            wait_until_sealed(place.landing.folder, application, stores.where.capture_segment_age_s + 15)
            # Segments that are not shipped by then are erased where they wait.
            wait_until_shipped(stores.where, application, timeout_s=15)
    plan = erasure.plan_erasure(place, user)
    if not yes:
        _print_plan(plan)
        console.print("To erase them, repeat the command with --yes; nothing can bring them back.")
        return
    now = datetime.now(UTC)
    with console.status("erasing, once daily steps and cuts that are at work have ended"):
        grace = timedelta(hours=grace_hours)
        receipt = erasure.erase_person(place, plan, who=name_decider(who), reason=reason, now=now, grace=grace)
    _print_receipt(receipt, stores.registry(application).find_champion())
    console.print(f"receipt: {erasure.build_receipt_path(place.versions, receipt.id)}", highlight=False, soft_wrap=True)


def build_erasure_place(application: "FlywheelApplication", stores: "Stores") -> "Place":
    """List every place where one application keeps data of people, by the settings of this machine."""
    from flywheel_assets.application import PreferenceApplication
    from flywheel_assets.curation.policy.policy import forget_texts
    from flywheel_assets.curation.texts.gate import select_judged_texts
    from flywheel_assets.lake.erasure.erase import ForgetOutside, Place
    from flywheel_assets.lake.erasure.landing import ErasableLanding
    from flywheel_assets.review.decisions import DecisionIndex

    name, lake, landing = application.name, stores.lake(application.name), stores.landing()
    index = DecisionIndex(stores.review_index(name))
    outside: dict[str, ForgetOutside] = {
        "reviews": lambda person, _: index.forget(
            lambda decision: decision.row_id in person.event_ids or decision.prediction_id in person.prediction_ids
        )
    }
    if isinstance(application, PreferenceApplication):
        policy = application.gate.policy
        outside["verdicts"] = lambda _, joined: forget_texts(policy, select_judged_texts(joined))
    return Place(
        lake=lake,
        tables=application.tables,
        versions=stores.versions(name),
        landing=ErasableLanding(
            application=name,
            folder=stores.landing_folder(),
            scratch=stores.scratch("landing"),
            elsewhere=landing if landing.find_folder(name) is None else None,
        ),
        start=application.start_date,
        lookback_days=application.staleness_lookback_days,
        outside=outside,
        s3_client=stores.s3_client,
    )


def _print_plan(plan: "ErasurePlan") -> None:
    table = Table("where", "rows to erase")
    table.add_row("landing", f"{plan.landed_lines:,}")
    for name, rows in [*plan.rows.items(), *plan.tagged_rows.items()]:
        table.add_row(name, f"{rows:,}")
    console.print(table)


def _print_receipt(receipt: "Receipt", champion: object) -> None:
    serving = getattr(champion, "gold_version", None)
    table = Table("where", "rows erased")
    table.add_row("landing", f"{sum(receipt.landed_lines.values()):,} in {receipt.landed_segments} segments")
    for name, rows in receipt.rows.items():
        table.add_row(name, f"{rows:,}")
    for version in receipt.versions:
        table.add_row(version.tag, f"{version.gold_rows_removed:,}, of the export {version.exported_rows_removed:,}")
    console.print(table)
    for version in receipt.versions:
        if version.trained:
            serves = ", and it serves" if version.tag == serving else ""
            console.print(f"the model of {version.tag} was trained on erased rows{serves}", style="yellow")
        if version.fold_models:
            them = f"the {version.fold_models} models that judge {version.tag} in folds were trained on erased rows"
            console.print(f"{them}; they never serve", style="yellow")
        if version.training_dropped:
            console.print(f"the training of {version.tag} was not scored yet and is deleted: its next run trains again")
        for copy in version.copies:
            console.print(f"a copy of {version.tag} went to {copy}: erase it there", style="yellow", soft_wrap=True)
    if kept := receipt.object_versions + receipt.file_versions:
        console.print(f"{kept:,} versions of deleted objects, which a bucket had kept, are deleted for good")
    for store, entries in receipt.outside.items():
        if entries:
            console.print(f"{store}: {entries:,} erased")
    for sentence in receipt.out_of_reach:
        console.print(f"out of reach: {sentence}", style="yellow", soft_wrap=True)
    if receipt.files_waiting:
        console.print(f"{receipt.files_waiting} files are deleted after {receipt.files_gone_at:%Y-%m-%d %H:%M} UTC")
