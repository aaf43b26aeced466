"""The demo's picture: what happened day by day, and where a new adapter took over."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flywheel_assets.simulation.measuring import Accuracy
from flywheel_assets.simulation.play import DayStats

# Okabe and Ito's palette, told apart with every common form of colour blindness; markers differ as well.
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
