"""Prints the fraud demo on the terminal: one table a chapter, plain sentences around it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flywheel_assets.backtest.report import describe_days, format_gain
from flywheel_assets.demo.fraud.bank import StaticModel
from flywheel_assets.demo.fraud.report import ClassifierTurn, Comparison, Week
from flywheel_assets.demo.fraud.world import FraudWorld

if TYPE_CHECKING:
    from flywheel_assets.demo.fraud._rivals import RivalsReport
    from flywheel_assets.demo.fraud.report import FraudChapterReport, FraudDemoReport


def print_world(console: Console, world: FraudWorld, static: StaticModel) -> None:
    """Print the number of payers and the origin of the static model."""
    new = world.emerging.name.lower().replace("_", " ")
    console.print(
        f"{world.cards:,} cards pay at {world.terminals:,} terminals. The static model was trained on "
        f"{static.payments:,} payments of five weeks, {static.positives:,} of them labelled as fraud; from "
        f"{world.emerges_on} on there is a fraud that it never saw ({new})",
        highlight=False,
    )


def print_chapter(console: Console, chapter: "FraudChapterReport", weeks: Sequence[Week]) -> None:
    """Print one chapter's facts, its weeks, and its decision."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row(
        "decided by",
        f"{chapter.model_version}, {chapter.scores.payments:,} payments in {len(weeks)} weeks: "
        f"{_format_counts(chapter.actions)}",
    )
    facts.add_row("the world said", _format_counts(chapter.labels))
    mined = chapter.mined
    facts.add_row("mined", f"{mined.rows:,} rows, {mined.kept:,} gold; not drawn: {_format_counts(mined.dropped)}")
    turn = chapter.turn
    if isinstance(turn, ClassifierTurn):
        facts.add_row(
            turn.version,
            f"trained on {turn.train_rows:,} rows, {turn.train_positives:,} of them fraud; tested on "
            f"{turn.test_rows:,} later rows, {turn.test_positives:,} fraud",
        )
        facts.add_row("because of", turn.reason)
    console.print(facts, highlight=False)
    console.print(_build_week_table(weeks))
    if not isinstance(turn, ClassifierTurn):
        console.print(f"the wheel rests: {turn.reason}", highlight=False)
        return
    style = "bold green" if turn.promoted else "bold yellow"
    console.print(f"{'promoted' if turn.promoted else 'not promoted'} in {turn.seconds:.0f} s: ", style=style, end="")
    console.print(turn.sentence, markup=False, highlight=False)


def print_summary(console: Console, report: "FraudDemoReport", out_dir: Path) -> None:
    """Print both models before and after the first promotion, the time taken, and the files' paths."""
    console.rule("[bold]the end")
    table = Table(title="average precision by the world's truth, all payments, blocked ones too", title_justify="left")
    for column in ("since the new fraud", "frauds", "new", "static", "deployed", "new: static", "new: deployed"):
        table.add_column(column, justify="left" if column.startswith("since") else "right")
    if report.before_promotion is not None:
        _add_comparison(table, "before the first promotion", report.before_promotion)
    if report.after_promotion is not None:
        _add_comparison(table, "after it", report.after_promotion)
    console.print(table)
    gained = report.gain_after_promotion
    if gained is None:
        console.print("Nothing was promoted: the static model decided to the end.")
    else:
        console.print(
            f"The deployed models' average precision was {_format_signed(gained.mean)} [{_format_signed(gained.low)}, "
            f"{_format_signed(gained.high)}] above the static model's on the same payments (95 %, clustered by card).",
            highlight=False,
        )
    promoted = sum(turn.promoted for turn in report.turns)
    console.print(
        f"{len(report.turns)} turns of the wheel, {promoted} promotions, {report.seconds:.0f} s on "
        f"{report.hardware['cores']} cores. {out_dir / 'demo-fraud.png'} and {out_dir / 'report.json'} hold the rest.",
        highlight=False,
    )


def print_rivals(console: Console, compared: "RivalsReport", out_dir: Path) -> None:
    """Print what simpler ways to retrain would have reached on the same stream."""
    report, later = compared.since_emergence, compared.since_promotion
    console.rule("[bold]the same stream, retrained in simpler ways")
    console.print(
        f"by the labels that have come, not by the world's truth: {describe_days(report)}. The flywheel's trigger was "
        "asked at the end of each chapter; the others retrain every week, and no promotion gate stops them",
        highlight=False,
    )
    table = Table()
    for name in ("strategy", "AP", "AP,\nlater", "by\nvalue", "prec.\n@k", "Σp/Σy", "rows", "fit s"):
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=name != "strategy")
    for each in report.strategies:
        table.add_row(
            each.name if each.promotions is None else f"{each.name}, {each.promotions} promoted",
            _format_number(each.average_precision),
            _format_number(None if later is None else later.find(each.name).average_precision),
            _format_number(each.average_precision_by_value),
            _format_number(each.precision_at_budget),
            _format_number(each.calibration_ratio, digits=2),
            f"{each.last_training_rows:,}" if each.fits else "–",
            f"{each.fit_seconds:.0f}",
        )
    console.print(table)
    gaps = [f"{format_gain(report.find('flywheel').over_weekly)} since the new fraud appeared"]
    if later is not None:
        gaps.append(f"{format_gain(later.find('flywheel').over_weekly)} later, from the first promotion on")
    console.print(f"the flywheel's AP against weekly training on all rows: {', '.join(gaps)}", highlight=False)
    console.print(
        f"@k: among the {report.cards_per_day} cards with the highest scores of a day; rows: of the last training. "
        f"{report.wall_seconds:.0f} s, {report.cpu_seconds:.0f} s of CPU. {out_dir / 'backtest.md'} has every week and "
        "decision. On your own history: `flywheel backtest -a fraud --from DAY --to DAY`",
        highlight=False,
    )


def _build_week_table(weeks: Sequence[Week]) -> Table:
    table = Table()
    for column in ("week of", "frauds", "new", "AP static", "AP deployed", "new: static", "new: deployed", "Σp/Σy"):
        table.add_column(column, justify="left" if column == "week of" else "right")
    for week in weeks:
        scores = week.scores
        table.add_row(
            f"{week.first_day:%d %b}",
            f"{scores.frauds}",
            f"{scores.emerging}",
            *(_format_number(one) for one in _list_scores(scores)),
            _format_number(scores.live.calibration, digits=2),
        )
    return table


def _add_comparison(table: Table, label: str, scores: Comparison) -> None:
    table.add_row(
        label, f"{scores.frauds:,}", f"{scores.emerging:,}", *(_format_number(one) for one in _list_scores(scores))
    )


def _list_scores(scores: Comparison) -> tuple[float | None, ...]:
    return scores.static.ap, scores.live.ap, scores.static.ap_emerging, scores.live.ap_emerging


def _format_number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _format_signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"
