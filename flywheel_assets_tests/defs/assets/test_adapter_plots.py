"""The page of a text application's evaluation: a figure first, then champion and challenger side by side."""

import msgspec

from flywheel_assets.defs.assets._adapter_plots import build_comparison_table, draw_small_plot
from flywheel_assets.defs.presentation import INLINE_CHARACTERS
from flywheel_assets.evaluation.requests import EvaluationReport, Scored, Scores, Stratum
from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.text_limits import Evidence


def make_scores(ned: float, **more: float) -> Scores:
    measured = {
        "zero_edit": 1 - ned,
        "missing_end": 0.0,
        "log_p_chosen": -1.0,
        "delta_log_p_chosen": 0.0,
        "chosen_fallen": 0.0,
        "length_ratio": 1.0,
        "repetition": 0.0,
        "reward_accuracy": None,
    }
    return msgspec.convert({"rows": 10, "subjects": 5, "ned": ned, **measured, **more}, Scores)


def make_report(scores: dict[Scored, dict[Stratum, Scores]], incumbent: Scored) -> EvaluationReport:
    gain = Interval(mean=0.25, low=0.1, high=0.5, rows=10, clusters=5)
    evidence = Evidence(
        incumbent=incumbent.value,
        ned_gain=gain,
        missing_end=0.0,
        incumbent_missing_end=0.0,
        challenger_ned=0.1,
        sft_ned=None,
    )
    names = ("request_sha256", "manifest_sha256", "base_weights_sha256", "challenger_sha256", "sft_sha256")
    return EvaluationReport(
        **dict.fromkeys((*names, "rows_sha256"), "0" * 64),
        champion_version="v1",
        champion_sha256=None,
        rows_left_out=0,
        scores=scores,
        evidence=evidence,
        seconds=1.0,
        device="cpu",
    )


def read_rows(report: EvaluationReport) -> list[dict[str, str]]:
    return [{name: str(cell) for name, cell in row.data.items()} for row in build_comparison_table(report).records]


SERVES = {Stratum.PRIMARY: make_scores(0.4, wrong_answer_rate=0.5), Stratum.REGRESSION: make_scores(0.0)}
LEARNT = {Stratum.PRIMARY: make_scores(0.1, wrong_answer_rate=0.2), Stratum.REGRESSION: make_scores(0.1)}


def test_a_lower_distance_is_better_and_a_loss_shows_its_sign() -> None:
    rows = read_rows(make_report({Scored.CHAMPION: SERVES, Scored.CHALLENGER: LEARNT}, Scored.CHAMPION))
    first, *others = rows
    assert first == {
        "measure": "NED, primary",
        "champion": "0.400",
        "challenger": "0.100",
        "Δ": "-0.250",
        "verdict": "better",
        "95 % interval, by person": "[-0.500, -0.100]",
    }
    shown = {row["measure"]: row["Δ"] for row in others}
    assert shown["wrong answers, sampled"] == "-0.300"
    assert shown["NED, regression"] == "+0.100"
    assert "NED, older" not in shown


def test_before_the_first_promotion_the_base_is_the_one_to_beat() -> None:
    (first, *_) = read_rows(make_report({Scored.BASE: SERVES, Scored.CHALLENGER: LEARNT}, Scored.BASE))
    assert first["base"] == "0.400"


def test_the_figure_of_all_models_needs_no_click() -> None:
    shown_models = [model for model in Scored if model is not Scored.DEPLOYED]
    report = make_report(dict.fromkeys(shown_models, SERVES), Scored.CHAMPION)
    shown = str(draw_small_plot(report).md_str)
    assert len(shown) < INLINE_CHARACTERS
    assert shown.startswith("![plot](data:image/svg+xml;base64,")
    assert shown.endswith("bars: base, sft, champion, anchor, challenger")
