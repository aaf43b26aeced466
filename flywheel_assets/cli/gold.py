"""Commands over gold versions: list, show, compare, copy and verify them, show rows; retry or abandon one."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flywheel_assets.cli.terminal import Application, app, build_driver, console, load_application, open_stores
from flywheel_assets.errors import InvalidRuleError, UnknownNameError, VersionConflictError

if TYPE_CHECKING:
    from flywheel_assets.lake.versions.folders import VersionFolder, Versions
    from flywheel_assets.lake.versions.summaries import VersionSummary

gold = typer.Typer(no_args_is_help=True, help="List, show, compare and export gold versions.")
app.add_typer(gold, name="gold")

Version = Annotated[str, typer.Argument(help="A gold version; `flywheel gold list` lists them.")]


@gold.command("list")
def list_versions(application: Application = "assistant") -> None:
    """List every version: its rows and days, its model, and whether that model serves."""
    from flywheel_assets.lake.tables.tags import list_tags
    from flywheel_assets.lake.versions.rollback import SAVED_HEAD
    from flywheel_assets.lake.versions.summaries import summarize_versions

    config, stores = load_application(application), open_stores()
    lake = stores.lake(application)
    champion = _find_champion(application)
    summaries = summarize_versions(lake, stores.versions(application), config.tables.gold)
    described = [_describe_version(each, champion) for each in summaries]
    # In a narrow terminal all columns together would break names in the middle of a word.
    shown = _VERSION_COLUMNS if console.width >= _WIDE else _NARROW_COLUMNS
    table = Table()
    for column in shown:
        table.add_column(column, overflow="fold", no_wrap=column in ("version", "decision"))
    for each in described:
        table.add_row(*(each[column] for column in shown))
    console.print(table)
    if len(shown) < len(_VERSION_COLUMNS):
        left_out = ", ".join(name for name in _VERSION_COLUMNS if name not in shown)
        console.print(f"`flywheel gold show VERSION`, or {_WIDE} columns, show {left_out}.", soft_wrap=True)
    for name in sorted(name for name in list_tags(lake, config.tables.gold) if name.startswith(SAVED_HEAD)):
        console.print(f"{name}: the gold table before a rollback")
    for summary in summaries:
        if summary.damage is not None:
            console.print(
                f"{summary.version}: {summary.damage}", style="red", markup=False, highlight=False, soft_wrap=True
            )


_VERSION_COLUMNS = ("version", "snapshot", "rows", "days", "left out", "exclusions", "model", "decision")
_NARROW_COLUMNS = ("version", "rows", "days", "decision")
_WIDE = 120


def _describe_version(summary: "VersionSummary", champion: str | None) -> dict[str, str]:
    """Describe a version in the columns of the list."""
    manifest = summary.manifest
    return {
        "version": summary.version + (" (undone)" if summary.is_undone else ""),
        "snapshot": str(summary.snapshot_id or "not tagged"),
        "rows": ", ".join(f"{name} {rows:,}" for name, rows in summary.rows.items())
        or ("not exported" if summary.damage is None else "damaged, see below"),
        "days": f"{min(manifest.days)} … {max(manifest.days)}" if manifest and manifest.days else "",
        "left out": f"{sum(manifest.dropped.values()):,}" if manifest else "",
        "exclusions": ", ".join(manifest.exclusions) if manifest else "",
        "model": (summary.trained or "not trained")[:12],
        "decision": _describe_decision(summary, champion),
    }


@gold.command()
def show(version: Version, application: Application = "assistant") -> None:
    """Show everything about one version: tag, rows, reasons, days, exclusions, files, code and model."""
    from flywheel_assets.lake.versions.publishing import list_copies
    from flywheel_assets.lake.versions.summaries import find_summary

    config, stores = load_application(application), open_stores()
    versions = stores.versions(application)
    summary = find_summary(stores.lake(application), versions, config.tables.gold, version)
    facts: dict[str, object] = {
        "tag on": f"{application}.{config.tables.gold.name}",
        "snapshot": summary.snapshot_id or "not tagged",
        "model": summary.trained or "not trained",
        "decision": _describe_decision(summary, _find_champion(application)),
        "why": summary.decision or "",
        **({} if summary.damage is None else {"damage": summary.damage}),
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
    """Compare two versions: rows by set, reasons, days, exclusions and rules."""
    from flywheel_assets.lake.versions.summaries import compare_versions, find_summary, require_manifest

    config, stores = load_application(application), open_stores()
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
        "days added": _format_days(found.days_added),
        "days removed": _format_days(found.days_removed),
        "days with other content": _format_days(found.days_changed),
        **{f"exclusion {key} added": what for key, what in found.exclusions_added.items()},
        **{f"exclusion {key} gone": what for key, what in found.exclusions_removed.items()},
        **{f"rule {name}": f"{old} → {new}" for name, (old, new) in found.rules_changed.items()},
    }
    _print_facts(f"{first} → {second}", facts)


@gold.command()
def export(
    version: Version,
    to: Annotated[
        str | None, typer.Option(help="Copy the version's own files to this folder, or to s3://bucket/prefix.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Write another format: trl, openai, kto, parquet or hf.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --format: the folder to write. Default: ./VERSION-FORMAT.")
    ] = None,
    which: Annotated[str, typer.Option("--set", help="With --format: train, holdout, regression or all.")] = "all",
    license_: Annotated[
        str, typer.Option("--license", help="With --format hf: the licence of the card, as cc-by-4.0.")
    ] = "other",
    replace: Annotated[
        bool, typer.Option("--replace", help="With --format: replace a folder that this command wrote before.")
    ] = False,
    application: Application = "assistant",
) -> None:
    """Copy a version: its own files with --to, or in the format of a training tool with --format.

    Files that exist already are never overwritten.
    """
    from flywheel_assets.lake.versions.publishing import publish_export
    from flywheel_assets.lake.versions.summaries import find_summary, require_manifest

    config, stores = load_application(application), open_stores()
    versions = stores.versions(application)
    if (to is None) == (format_ is None):
        raise InvalidRuleError(
            "give --to FOLDER for the version's own files, or --format trl|openai|kto|parquet|hf for another format"
        )
    require_manifest(find_summary(stores.lake(application), versions, config.tables.gold, version))
    if to is None:
        assert format_ is not None
        folder = out or Path(f"{version}-{format_}")
        if str(folder).startswith("s3:"):
            raise InvalidRuleError(f"--format writes a folder on this machine, no {folder}; copy it there afterwards")
        _share_version(versions.folder(version), folder, format_, which, license_, replaces=replace)
        return
    for file in publish_export(versions.folder(version), to, stores.scratch("publishing"), stores.s3_client):
        state = "new" if file.is_new else "existed already"
        console.print(f"{file.where}  {file.bytes:,} bytes, {state}", highlight=False, soft_wrap=True)


def _share_version(
    folder: "VersionFolder", out: Path, format_: str, which: str, license_: str, *, replaces: bool
) -> None:
    from flywheel_assets.formats.writing.examples import GAPS, Gap
    from flywheel_assets.lake.versions.sharing import SharedFormat, SharedSet, share_version

    for kind, given, known in (("format", format_, SharedFormat), ("set", which, SharedSet)):
        if given not in list(known):
            raise UnknownNameError(kind, given, list(known))
    shared = share_version(folder, out, SharedFormat(format_), SharedSet(which), license_, replaces=replaces)
    for name, file in shared.files.items():
        rows = f"{file.rows:,} rows, " if file.rows else ""
        console.print(f"{out / name}  {rows}{file.bytes:,} bytes", highlight=False, soft_wrap=True)
    for gap, number in shared.not_expressed.items():
        console.print(f"not there: {number:,} rows ({gap}): {GAPS[Gap(gap)]}", highlight=False, soft_wrap=True)
    if shared.reasoning_left_out:
        console.print(f"{shared.reasoning_left_out:,} rows are there without the model's reasoning")
    console.print(
        "No erasure reaches this copy: `flywheel erase` names the folder, and you delete it or export it again.",
        soft_wrap=True,
    )


@gold.command()
def rows(
    version: Annotated[str | None, typer.Option(help="Show rows of this version.")] = None,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Show rows of this UTC day of gold, YYYY-MM-DD.")
    ] = None,
    which: Annotated[
        str,
        typer.Option(
            "--set", help="The set: train, demonstrations, accepted, objections, holdout, regression or evaluation."
        ),
    ] = "train",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most rows to show.")] = 20,
    text: Annotated[bool, typer.Option("--text", help="Also print the texts: they are user text.")] = False,
    subjects: Annotated[bool, typer.Option("--subjects", help="Also print whose rows they are.")] = False,
    application: Application = "assistant",
) -> None:
    """Show rows of a version's set, or of a day of gold, waiting and refused ones with their reasons."""
    from flywheel_assets.lake.whatif.gold_rows import TEXTS, read_day_rows, read_version_rows

    config, stores = load_application(application), open_stores()
    lake, table = stores.lake(application), config.tables.gold
    if (version is None) == (day is None):
        raise InvalidRuleError("give --version, or --day; `flywheel gold list` lists the versions")
    if version is not None:
        found = read_version_rows(
            lake, table, stores.versions(application).folder(version), which, limit, with_texts=text
        )
        title = f"{version}, {which}: {len(found):,} rows"
    else:
        assert day is not None
        found = read_day_rows(lake, table, day.date(), limit, with_texts=text)
        title = f"{day:%Y-%m-%d}: {len(found):,} rows"
    console.print(title, style="bold", highlight=False)
    described = [_describe_row(row, with_subject=subjects) for row in found]
    if described:
        # Columns that no row fills, or the title says, take width from the ids, which people copy for `flywheel trace`.
        filled = [name for name in described[0] if any(row[name] for row in described)]
        filled = [name for name in filled if day is None or name != "day"]
        output = Table(*filled)
        for row in described:
            output.add_row(*(row[name] for name in filled))
        output.columns[0].no_wrap = True
        for column in output.columns:
            column.overflow = "fold"
        console.print(output)
    for row in found if text else ():
        for name in TEXTS:
            if row.get(name) is not None:
                console.print(f"{row.get('pair_id', row.get('prediction_id'))} {name}", style="bold", highlight=False)
                console.print(str(row[name]), markup=False, highlight=False, soft_wrap=True)


