"""Commands over files: import what a team has already, and pass pairs through the gate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from flywheel_assets.cli.days import print_published
from flywheel_assets.cli.terminal import (
    Application,
    Who,
    app,
    build_driver,
    console,
    errors,
    load_application,
    load_preference,
    name_decider,
    open_stores,
    print_reasons,
)
from flywheel_assets.formats.reading.quoting import Quoting

if TYPE_CHECKING:
    from flywheel_assets.application import FlywheelApplication
    from flywheel_assets.capture.importing.files import ImportPlan
    from flywheel_assets.capture.importing.report import ImportReport
    from flywheel_assets.capture.importing.sinks import FirstRows, RowSink
    from flywheel_assets.formats.causes import Cause
    from flywheel_assets.formats.conversion import FieldMap
    from flywheel_assets.formats.reading.sources import Source

_SHOWN_CHARACTERS = 60
_SHOWN_CAUSES = 20

Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE...", help="Files, folders, patterns in quotation marks, or - for standard input."),
]
FormatName = Annotated[
    str, typer.Option("--format", help="A format's name; auto finds it. --list-formats lists them.", show_default=True)
]
Maps = Annotated[
    list[str] | None,
    typer.Option("--map", help="Which field is what, prompt=question,final_text=answer_sent; or a file of TOML."),
]
Encoding = Annotated[str | None, typer.Option("--encoding", help="For instance latin-1. Default: UTF-8.")]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", help="Of tables: one character, or tab. Default: found in the header.")
]
QuotingOption = Annotated[
    Quoting | None,
    typer.Option("--quoting", help="Of tables: csv as RFC 4180 has it, none where quotation marks are literal."),
]
Escapes = Annotated[
    bool, typer.Option("--escapes", help=r"Of tables: read \n, \r, \t and \\ as they are written in C.")
]


@app.command("import")
def import_(
    files: Files = None,
    application: Application = "assistant",
    format_name: FormatName = "auto",
    maps: Maps = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    quoting: QuotingOption = None,
    escapes: Escapes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be imported, and land nothing.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Land each row on its own day, not on today.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="With --history: why; stored for audits.")] = None,
    who: Who = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Read only so many records.")] = None,
    show_formats: Annotated[bool, typer.Option("--list-formats", help="List the formats and do no more.")] = False,
) -> None:
    """Send existing telemetry from files through capture into the landing zone.

    JSON, JSON lines, CSV, TSV and Parquet are read, also as gzip or zstd. Importing a file twice changes nothing. The
    exit code is 0 when everything was accepted, 1 when nothing was, and 3 when only a part was.
    """
    from flywheel_assets.capture.importing.files import ImportPlan, import_files
    from flywheel_assets.capture.importing.sinks import FirstRows
    from flywheel_assets.formats.reading.entries import ReadingOptions

    if show_formats:
        _print_formats()
        return
    config = load_application(application)
    if maps and config.score_contract is not None:
        raise typer.BadParameter(
            f"--map is for texts; the fields of {config.name} are named in its FieldMapping, in its Python module"
        )
    if history and not reason:
        raise typer.BadParameter("--history changes past days: say why with --reason")
    sources = _find_sources(files)
    plan = ImportPlan(
        application=config.name,
        contract=config.score_contract,
        format=format_name,
        mapping=_read_mapping(maps),
        reading=ReadingOptions(encoding=encoding, delimiter=delimiter, quoting=quoting, escapes=escapes),
        limit=limit,
        as_history=history,
    )
    if dry_run:
        first_rows = FirstRows(as_history=history)
        with _show_progress(sources) as on_progress:
            report = import_files(sources, plan, first_rows, on_progress=on_progress)
        _print_report(report, is_look=True)
        if history:
            _print_days(first_rows, config)
        _print_rows(first_rows)
    elif history:
        report = _import_history(sources, plan, config, name_decider(who), reason or "")
    else:
        with _open_sink(config.name) as sink, _show_progress(sources) as on_progress:
            report = import_files(sources, plan, sink, on_progress=on_progress)
        _print_report(report, is_look=False)
        if report.accepted:
            console.print(f"next: [bold]flywheel turn --now --application {config.name}[/]")
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@contextmanager
def _open_sink(application: str) -> Iterator["RowSink"]:
    """Open today's landing."""
    from flywheel_assets.capture.importing.sinks import LogSink
    from flywheel_assets.capture.log.segments import SegmentLog
    from flywheel_assets.capture.log.shipping import open_shipper

    stores = open_stores()
    shipper = open_shipper(stores.where, stores.shipping()) or nullcontext()
    with shipper, SegmentLog(stores.landing_folder()) as event_log:
        yield LogSink(event_log, application)


