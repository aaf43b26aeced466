"""Commands over gold versions whose run has not finished."""

from typing import TYPE_CHECKING, Annotated

import typer

from flywheel_assets.cli.terminal import Application, app, console, driver_of, load_application
from flywheel_assets.errors import UnknownNameError, VersionConflictError
from flywheel_assets.stores import Stores

if TYPE_CHECKING:
    from flywheel_assets.lake.versions.folders import VersionFolder, Versions


@app.command()
def retry(version: str, application: Application = "assistant") -> None:
    """Let the trigger run a failed or canceled gold version again, as the same version."""
    from flywheel_assets.defs.running import request_retry

    config = load_application(application)
    _require_unfinished(version, Stores().versions(application))
    run_id = request_retry(driver_of(config).instance, application, version)
    console.print(f"{version} runs again at the trigger's next tick (the last run was {run_id})")


@app.command()
def abandon(
    version: str,
    reason: Annotated[str, typer.Option(help="Why; it becomes the version's decision.")],
    application: Application = "assistant",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only says what would happen.")] = False,
) -> None:
    """Finish a gold version without a promotion, so that the trigger can cut the next one."""
    from flywheel_assets.defs.partitions import build_version_partitions
    from flywheel_assets.lake.versions.folders import Promotion, record_promotion

    config = load_application(application)
    stores = Stores()
    folder = _require_unfinished(version, stores.versions(application))
    requested = driver_of(config).instance.get_dynamic_partitions(str(build_version_partitions(application).name))
    if not folder.path.exists() and version not in requested:
        # A slip of the finger would otherwise use up a number.
        raise UnknownNameError("gold version", version, requested)
    champion = stores.registry(application).find_champion()
    if champion is not None and champion.gold_version == version:
        raise VersionConflictError(f"{version} serves already; `flywheel retry {version}` records its promotion")
    if not yes:
        console.print(f"would finish {version} without a promotion: {reason}. Repeat with --yes to do it.")
        return
    decision = Promotion(
        version=version, promoted=False, sentence=f"Abandoned: {reason}", champion_before=None, checks=[]
    )
    record_promotion(folder.promotion, decision)
    console.print(f"{version} is finished, not promoted: {reason}")


def _require_unfinished(version: str, versions: "Versions") -> "VersionFolder":
    folder = versions.folder(version)
    if folder.is_finished:
        unfinished = [each.version for each in versions if not each.is_finished]
        raise UnknownNameError("unfinished version", version, unfinished, "It was decided; see its promotion.")
    return folder