def _describe_row(row: "dict[str, Any]", *, with_subject: bool) -> dict[str, str]:
    """Describe a gold row in the columns of its kind of application, without its texts."""
    if "pair_id" in row:
        admitted = ", ".join(filter(None, (row.get("admitted_as"), row.get("admitted_by"))))
        shown: dict[str, object] = {
            "pair": row["pair_id"],
            "kind": row.get("example_kind"),
            "day": row["completed_date"],
            "stance": row.get("stance"),
            "from": row.get("subject_kind"),
            "similarity": "" if row["similarity"] is None else f"{row['similarity']:.2f}",
            "support": row.get("support_users"),
            "admitted": admitted,
            "reason": row.get("refused_reason") or row.get("held_reason"),
        }
    else:
        shown = {
            "prediction": row["prediction_id"],
            "day": row.get("completed_date", row.get("prediction_received_date")),
            "positive": row["is_positive"],
            "by": row["labeling_source"],
            "from": row.get("subject_kind"),
            "discrepancy": row.get("discrepancy"),
            "drawn with": "" if row.get("inclusion_probability") is None else f"{row['inclusion_probability']:.3g}",
            "reason": row.get("selection_reason"),
        }
    if with_subject:
        shown["subject"] = row["subject"]
    return {name: "" if value is None else str(value) for name, value in shown.items()}


