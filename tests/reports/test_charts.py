"""Charts and the pieces of a page."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from lavis_evlgen.reports.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Curve,
    averaged,
    line_chart,
    round_ticks,
)
from lavis_evlgen.reports.page import cards, code, figure, page, section, table


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)"', svg)
    ]


def test_points_stand_where_the_axes_say():
    svg = line_chart([Curve("a", [(0, 4), (100, 0)]), Curve("b", [(50, 2)])], "steps", "loss")
    ElementTree.fromstring(svg)  # well-formed
    assert polylines(svg) == [[(LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM)], [((LEFT + WIDTH - RIGHT) / 2, 144.0)]]
    assert re.findall(r"<text[^>]*>([^<]+)<", svg) == [
        *("0", "1", "2", "3", "4"), *("0", "20", "40", "60", "80", "100"), "steps", "loss", "a", "b"
    ]  # fmt: skip


def test_names_are_escaped_and_empty_curves_left_out():
    svg = line_chart([Curve("nothing", []), Curve("a < b", [(1, 1)])], "x & y", "z")
    ElementTree.fromstring(svg)
    assert "nothing" not in svg and "a &lt; b" in svg
    assert line_chart([Curve("nothing", [])], "x", "y") == ""


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [
        (600, [0, 200, 400, 600]),
        (4.7, [0, 1, 2, 3, 4, 5]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, [0, 1]),
    ],
)
def test_ticks_are_round_and_reach_the_largest(largest, ticks):
    assert round_ticks(largest) == ticks


def test_averages_keep_the_mean():
    points = [(step, float(step % 10)) for step in range(1, 401)]
    few = averaged(points, most=80)
    assert len(few) == 80
    assert few[0] == (3.0, 3.0)
    assert sum(y for _, y in few) / 80 == pytest.approx(4.5)
    assert averaged(points[:5], most=80) == points[:5] and averaged([]) == []


def test_page_escapes_what_comes_from_data():
    html = page("<run>", [cards([("<1>", "a & b")]), section("t <", "p >", code("<x>")), table(["<h>"], [["<c>"]])])
    for text in ("&lt;run&gt;", "&lt;1&gt;", "a &amp; b", "t &lt;", "p &gt;", "&lt;x&gt;", "&lt;h&gt;", "&lt;c&gt;"):
        assert text in html
    assert not re.search(r"<(run|1|x|h|c)>", html)
    assert section("empty", "text", "", "") == ""


def test_figures_carry_their_picture():
    html = figure(Image.new("RGBA", (4, 4)), "<b>said</b>", 'a "b"')
    assert 'src="data:image/jpeg;base64,' in html and "<b>said</b>" in html and "a &quot;b&quot;" in html


def test_a_long_legend_goes_on_above_and_stays_within_the_picture():
    names = ["contextualizer", "time embedding", "centered time embedding", "mean", "concat"]
    svg = line_chart([Curve(name, [(0, 1), (10, 2)]) for name in names], "steps", "loss")
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == f"0 -18 {WIDTH} {HEIGHT + 18}"
    assert line_chart([Curve("mean", [(0, 1)])], "x", "y").startswith(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"')
    places = {text.text: (float(text.get("x")), float(text.get("y"))) for text in root if text.text in names}
    assert [places[name][1] for name in names] == [0, 0, 0, 18, 18]
    assert all(x + 6.7 * len(name) <= WIDTH for name, (x, _) in places.items())
    assert len(set(re.findall(r"--curve-\d,(#\w+)", svg))) == 5