def _import_history(
    sources: Sequence["Source"], plan: "ImportPlan", config: "FlywheelApplication", who: str, reason: str
) -> "ImportReport":
    """Land every row on its own day, and say which days have changed and what makes gold right."""
    from flywheel_assets.capture.importing.files import import_files
    from flywheel_assets.capture.importing.sinks import HistorySink
    from flywheel_assets.capture.log.history import HistoryLog
    from flywheel_assets.defs.assets.landed import report_changed_days

    stores = open_stores()
    # Opened first: it fails outside the project's folder, and rows that had landed by then would stay unreported,
    # since a repeated import finds them landed and changes no day.
    instance = build_driver(config).instance
    names = ", ".join(source.name for source in sources)
    where = stores.lake(config.name), stores.landing(), stores.scratch("history")
    with HistoryLog(*where, who, reason, names) as log:
        sink = HistorySink(log)
        with _show_progress(sources) as on_progress:
            report = import_files(sources, plan, sink, on_progress=on_progress)
    _print_report(report, is_look=False)
    if sink.published is not None:
        report_changed_days(instance, config, stores)
        print_published(sink.published, config)
    return report


@app.command()
def curate(
    files: Files,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file to write: one {prompt, chosen, rejected} line per kept pair.")
    ],
    application: Annotated[str | None, typer.Option("--application", "-a", help="Use this application's gate.")] = None,
    format_name: FormatName = "auto",
    maps: Maps = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    quoting: QuotingOption = None,
    escapes: Escapes = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write the output even where no pair is kept.")
    ] = False,
) -> None:
    """Pass pairs in files through the gate, without Dagster, and count the dropped ones by reason.

    What `flywheel import` reads is read here too. The exit code is 0 when every record could be read, 1 when no pair
    was kept, and 3 when some records could not be read.
    """
    from flywheel_assets.curation.texts.gate import GateRules
    from flywheel_assets.formats.reading.entries import ReadingOptions
    from flywheel_assets.lake.whatif.curate_file import CuratePlan, curate_files

    rules = load_preference(application).gate if application else GateRules()
    sources = _find_sources(files)
    plan = CuratePlan(
        format=format_name,
        mapping=_read_mapping(maps),
        reading=ReadingOptions(encoding=encoding, delimiter=delimiter, quoting=quoting, escapes=escapes),
        allows_empty=allow_empty,
    )
    result = curate_files(sources, out, rules, plan)
    print_reasons(f"{', '.join(each.name for each in sources)} → {out.name}", result.kept, result.dropped)
    _print_causes(result.causes)
    if not result.is_written:
        errors.print(f"no pair was kept: {out} was not written; --allow-empty writes it", style="yellow")
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _find_sources(files: Sequence[str] | None) -> tuple["Source", ...]:
    from flywheel_assets.formats.reading.sources import find_sources

    if not files:
        raise typer.BadParameter("name at least one file, folder or pattern, or - for standard input")
    found = find_sources(files)
    if found.skipped:
        names = ", ".join(path.name for path in found.skipped[:10])
        errors.print(f"passed over, no data by their names: {names}", style="yellow", highlight=False)
    if not found.sources:
        raise typer.BadParameter(f"there is no file to read in {', '.join(files)}")
    return found.sources


