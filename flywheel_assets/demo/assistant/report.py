"""Defines the demo's report: each week's results, and the whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from flywheel_assets.demo.assistant.base_model import Assistant, BaseModel
from flywheel_assets.demo.assistant.play import DayStats
from flywheel_assets.demo.assistant.rollback import RollbackReport
from flywheel_assets.demo.assistant.world import Measurement, Request
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.measures.texts import Interval
from flywheel_assets.records import make_pair_id


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares (0 to 1) of a measurement's requests; *exact* is the right answer character by character."""

    model_version: str
    requests: int
    lacking_right_call: float
    """Of the internal prompts in known phrasings."""
    unseen_prompts_exact: float
    unseen_phrasings_exact: float
    neutral_exact: float


def measure(assistant: Assistant, measurement: Measurement) -> Accuracy:
    """Let the model answer every request of the measurement."""
    asked = [*measurement.unseen_prompts, *measurement.unseen_phrasings, *measurement.neutral]
    outputs = iter(assistant.answer([request.prompt for request in asked]))
    prompts, phrasings, neutral = (
        [(request, next(outputs)) for request in requests]
        for requests in (measurement.unseen_prompts, measurement.unseen_phrasings, measurement.neutral)
    )
    return Accuracy(
        model_version=assistant.model_version,
        requests=len(asked),
        lacking_right_call=sum(request.lacks_right_call(output) for request, output in prompts) / len(prompts),
        unseen_prompts_exact=_compute_exact_share(prompts),
        unseen_phrasings_exact=_compute_exact_share(phrasings),
        neutral_exact=_compute_exact_share(neutral),
    )


def _compute_exact_share(answered: Sequence[tuple[Request, str]]) -> float:
    return sum(request.is_exact(output) for request, output in answered) / len(answered)


@dataclass(frozen=True, kw_only=True)
class DayCounts:
    """Counts a range of days' rows into gold."""

    joined: int
    """Matched feedback events."""
    kept: int
    """Rows that became gold: preference pairs and accepted outputs."""
    dropped: Mapping[str, int]
    """Reason → rows; with `kept` they make up `joined`."""
    refused_edits: Mapping[str, str]
    """Prediction id → reason, of every edit that did not become gold."""


@dataclass(frozen=True, kw_only=True)
class TurnReport:
    """One gold version, from its export to the decision about its adapter."""

    version: str
    train_pairs: int
    accepted: int
    """Accepted outputs mixed into training."""
    holdout_pairs: int
    regression_rows: int
    reasons: Mapping[str, int]
    """Gold rows that resolution left out, by reason."""
    challenger_stage: str
    """sft | one_stage | preference: which stage's adapter asked to be promoted."""
    stage_reason: str
    """The trainer's sentence on that choice."""
    ned_base: float
    """Mean normalized edit distance on the primary held-out rows, like the next two; 0 = exactly the user's text."""
    ned_champion: float
    """Of the model that served before; on the first turn the base model."""
    ned_challenger: float
    ned_sft: float
    """Of the SFT adapter alone, which is trained on the same rows."""
    wrong_answers: Mapping[str, Interval]
    """Share of answers, sampled on primary held-out rows, that still say what people had corrected, by model: sft,
    challenger, and what served (champion, or base on the first turn)."""
    promoted: bool
    sentence: str
    seconds: float
    """Wall time from the trigger to the decision."""
    champion_adapter: Path | None
    """The adapter that serves after the decision; None: still the base model."""
    train_pair_ids: frozenset[str] = field(repr=False)

    @property
    def wrong_served(self) -> Interval | None:
        """Wrong answers of the model that served before."""
        return self.wrong_answers.get("champion", self.wrong_answers.get("base"))

    @property
    def preference_sentence(self) -> str:
        """Say what the preference part added to SFT alone on held-out people's edits, also where it added nothing."""
        if self.challenger_stage == "sft":
            return f"The preference part added nothing: the challenger is the SFT adapter. {self.stage_reason}"
        ned = f"NED {self.ned_challenger:.3f} against {self.ned_sft:.3f}"
        with_it, without = self.wrong_answers.get("challenger"), self.wrong_answers.get("sft")
        if with_it is None or without is None or None in (with_it.low, with_it.high, without.low, without.high):
            return f"The preference part against SFT alone: {ned}; no answers were sampled."
        shown = f"{_format_interval(with_it)} of sampled answers say what was corrected, {_format_interval(without)} of"
        apart = with_it.high < without.low or without.high < with_it.low  # type: ignore[operator]
        verdict = "the bounds do not overlap" if apart else "a difference that these few people cannot prove"
        return f"The preference part against SFT alone: {shown} SFT's ({verdict}); {ned}."


