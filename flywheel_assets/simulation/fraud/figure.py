"""The fraud demo's picture: both models week by week, the new fraud's first day, and every promotion."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from flywheel_assets.simulation.fraud.measuring import Week

# Okabe and Ito's palette, told apart with every common form of colour blindness; markers differ as well.
_VERMILLION, _BLUE, _GREY = "#D55E00", "#0072B2", "#555555"
_SIZE_INCHES = (10.0, 7.0)
_DOTS_PER_INCH = 110


def draw(weeks: Sequence[Week], path: Path) -> None:
    """Write the PNG; a vertical line marks every week in which another model serves than the week before.

    Args:
        weeks: in order.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    x = range(len(weeks))
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=_SIZE_INCHES, sharex=True, layout="constrained")
    top.set_title("All fraud: average precision on the week's payments", loc="left")
    bottom.set_title("The new fraud alone", loc="left")
    for axes, alone in ((top, False), (bottom, True)):
        for label, colour, marker, of_static in (
            ("static model", _VERMILLION, "o", True),
            ("the flywheel's deployed model", _BLUE, "s", False),
        ):
            scored = [week.scores.static if of_static else week.scores.live for week in weeks]
            values = [one.ap_emerging if alone else one.ap for one in scored]
            shown = [float("nan") if value is None else value for value in values]
            axes.plot(x, shown, color=colour, marker=marker, label=label, zorder=2 if of_static else 3)
        axes.set_ylim(0, 1.03)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    first_emerging = next((number for number, week in enumerate(weeks) if week.scores.emerging), None)
    marks = [
        (number, f"{later.model_versions[0]}\npromoted")
        for number, (earlier, later) in enumerate(pairwise(weeks), 1)
        if later.model_versions[0] != earlier.model_versions[-1]
    ]
    if first_emerging is not None:
        marks.append((first_emerging, "the new fraud\nappears"))
    for number, text in marks:
        for axes in (top, bottom):
            axes.axvline(number - 0.5, color=_GREY, linestyle="-.", linewidth=1.2)
        top.annotate(text, (number - 0.5, 1.16), ha="center", color=_GREY, fontsize=8, annotation_clip=False)
    # Under the picture, where it can hide no point.
    bottom.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    bottom.set_xticks(list(x), [f"{week.first_day:%d %b}" for week in weeks], rotation=60, fontsize=8)
    top.tick_params(axis="x", length=0, labelbottom=False)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)
