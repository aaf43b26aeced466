"""`flywheel gold …`: what the versions hold, how they differ, and copies of them for others."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, app, console, load_application
from flywheel_assets.stores import Stores

if TYPE_CHECKING:
    from flywheel_assets.lake.versions.summaries import VersionSummary

gold = typer.Typer(no_args_is_help=True, help="Gold versions: list, show, diff, export.")
app.add_typer(gold, name="gold")

Version = Annotated[str, typer.Argument(help="A gold version; `flywheel gold list` shows them.")]


@gold.command("list")
def list_versions(application: Application = "assistant") -> None:
    """List every version: rows, days, what was trained from it, and whether it serves."""
    from flywheel_assets.lake.tables.tags import list_tags
    from flywheel_assets.lake.versions.rollback import SAVED_HEAD
    from flywheel_assets.lake.versions.summaries import summarize_versions

    config, stores = load_application(application), Stores()
    lake = stores.lake(application)
    champion = _champion(application)
    table = Table()
    for column in ("version", "snapshot", "rows", "days", "left out", "exclusions", "model", "decision"):
        table.add_column(column, overflow="fold")
    for each in summarize_versions(lake, stores.versions(application), config.tables.gold):
        manifest = each.manifest
        table.add_row(
            each.version + (" (undone)" if each.is_undone else ""),
            str(each.snapshot_id or "not tagged"),
            ", ".join(f"{name} {rows:,}" for name, rows in each.rows.items()) or "not exported",
            f"{min(manifest.days)} … {max(manifest.days)}" if manifest and manifest.days else "",
            f"{sum(manifest.dropped.values()):,}" if manifest else "",
            ", ".join(manifest.exclusions) if manifest else "",
            (each.trained or "not trained")[:12],
            _decision(each, champion),
        )
    console.print(table)
    for name in sorted(name for name in list_tags(lake, config.tables.gold) if name.startswith(SAVED_HEAD)):
        console.print(f"{name}: the gold table before a rollback")


@gold.command()
def show(version: Version, application: Application = "assistant") -> None:
    """Everything about one version: tag, rows, reasons, days, exclusions, sha256 of every file, code, model."""
    from flywheel_assets.lake.versions.publishing import list_copies
    from flywheel_assets.lake.versions.summaries import find_summary

    config, stores = load_application(application), Stores()
    versions = stores.versions(application)
    summary = find_summary(stores.lake(application), versions, config.tables.gold, version)
    facts: dict[str, object] = {
        "tag on": f"{application}.{config.tables.gold.name}",
        "snapshot": summary.snapshot_id or "not tagged",
        "model": summary.trained or "not trained",
        "decision": _decision(summary, _champion(application)),
        "why": summary.decision or "",
    }
    if manifest := summary.manifest:
        facts |= {
            "revision": manifest.revision,
            "manifest sha256": summary.manifest_sha256,
            "code version": manifest.code_version,
            "days": f"{len(manifest.days)}: {min(manifest.days, default='')} … {max(manifest.days, default='')}",
            **{f"rows: {which.value}": f"{file.rows:,}" for which, file in manifest.files.items()},
            **{f"left out: {reason}": f"{rows:,}" for reason, rows in manifest.dropped.items()},
            **{f"exclusion {key}": what for key, what in manifest.exclusions.items()},
            **{f"sha256 {file.name}": file.sha256 for file in manifest.files.values()},
            **{
                f"erasure {each.erasure}": f"{sum(each.rows_removed.values())} rows, was {each.manifest_sha256_before}"
                for each in manifest.erasures
            },
            **{f"rule {name}": value for name, value in manifest.rules.items()},
        }
    copies = list_copies(versions.folder(version))
    facts |= {f"copy {number}": where for number, where in enumerate(copies, start=1)}
    _print_facts(version, facts)


@gold.command()
def diff(first: Version, second: Version, application: Application = "assistant") -> None:
    """What changed from one version to another: rows by set, reasons, days, exclusions, rules."""
    from flywheel_assets.lake.versions.summaries import compare_versions, find_summary, require_manifest

    config, stores = load_application(application), Stores()
    lake, versions = stores.lake(application), stores.versions(application)
    for version in (first, second):
        require_manifest(find_summary(lake, versions, config.tables.gold, version))
    found = compare_versions(versions.folder(first), versions.folder(second))
    table = Table("set", *(f"[bold]{name}[/]" for name in ("added", "removed", "changed", "kept")))
    for name, each in found.sets.items():
        table.add_row(name, *(f"{number:,}" for number in (each.added, each.removed, each.changed, each.kept)))
    console.print(table)
    facts: dict[str, object] = {
        **{f"left out: {reason}": f"{old:,} → {new:,}" for reason, (old, new) in found.dropped.items()},
        "days added": _days(found.days_added),
        "days removed": _days(found.days_removed),
        "days with other content": _days(found.days_changed),
        **{f"exclusion {key} added": what for key, what in found.exclusions_added.items()},
        **{f"exclusion {key} gone": what for key, what in found.exclusions_removed.items()},
        **{f"rule {name}": f"{old} → {new}" for name, (old, new) in found.rules_changed.items()},
    }
    _print_facts(f"{first} → {second}", facts)


@gold.command()
def export(
    version: Version,
    to: Annotated[str, typer.Option(help="A folder, or s3://bucket/prefix.")],
    application: Application = "assistant",
) -> None:
    """Copy a version as JSON lines and Parquet, under names that are never overwritten."""
    from flywheel_assets.lake.versions.publishing import publish_export
    from flywheel_assets.lake.versions.summaries import find_summary, require_manifest

    config, stores = load_application(application), Stores()
    versions = stores.versions(application)
    require_manifest(find_summary(stores.lake(application), versions, config.tables.gold, version))
    for file in publish_export(versions.folder(version), to, stores.scratch("publishing"), stores.s3_client):
        state = "new" if file.is_new else "was there"
        console.print(f"{file.where}  {file.bytes:,} bytes, {state}", highlight=False, soft_wrap=True)


def _champion(application: str) -> str | None:

    champion = Stores().registry(application).find_champion()
    return champion.gold_version if champion else None


def _decision(summary: "VersionSummary", champion: str | None) -> str:
    if summary.version == champion:
        return "champion now"
    return {None: "not decided", True: "was champion", False: "not promoted"}[summary.promoted]


def _print_facts(title: str, facts: "dict[str, object]") -> None:
    console.print(title, style="bold", highlight=False)
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    console.print(table)


def _days(days: list[str]) -> str:
    return f"{len(days)}: {days[0]} … {days[-1]}" if days else "none"


@app.command()
def verify(application: Application = "assistant") -> None:
    """Check every version's manifest against files, tag, pin and rows; exit code 1 with the first differences."""
    from flywheel_assets.lake.versions import verification

    config, stores = load_application(application), Stores()
    found = verification.verify_versions(stores.lake(application), stores.versions(application), config.tables.gold)
    for difference in found.differences[:10]:
        console.print(difference, highlight=False, soft_wrap=True, style="red")
    if found.differences:
        console.print(f"{len(found.differences)} differences in {found.versions} versions")
        raise typer.Exit(1)
    console.print(f"{found.versions} versions are what their manifests say")