def _format_interval(rate: Interval) -> str:
    assert rate.mean is not None
    assert rate.low is not None
    assert rate.high is not None
    return f"{100 * rate.mean:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class VandalAccount:
    """Counts the vandals' edits by their fate; only the simulation knows the vandals."""

    edits: int
    caught: Mapping[str, int]
    """Reason → edits that never became gold."""
    in_gold: Mapping[str, int]
    """Kind of vandalism → edits that no check caught."""
    in_last_training: int
    """Of those in gold: pairs that the last version trained on; the others were held out or left out."""
    last_training_pairs: int

    @property
    def sentence(self) -> str:
        """The whole account in plain words."""
        if not self.edits:
            return "No edit was vandalism."
        caught = ", ".join(f"{count} as {reason}" for reason, count in _sort_by_count(self.caught)) or "none"
        slipped = sum(self.in_gold.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in _sort_by_count(self.in_gold)) or "none"
        return (
            f"Vandals made {self.edits} edits. The edit gate caught {self.edits - slipped} ({caught}); {slipped} "
            f"became gold ({kinds}), and {self.in_last_training} of them were among the "
            f"{self.last_training_pairs} pairs of the last training."
        )


def account_for_vandals(
    application: str, days: Sequence[DayStats], refused: Mapping[str, str], last_turn: TurnReport | None
) -> VandalAccount:
    """Follow every vandal's edit to its end."""
    culprits = {prediction: kind for day in days for prediction, kind in day.vandalism.items()}
    in_gold = {prediction: kind for prediction, kind in culprits.items() if prediction not in refused}
    trained = last_turn.train_pair_ids if last_turn else frozenset()
    return VandalAccount(
        edits=len(culprits),
        caught=dict(Counter(refused[prediction] for prediction in culprits if prediction in refused)),
        in_gold=dict(Counter(str(kind) for kind in in_gold.values())),
        in_last_training=sum(make_pair_id(application, prediction) in trained for prediction in in_gold),
        last_training_pairs=last_turn.train_pairs if last_turn else 0,
    )


def _sort_by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


@dataclass(frozen=True, kw_only=True)
class ChapterReport:
    """One chapter: the serving model, its outputs, its gold rows, and the turn of the wheel, if any."""

    title: str
    model_version: str
    days: tuple[DayStats, ...]
    counts: DayCounts
    accuracy: Accuracy
    """Of the model that served."""
    turn: TurnReport | Skipped
    accuracy_after: Accuracy
    """Of the model that serves from now on."""
    seconds: Mapping[str, float]
    """Wall time by stage: play, materialize, turn, measure."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Everything that the demo showed."""

    seed: int
    first_day: date
    base: BaseModel
    chapters: tuple[ChapterReport, ...]
    vandals: VandalAccount
    rollback: RollbackReport | None = None
    """The epilogue, where it was played."""
    seconds: float
    """Wall time of the whole story, pretraining included."""
    hardware: Mapping[str, Any]

    @property
    def turns(self) -> tuple[TurnReport, ...]:
        """Every turn of the wheel."""
        return tuple(chapter.turn for chapter in self.chapters if isinstance(chapter.turn, TurnReport))


# Okabe and Ito's palette, distinct with every common form of colour blindness; markers differ as well.
_VERMILLION, _BLUE, _GREEN, _PURPLE, _GREY = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#555555"


_SIZE_INCHES = (10.0, 7.0)


_DOTS_PER_INCH = 110


def draw(days: Sequence[DayStats], accuracy: Mapping[str, Accuracy], path: Path) -> None:
    """Write the PNG.

    Args:
        days: in order; a vertical line marks every day on which another version answers than the day before.
        accuracy: by model version, of every version that answered on one of the days.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    x = range(len(days))
    measured = [accuracy[day.model_version] for day in days]
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=_SIZE_INCHES, sharex=True, layout="constrained")
    top.set_title("What users met", loc="left")
    top.plot(
        x,
        [day.lacking_right_call / max(day.internal, 1) for day in days],
        color=_VERMILLION,
        marker="o",
        label="internal prompts whose output lacks the right call",
    )
    top.plot(x, [day.edited / max(day.requests, 1) for day in days], color=_BLUE, marker="s", label="outputs edited")
    top.plot(
        x,
        [day.neutral_exact / max(day.neutral, 1) for day in days],
        color=_GREEN,
        marker="^",
        label="neutral prompts answered exactly",
    )
    bottom.set_title("Exact answers to prompts that never occurred in traffic", loc="left")
    bottom.step(x, [one.unseen_prompts_exact for one in measured], color=_BLUE, where="mid", label="new prompts")
    bottom.step(
        x,
        [one.unseen_phrasings_exact for one in measured],
        color=_PURPLE,
        where="mid",
        linestyle="--",
        label="phrasings that no adapter was trained on",
    )
    bottom.step(x, [one.neutral_exact for one in measured], color=_GREEN, where="mid", linestyle=":", label="neutral")
    for axes, legend_below in ((top, -0.03), (bottom, -0.22)):
        for position in range(1, len(days)):
            if days[position].model_version != days[position - 1].model_version:
                axes.axvline(position - 0.5, color=_GREY, linestyle="-.", linewidth=1.2)
        axes.set_ylim(-0.03, 1.08)
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        # Under its panel, where it can hide no point.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, legend_below), ncols=3, frameon=False)
    for position in range(1, len(days)):
        version = days[position].model_version
        if version != days[position - 1].model_version:
            top.annotate(
                f"{version} promoted", (position - 0.5, 1.105), ha="center", color=_GREY, annotation_clip=False
            )
    bottom.set_xticks(list(x), [f"{day.day:%d %b}" for day in days], rotation=60, fontsize=8)
    top.tick_params(axis="x", length=0, labelbottom=False)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)