def _read_mapping(maps: Sequence[str] | None) -> "FieldMap | None":
    if not maps:
        return None
    from flywheel_assets.formats.mapping import read_mapping

    mapping: FieldMap = read_mapping(maps)
    return mapping


@contextmanager
def _show_progress(sources: Sequence["Source"]) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; the function moves it by what was read of the present source."""
    sizes = [source.size_bytes for source in sources]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("reading", total=total)
        done = {"records": 0, "bytes": 0, "earlier_records": 0, "earlier_bytes": 0}

        def move(records: int, size_bytes: int) -> None:
            if records < done["records"]:  # the next source has begun
                done["earlier_records"] += done["records"]
                done["earlier_bytes"] += done["bytes"]
            done.update(records=records, bytes=size_bytes)
            count = done["earlier_records"] + records
            elapsed = progress.tasks[0].elapsed or 0.0
            rate = f", {count / elapsed:,.0f}/s" if elapsed > 1 else ""
            progress.update(task, completed=done["earlier_bytes"] + size_bytes, description=f"{count:,} records{rate}")

        yield move


def _print_report(report: "ImportReport", is_look: bool) -> None:
    for file in report.files:
        title = f"{file.name}: {file.shape}, {file.format} ({file.title})" if file.format else file.name
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        if file.unread:
            console.print(f"  fields that are not taken: {', '.join(file.unread)}", highlight=False, soft_wrap=True)
        if file.escaped_rows:
            console.print(
                rf"  {file.escaped_rows:,} rows hold \n, \r or \t as two characters; they are kept so. --escapes reads "
                "them as line breaks and tabs",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if file.problem:
            errors.print(f"  {file.problem}", markup=False, style="yellow", highlight=False, soft_wrap=True)
    verb = "would be accepted" if is_look else "accepted"
    unused = f", {report.unused:,} without anything of use" if report.unused else ""
    console.print(f"{report.accepted:,} of {report.records:,} records {verb}, {report.refused:,} refused{unused}")
    if report.events:
        counts = (f"{count:,} {kind}" for kind, count in sorted(report.events.items()))
        console.print(f"events: {', '.join(counts)}", highlight=False)
    _print_causes(report.causes)


def _print_causes(causes: Sequence["Cause"]) -> None:
    for cause in causes[:_SHOWN_CAUSES]:
        place = f"{cause.file}, {cause.unit} {cause.number}"
        text = f"{cause.count:,} × {cause.problem} (first: {place})"
        errors.print(text, markup=False, style="yellow", highlight=False, soft_wrap=True)
    if len(causes) > _SHOWN_CAUSES:
        errors.print(f"and {len(causes) - _SHOWN_CAUSES} more causes", style="yellow")


def _print_days(look: "FirstRows", config: "FlywheelApplication") -> None:
    """Say on which days history would land, and how many rows do not say when they happened."""
    if look.days:
        days = f"{min(look.days)} … {max(look.days)} ({len(look.days):,})"
        console.print(f"days that would receive rows: {days}", highlight=False)
    if look.timeless:
        fields = (
            "prediction_time, label_time and known_at of the application's FieldMapping name the fields"
            if config.score_contract is not None
            else "--map occurred_at=… names the field"
        )
        text = f"{look.timeless:,} rows have no time of their own and would land on today: {fields}"
        errors.print(text, markup=False, style="yellow", highlight=False, soft_wrap=True)


def _print_rows(first_rows: Any) -> None:
    """Print the first landed rows with shortened texts."""
    import msgspec

    for row in first_rows.rows:
        table = Table("field", "value", title=f"{row.kind.value} row", title_justify="left")
        for name, value in msgspec.json.decode(row.line).items():
            text = str(value)
            shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
            table.add_row(name, repr(shown)[1:-1])
        console.print(table, markup=False)


def _print_formats() -> None:
    from flywheel_assets.formats.conversion import list_formats

    table = Table("format", "what it is")
    for each in list_formats():
        table.add_row(each.name, each.title)
    console.print(table)
