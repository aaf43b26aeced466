"""Charts stay in their box, whatever the numbers are."""

from datetime import timedelta

import pytest

from flywheel_assets.wheel._accounts import Period
from flywheel_assets.wheel._charts import HEIGHT, WIDTH, draw_bars, draw_lines
from flywheel_assets.wheel._trends import ALL_MODELS, Point, Trend
from flywheel_assets_tests.wheel.homes import FIRST


def bar(number: int, kept: int, waiting: int = 0, refused: int = 0) -> Period:
    day = FIRST + timedelta(days=number)
    return Period(day, day, kept, waiting, refused)


def trend(*points: Point, is_share: bool = True) -> Trend:
    return Trend("In production", "Share", "changed", "more", "answers", points, is_share)


@pytest.mark.parametrize(("rows", "top"), [(1, 1), (3, 5), (10, 10), (11, 20), (99, 100), (1_234, 2_000)])
def test_bars_end_at_a_round_number(rows: int, top: int) -> None:
    bars = draw_bars([bar(0, rows)])
    assert bars is not None
    assert bars.top == top
    (shape,) = bars.shapes
    assert shape.height == pytest.approx(HEIGHT * rows / top, abs=0.01)


def test_stacked_rows_touch_and_stay_in_the_box() -> None:
    bars = draw_bars([bar(0, 5, 3, 2), bar(1, 0)])
    assert bars is not None
    kept, waiting, refused = bars.shapes
    assert kept.y + kept.height == pytest.approx(HEIGHT)
    assert waiting.y + waiting.height == pytest.approx(kept.y)
    assert refused.y == pytest.approx(0)
    assert all(each.x >= 0 and each.x + each.width <= WIDTH for each in bars.shapes)
    assert "5 rows in gold, 3 waiting, 2 not kept" in bars.label


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw_bars([]) is None
    assert draw_lines(trend(Point(FIRST, "base", 0, None, "")), [bar(0, 1)], None) is None
    flat = draw_lines(trend(Point(FIRST, "base", 9, 0.0, ""), is_share=False), [bar(0, 1)], None)
    assert flat is not None
    assert flat.lines[0].dots == ((500.0, HEIGHT),)


def test_a_line_breaks_where_a_model_did_not_serve_and_the_oldest_models_are_left_to_the_table() -> None:
    periods = [bar(number, 1) for number in range(4)]
    points = [Point(periods[at].first, "v1", 10, value, "") for at, value in ((0, 0.2), (1, 0.4), (3, 0.1))]
    many = [Point(periods[0].first, f"v{number}", 1, 0.1, "") for number in range(2, 9)]
    everything = Point(periods[0].first, ALL_MODELS, 20, 0.3, "")
    found = draw_lines(trend(everything, *points), periods, "v1")
    assert found is not None
    together, v1 = found.lines
    assert together.is_sum
    assert v1.is_champion
    assert (len(v1.runs), len(v1.dots), v1.last) == (1, 1, "10.0%")
    found = draw_lines(trend(everything, *points, *many), periods, None)
    assert found is not None
    assert [line.name for line in found.lines] == [ALL_MODELS, "v8", "v7", "v6", "v5"]
    assert found.more == 4
