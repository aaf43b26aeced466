"""The command that forgets a person."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, Reason, Who, Yes, app, console, load_application, who_is
from flywheel_assets.stores import Stores

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.lake.erasure.erase import ErasurePlan, Place, Receipt


@app.command()
def erase(
    user: Annotated[str, typer.Option(help="The person's user id.")],
    reason: Reason,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long unreachable files stay for readers.")] = 24,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Forget a person: rows in landing, tables, every version and export, then on disk; leaves a receipt."""
    from flywheel_assets.capture.log.shipping import wait_until_shipped
    from flywheel_assets.lake.erasure import erase as erasure
    from flywheel_assets.lake.landing.disk import wait_until_sealed

    stores = Stores()
    place = erasure_place(load_application(application), stores)
    if yes:
        with console.status("waiting for capture to seal its open segments, and to ship them where landing is on S3"):
            wait_until_sealed(place.landing.folder, application, stores.where.capture_segment_age_s + 15)
            # What is not shipped by then is erased where it waits.
            wait_until_shipped(stores.where, application, timeout_s=15)
    plan = erasure.plan_erasure(place, user)
    if not yes:
        _print_plan(plan)
        console.print("Repeat with --yes to erase them; nothing brings them back.")
        return
    now = datetime.now(UTC)
    with console.status("erasing, once daily steps and cuts that are at work have ended"):
        grace = timedelta(hours=grace_hours)
        receipt = erasure.erase_person(place, plan, who=who_is(who), reason=reason, now=now, grace=grace)
    _print_receipt(receipt, stores.registry(application).find_champion())
    console.print(f"receipt: {erasure.build_receipt_path(place.versions, receipt.id)}", highlight=False, soft_wrap=True)


def erasure_place(application: "FlywheelApplication", stores: "Stores") -> "Place":
    """Everywhere that one application keeps data of people, by the settings of this machine."""
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
    table = Table("where", "rows that would go")
    table.add_row("landing", f"{plan.landed_lines:,}")
    for name, rows in [*plan.rows.items(), *plan.tagged_rows.items()]:
        table.add_row(name, f"{rows:,}")
    console.print(table)


def _print_receipt(receipt: "Receipt", champion: object) -> None:
    serving = getattr(champion, "gold_version", None)
    table = Table("where", "rows gone")
    table.add_row("landing", f"{sum(receipt.landed_lines.values()):,} in {receipt.landed_segments} segments")
    for name, rows in receipt.rows.items():
        table.add_row(name, f"{rows:,}")
    for version in receipt.versions:
        table.add_row(version.tag, f"{version.gold_rows_removed:,}, of the export {version.exported_rows_removed:,}")
    console.print(table)
    for version in receipt.versions:
        if version.trained:
            serves = ", and it serves" if version.tag == serving else ""
            console.print(f"the model of {version.tag} was trained on rows that are gone{serves}", style="yellow")
        if version.training_dropped:
            console.print(f"the training of {version.tag} was not scored yet and is gone: its next run makes another")
        for copy in version.copies:
            console.print(f"a copy of {version.tag} went to {copy}: erase it there", style="yellow", soft_wrap=True)
    if kept := receipt.object_versions + receipt.file_versions:
        console.print(f"{kept:,} versions that a bucket kept of deleted objects: gone for good")
    for store, entries in receipt.outside.items():
        if entries:
            console.print(f"{store}: {entries:,} gone")
    for sentence in receipt.out_of_reach:
        console.print(f"out of reach: {sentence}", style="yellow", soft_wrap=True)
    if receipt.files_waiting:
        console.print(f"{receipt.files_waiting} files are deleted after {receipt.files_gone_at:%Y-%m-%d %H:%M} UTC")
