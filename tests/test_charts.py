"""Charts: markup that is well-formed, in range and of the page's own colours, from any numbers."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.charts import (
    HEIGHT,
    WIDTH,
    Line,
    bar,
    difference,
    line_chart,
    profile,
    reliability,
    smooth,
    thin,
    ticks,
    whisker,
)

# Neighbours on a busy machine make single examples slow; that is no failure.
unhurried = settings(deadline=None)
finite = st.floats(-1e6, 1e6, allow_nan=False)
shares = st.floats(0, 1)


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(tag))


@unhurried
@given(low=finite, span=st.floats(1e-3, 1e6), about=st.integers(2, 8))
def test_ticks_enclose_the_range_evenly_and_are_not_too_many(low: float, span: float, about: int) -> None:
    marks = ticks(low, low + span, about)
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= low + span - 1e-6 * step - 1e-9 * abs(low)
    assert len(marks) <= about + 3
    assert all(math.isclose(b - a, step, rel_tol=1e-6, abs_tol=1e-9) for a, b in itertools.pairwise(marks))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 480, [0, 100, 200, 300, 400, 500]), (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


@unhurried
@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 10) | st.just(math.nan)), max_size=40))
def test_a_line_chart_stays_inside_its_drawing_and_is_well_formed(points: list[tuple[float, float]]) -> None:
    top = max((y for _, y in points if math.isfinite(y)), default=1.0)
    line = Line("training", sorted(points), "a", dots=True)
    svg = line_chart([line], "Loss <over> steps & more", (0, top), lambda y: f"{y:g}")
    assert "nan" not in svg
    numbers = [float(n) for d in re.findall(r' d="([^"]+)"', svg) for n in re.findall(r"[\d.]+", d)]
    assert all(0 <= x <= WIDTH for x in numbers[::2])
    assert all(0 <= y <= HEIGHT for y in numbers[1::2])
    assert ElementTree.fromstring(svg).get("aria-label") == "Loss <over> steps & more"


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right() -> None:
    svg = line_chart([Line("loss", [(0, 2.0), (100, 0.5)], "a")], "Loss", (0, 2), lambda y: f"{y:g}")
    (path,) = elements(svg, "path")
    (x0, y0), (x1, y1) = [map(float, p.split()) for p in path.get("d", "").removeprefix("M").split("L")]
    assert x1 > x0
    assert y1 > y0, "SVG counts downwards: the lower loss lies lower"


def test_a_value_that_is_not_finite_breaks_the_line() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 1.0), (6, 1.5)]
    svg = line_chart([Line("loss", points, "a")], "Loss", (0, 2), lambda y: f"{y:g}")
    assert len(elements(svg, "path")) == 2
    assert len(elements(svg, "circle")) == 1, "a lonely point between two breaks is still seen"


def test_only_named_lines_are_in_the_legend() -> None:
    lines = [Line("", [(0, 1), (1, 1)], "faint"), Line("validation", [(0, 1), (1, 1)], "b")]
    words = [text.text for text in elements(line_chart(lines, "Loss", (0, 1), str), "text")]
    assert "validation" in words
    assert "" not in words


def test_colours_are_left_to_the_page() -> None:
    drawn = line_chart([Line("a", [(0, 1), (1, 2)], "a", dots=True)], "x", (0, 2), str)
    drawn += reliability([(0.5, 0.4, 10)], "x") + bar(0.5) + whisker(0.5, (0.4, 0.6), 0.2, "a")
    assert not re.search(r"fill=|stroke=|style=|#[0-9a-f]{3}|rgb", drawn)


@unhurried
@given(st.lists(st.tuples(shares, shares, st.integers(1, 10_000)), max_size=15))
def test_reliability_places_every_bin_inside_the_square(bins: list[tuple[float, float, int]]) -> None:
    discs = elements(reliability(bins, "x"), "circle")
    assert len(discs) == len(bins)
    for (confidence, accuracy, _), disc in zip(bins, discs, strict=True):
        assert float(disc.get("cx", "")) == pytest.approx(46 + 302 * confidence, abs=0.06)
        assert float(disc.get("cy", "")) == pytest.approx(34 + 302 * (1 - accuracy), abs=0.06)


def test_the_disc_of_more_videos_is_larger() -> None:
    few, many = elements(reliability([(0.2, 0.2, 5), (0.8, 0.8, 50)], "x"), "circle")
    assert float(many.get("r", "")) > float(few.get("r", ""))


@unhurried
@given(shares)
def test_a_bar_is_as_long_as_its_share(share: float) -> None:
    _, filled = elements(bar(share), "rect")
    assert float(filled.get("width", "")) == pytest.approx(100 * share, abs=0.051)


@pytest.mark.parametrize("share", [None, math.nan])
def test_a_share_that_is_not_defined_has_no_bar(share: float | None) -> None:
    assert len(elements(bar(share), "rect")) == 1


@unhurried
@given(st.tuples(shares, shares).map(sorted), shares)
def test_a_whisker_covers_its_interval(bounds: list[float], value: float) -> None:
    svg = whisker(value, (bounds[0], bounds[1]), 0.2, "b")
    _, span = elements(svg, "rect")
    assert float(span.get("x", "")) == pytest.approx(100 * bounds[0], abs=0.051)
    assert float(span.get("width", "")) >= 100 * (bounds[1] - bounds[0]) - 0.051


@unhurried
@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)).map(sorted))
def test_a_difference_lies_right_of_the_middle_where_it_is_a_gain_and_within_its_interval(values: list[float]) -> None:
    low, value, high = values
    svg = difference(value, (low, high), reach=1)
    mark, point = elements(svg, "line")
    assert float(mark.get("x1", "")) == 50
    assert float(point.get("x1", "")) == pytest.approx(50 + 50 * value, abs=0.051)
    _, span = elements(svg, "rect")
    start, width = float(span.get("x", "")), float(span.get("width", ""))
    assert start - 0.11 <= float(point.get("x1", "")) <= start + width + 0.11


def test_smoothing_keeps_a_straight_line_straight_and_does_not_lag() -> None:
    values = [float(n) for n in range(200)]
    smoothed = smooth(values)
    assert smoothed[5:-5] == pytest.approx(values[5:-5])
    assert len(smoothed) == len(values)


def test_smoothing_leaves_what_is_not_finite_where_it_is() -> None:
    smoothed = smooth([1.0] * 60 + [math.nan] + [1.0] * 60)
    assert math.isnan(smoothed[60])
    assert all(value == 1.0 for place, value in enumerate(smoothed) if place != 60)


@unhurried
@given(st.integers(1, 5000), st.integers(2, 700))
def test_thinning_keeps_the_ends_and_bounds_the_number(count: int, most: int) -> None:
    points = [(float(n), 0.0) for n in range(count)]
    kept = thin(points, most)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert len(kept) <= most + 1
    assert kept == sorted(set(kept))


def test_a_profile_is_as_high_as_its_shares_and_open_where_there_are_none() -> None:
    drawn = profile([(0.0, 0.25), (2.0, 1.0), (2.0, math.nan), (3.0, 0.5), (4.0, 0.5)], 4.0)
    areas = re.findall(r'class="area" d="([^"]+)"', drawn)
    assert areas == ["M0 10L0 7.5L50 0L50 10Z", "M75 10L75 5L100 5L100 10Z"]
    assert re.findall(r'class="profile" d="([^"]+)"', drawn) == ["M0 7.5L50 0", "M75 5L100 5"]


def test_a_lonely_point_of_a_profile_can_be_seen() -> None:
    assert 'd="M48 10L48 2L52 2L52 10Z"' in profile([(2.0, 0.8)], 4.0)


def test_the_axis_ends_with_the_last_step() -> None:
    svg = line_chart([Line("loss", [(10, 1.0), (312, 0.5)], "a", dots=True)], "Loss", (0, 1), str)
    last = elements(svg, "circle")[-1]
    assert float(last.get("cx", "")) == pytest.approx(WIDTH - 12)
    assert [text.text for text in elements(svg, "text") if text.text and text.text.isdigit()][-1] == "300"


def test_a_disc_bears_its_number_and_a_lonely_video_s_gap_is_thin() -> None:
    svg = reliability([(0.7, 0.0, 1), (0.9, 1.0, 36), (0.91, 1.0, 7)], "x")
    gaps = [float(line.get("stroke-width", "")) for line in elements(svg, "line") if line.get("class") == "gap"]
    assert gaps[0] < 1 < gaps[2] < gaps[1]
    words = [text.text for text in elements(svg, "text")]
    assert words[-2:] == ["36", "1"], "7 would stand on 36"
