"""Commands of the screening layer: train a head, list heads, and choose the one that serves."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
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
    load_preference,
    name_decider,
    open_stores,
    read_settings,
)
from flywheel_assets.errors import SettingsError

if TYPE_CHECKING:
    from flywheel_assets.screening.heads.gate import HeadReport
    from flywheel_assets.screening.heads.store import HeadStore
    from flywheel_assets.screening.heads.training import Example

screen = typer.Typer(no_args_is_help=True, help="Train and choose the head that screens texts for toxic language.")
app.add_typer(screen, name="screen")

_HARMFUL = frozenset(("1", "true", "yes", "toxic", "harmful", "hateful", "unsafe"))
_HARMLESS = frozenset(("0", "false", "no", "not toxic", "harmless", "non-hateful", "safe"))


@screen.command()
def train(
    application: Application = "assistant",
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            exists=True,
            dir_okay=False,
            help="Judged texts, CSV with a header or JSON lines: columns text, label and, optionally, language. "
            "Repeat the option for more.",
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the judgements: toxic or not toxic.")] = "label",
    decisions: Annotated[bool, typer.Option(help="Learn from the reviewers' decisions as well.")] = True,
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of a sentence encoder. Default: the installed package's.")
    ] = None,
    who: Who = None,
) -> None:
    """Train a head on judged texts, measure it against what serves, and let it serve if it is better."""
    from flywheel_assets.screening.heads.encoder import EncoderProcess, find_encoder
    from flywheel_assets.screening.heads.gate import HeadLimits, judge_head
    from flywheel_assets.screening.heads.reviewed_texts import read_reviewed_examples
    from flywheel_assets.screening.heads.signals import list_word_hits
    from flywheel_assets.screening.heads.training import SUITE_LANGUAGE, TrainingRules, find_stopped, train_head

    config = load_preference(application)
    examples = [example for file in files or [] for example in _read_examples(file, text_column, label_column)]
    given = len(examples)
    if decisions:
        examples += read_reviewed_examples(open_stores().lake(config.name))
    console.print(f"{given:,} judged texts from files, {len(examples) - given:,} from reviewers", highlight=False)
    process = EncoderProcess(folder=encoder or find_encoder())
    store = _open_store(config.name)
    serving = store.find_serving()
    head = None if serving is None else store.load(serving)
    if head is not None and head.encoder != process.digest:
        console.print(f"head {serving} reads another encoder's vectors: compared with the word list", highlight=False)
        head = serving = None
    try:
        with console.status("encoding and fitting"):
            measured = train_head(examples, process.encode, process.digest, TrainingRules())
            texts, suite = [each.text for each in measured.examples], [each.text for each in measured.suite]
            if head is None:
                stopped, of_suite = list_word_hits(texts), list_word_hits(suite)
            else:
                stopped = find_stopped(head, texts, measured.languages, process.encode)
                of_suite = find_stopped(head, suite, (SUITE_LANGUAGE,) * len(suite), process.encode)
    finally:
        process.close()
    report = judge_head(measured, serving or "word list", stopped, of_suite, HeadLimits())
    store.keep(measured.head, report)
    _print_report(report)
    if report.promote:
        store.serve(report.version, who=name_decider(who), reason=report.sentence, now=datetime.now(UTC))


@screen.command(name="list")
def list_heads(application: Application = "assistant") -> None:
    """List the heads, the decision about each, and every change of the serving one."""
    store = _open_store(load_preference(application).name)
    serving = store.find_serving()
    table = Table("head", "serves", "decision")
    for version in store.list_versions():
        table.add_row(version, "yes" if version == serving else "", store.load_report(version).sentence)
    console.print(table)
    for change in store.list_changes():
        console.print(f"{change.at:%Y-%m-%d %H:%M} {change.version} {change.who}: {change.reason}", highlight=False)


@screen.command()
def serve(
    version: Annotated[str, typer.Argument(help="A head of `flywheel screen list`.")],
    reason: Reason,
    application: Application = "assistant",
    who: Who = None,
    yes: Yes = False,
) -> None:
    """Let this head serve from the next curated day on: back to an older one, or against the decision."""
    store = _open_store(load_preference(application).name)
    if version in store.list_versions():
        console.print(f"{version}: {store.load_report(version).sentence}", highlight=False)
    if not yes:
        console.print(f"would replace {store.find_serving() or 'the word list'}; add --yes to do it", highlight=False)
        return
    store.serve(version, who=name_decider(who), reason=reason, now=datetime.now(UTC))
    console.print(f"{version} serves; `flywheel stale` lists the days that another policy curated", highlight=False)


def _open_store(application: str) -> "HeadStore":
    from flywheel_assets.screening.heads.store import HeadStore

    return HeadStore(read_settings().resolve_home() / "screening" / application)


def _read_examples(file: Path, text_column: str, label_column: str) -> "Iterator[Example]":
    from flywheel_assets.screening.heads.training import Example

    with open(file, encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines) if file.suffix == ".csv" else map(json.loads, filter(str.strip, lines))
        for number, row in enumerate(rows, 1):
            label = str(row.get(label_column, "")).strip().lower()
            if not isinstance(row.get(text_column), str) or label not in _HARMFUL | _HARMLESS:
                raise SettingsError(
                    f"{file}, row {number}: a text in column {text_column!r} is needed, and in {label_column!r} one of "
                    f"{', '.join(sorted(_HARMFUL | _HARMLESS))}; it has the columns {', '.join(map(str, row))}. "
                    "Name the columns with --text-column and --label-column"
                )
            yield Example(row[text_column], label in _HARMFUL, str(row.get("language") or ""))


def _print_report(report: "HeadReport") -> None:
    table = Table("", "texts", report.version, report.before)
    for each in report.figures:
        table.add_row(
            f"{each.language} harmful", f"{each.harmful:,}", f"{each.recall:.1%}", f"{each.recall_before:.1%}"
        )
        shares = f"{each.false_positives:.1%}", f"{each.false_positives_before:.1%}"
        table.add_row(f"{each.language} harmless", f"{each.harmless:,}", *shares)
    for name, (stopped, before, is_harmful) in report.suite.items():
        table.add_row(
            f"suite: {name} ({'harmful' if is_harmful else 'harmless'})", "", f"{stopped:.1%}", f"{before:.1%}"
        )
    console.print(table)
    console.print(f"{report.version}: {report.sentence}", highlight=False)