def _find_champion(application: str) -> str | None:

    champion = open_stores().registry(application).find_champion()
    return champion.gold_version if champion else None


def _describe_decision(summary: "VersionSummary", champion: str | None) -> str:
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


def _format_days(days: list[str]) -> str:
    return f"{len(days)}: {days[0]} … {days[-1]}" if days else "none"


@app.command()
def verify(application: Application = "assistant") -> None:
    """Check that files, tag, pin and rows of every version agree with its manifest.

    The exit code is 1, and the first differences are printed, when they do not agree.
    """
    from flywheel_assets.lake.versions import verification

    config, stores = load_application(application), open_stores()
    found = verification.verify_versions(stores.lake(application), stores.versions(application), config.tables.gold)
    for difference in found.differences[:10]:
        console.print(difference, markup=False, highlight=False, soft_wrap=True, style="red")
    console.print(
        "not looked at: landing, the ledger, the other tables and older snapshots, receipts, trained models, MLflow, "
        "databases; `flywheel fsck` looks at them",
        soft_wrap=True,
    )
    if found.differences:
        console.print(f"{len(found.differences)} differences in {found.versions} versions")
        raise typer.Exit(1)
    console.print(f"{found.versions} versions agree with their manifests")


@app.command()
def retry(version: str, application: Application = "assistant") -> None:
    """Let the trigger run a failed or canceled gold version again, as the same version."""
    from flywheel_assets.defs.running import request_retry

    config = load_application(application)
    _require_unfinished(version, open_stores().versions(application))
    run_id = request_retry(build_driver(config).instance, application, version)
    console.print(f"{version} runs again at the trigger's next tick (the last run was {run_id})")


@app.command()
def abandon(
    version: str,
    reason: Annotated[str, typer.Option(help="The reason; it becomes the version's decision.")],
    application: Application = "assistant",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this option the command only prints what would happen.")
    ] = False,
) -> None:
    """Finish a gold version without a promotion, so that the trigger can cut the next one."""
    from flywheel_assets.defs.partitions import build_version_partitions
    from flywheel_assets.lake.versions.folders import Promotion, record_promotion

    config = load_application(application)
    stores = open_stores()
    folder = _require_unfinished(version, stores.versions(application))
    requested = build_driver(config).instance.get_dynamic_partitions(str(build_version_partitions(application).name))
    if not folder.path.exists() and version not in requested:
        # A mistyped version would otherwise use up a number.
        raise UnknownNameError("gold version", version, requested)
    champion = stores.registry(application).find_champion()
    if champion is not None and champion.gold_version == version:
        raise VersionConflictError(
            f"{version} serves already; `flywheel retry {version} -a {application}` records its promotion"
        )
    if not yes:
        console.print(f"would finish {version} without a promotion: {reason}. To do it, repeat the command with --yes.")
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
        raise UnknownNameError("unfinished version", version, unfinished, "It was decided already; see its promotion.")
    return folder
