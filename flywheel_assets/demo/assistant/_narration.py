"""Prints the demo on the terminal: one table a chapter, plain sentences around it."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flywheel_assets.demo.assistant.base_model import BaseModel
from flywheel_assets.demo.assistant.report import Accuracy, TurnReport
from flywheel_assets.demo.assistant.world import Measurement

if TYPE_CHECKING:
    from flywheel_assets.demo.assistant.report import ChapterReport, DemoReport


def print_base(console: Console, base: BaseModel) -> None:
    """Print the origin of the base model."""
    source = "taken from the cache" if base.was_cached else f"pretrained in {base.seconds:.0f} s"
    console.print(
        f"base model: a Llama of {base.parameters:,} parameters, {source}; it learnt the internal calls wrongly"
    )


def print_measurement(console: Console, measurement: Measurement, accuracy: Accuracy) -> None:
    """Print the measurement and the base model's result."""
    console.print(
        f"measured on {len(measurement.unseen_prompts)} internal prompts with names that never occur in traffic, "
        f"{len(measurement.unseen_phrasings)} in a phrasing per idiom that no adapter is trained on, and "
        f"{len(measurement.neutral)} neutral ones; the base lacks the right call in "
        f"{_format_percent(accuracy.lacking_right_call)} of the first",
        highlight=False,
    )


def print_chapter(console: Console, chapter: "ChapterReport") -> None:
    """Print one chapter's table and its decision."""
    days, turn = chapter.days, chapter.turn
    requests = sum(day.requests for day in days)
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("served by", f"{chapter.model_version}, {requests:,} outputs in {len(days)} days")
    facts.add_row("right call missing", _format_by_day([day.lacking_right_call / max(1, day.internal) for day in days]))
    facts.add_row("users edited", _format_by_day([day.edited / max(1, day.requests) for day in days]))
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(chapter.counts.dropped.items()))
    facts.add_row(
        "feedback", f"{chapter.counts.joined} joined, {chapter.counts.kept} gold; dropped: {dropped or 'none'}"
    )
    if isinstance(turn, TurnReport):
        facts.add_row(
            "trained on",
            f"{turn.train_pairs} pairs and {turn.accepted} accepted outputs; held out {turn.holdout_pairs} pairs "
            f"and {turn.regression_rows} accepted outputs ({turn.version})",
        )
    console.print(facts)
    if not isinstance(turn, TurnReport):
        console.print(f"the wheel rests: {turn.reason}", highlight=False)
        return
    console.print(_build_accuracy_table(chapter, turn))
    console.print(turn.preference_sentence, markup=False, highlight=False)
    style = "bold green" if turn.promoted else "bold yellow"
    console.print(f"{'promoted' if turn.promoted else 'not promoted'} in {turn.seconds:.0f} s: ", style=style, end="")
    console.print(turn.sentence, markup=False, highlight=False)


def print_summary(console: Console, report: "DemoReport", out_dir: Path) -> None:
    """Print the fate of the vandals' edits, the time taken, and the files' paths."""
    console.rule("[bold]the end")
    console.print(report.vandals.sentence, highlight=False)
    promoted = sum(turn.promoted for turn in report.turns)
    console.print(
        f"{len(report.turns)} turns of the wheel, {promoted} promotions, {report.seconds:.0f} s on "
        f"{report.hardware['cores']} cores. {out_dir / 'demo.png'} and {out_dir / 'report.json'} hold the rest.",
        highlight=False,
    )


def _build_accuracy_table(chapter: "ChapterReport", turn: TurnReport) -> Table:
    before, after = chapter.accuracy, chapter.accuracy_after
    table = Table(title_justify="left")
    table.add_column("never seen in traffic")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    rows = (
        ("internal prompts: right call missing", before.lacking_right_call, after.lacking_right_call),
        ("internal prompts: exactly right", before.unseen_prompts_exact, after.unseen_prompts_exact),
        ("unseen phrasings: exactly right", before.unseen_phrasings_exact, after.unseen_phrasings_exact),
        ("neutral prompts: exactly right", before.neutral_exact, after.neutral_exact),
    )
    for label, old, new in rows:
        table.add_row(label, _format_percent(old), _format_percent(new))
    table.add_section()
    table.add_row("held-out users' edits: NED of the base", f"{turn.ned_base:.3f}", "")
    table.add_row("NED of what served → of the challenger", f"{turn.ned_champion:.3f}", f"{turn.ned_challenger:.3f}")
    served, asked = turn.wrong_served, turn.wrong_answers.get("challenger")
    if served is not None and asked is not None and served.mean is not None and asked.mean is not None:
        label = "sampled answers that say what was corrected"
        table.add_row(label, _format_percent(served.mean), _format_percent(asked.mean))
    return table


def _format_percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _format_by_day(shares: list[float]) -> str:
    return " ".join(f"{100 * share:.0f}" for share in shares) + " % by day"
