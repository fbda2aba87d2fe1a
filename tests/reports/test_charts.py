"""Charts and the pieces of a page."""

import io
import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from lavis_evlgen.reports.charts import (
    BOTTOM,
    CURVE_COLOURS,
    GROUND,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Curve,
    averaged,
    line_chart,
    log_ticks,
    round_ticks,
    standalone,
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


def test_a_logarithmic_axis_gives_equal_ratios_equal_lengths():
    curve = Curve("a", [(0, 9), (10, 4), (100, 2), (1000, 0)], band=[(0, 0, 90), (10, 3, 4), (100, 1, 2), (1000, 0, 0)])
    svg = line_chart([curve], "seconds", "loss", log_x=True)
    root = ElementTree.fromstring(svg)
    middle = (LEFT + WIDTH - RIGHT) / 2
    # the point at zero has no place
    assert polylines(svg) == [[(LEFT, TOP), (middle, 144.0), (WIDTH - RIGHT, HEIGHT - BOTTOM)]]
    labels = [text.text for text in root.iter("text") if text.get("text-anchor") == "middle"]
    assert labels[:-2] == ["10", "20", "50", "100", "200", "500", "1000"]
    band = next(root.iter("polygon")).get("points").split()
    assert len(band) == 6 and band[0] == f"{LEFT}.0,{TOP}.0" and band[1].startswith(f"{middle:.1f},")
    assert line_chart([Curve("none right of zero", [(0, 1)])], "x", "y", log_x=True) == ""


@pytest.mark.parametrize(
    ("smallest", "largest", "ticks"),
    [
        (14, 400, [10, 20, 50, 100, 200, 500]),
        (10, 20, [10, 20]),
        (50, 50, [50, 100]),
        (0.0003, 0.003, [0.0002, 0.0005, 0.001, 0.002, 0.005]),
        (3, 30000, [1, 10, 100, 1000, 10000, 100000]),
    ],
)
def test_logarithmic_ticks_are_round_and_enclose_all(smallest, largest, ticks):
    assert log_ticks(smallest, largest) == ticks


def test_bands_marks_and_curves_of_one_look():
    curves = [
        Curve("mean", [(1, 2), (2, 1)], band=[(1, 1, 4), (2, 0.5, 1)], look=5),
        Curve("", [(1, 2)], faint=True, look=5),
        Curve("dots", [(1, 1), (2, 1)], marked=True),
    ]
    svg = line_chart(curves, "x", "y")
    root = ElementTree.fromstring(svg)
    assert [text.text for text in root.iter("text")][:5] == ["0", "1", "2", "3", "4"]  # the band's upper edge counts
    assert [text.text for text in root.iter("text")][-2:] == ["mean", "dots"]
    assert len(list(root.iter("circle"))) == 3  # two marks, and the point that is alone
    colours = [line.get("style") for line in root.iter("polyline")]
    assert colours[0] == colours[1] != colours[2]
    assert [line.get("stroke-dasharray") for line in root.iter("polyline")] == ["7 4", "7 4", None]
    upper, lower = (point.split(",")[1] for point in next(root.iter("polygon")).get("points").split()[::3])
    assert (float(upper), float(lower)) == (TOP, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) / 4)


def test_sixteen_curves_look_different():
    svg = line_chart([Curve(str(number), [(0, 1), (1, 2)]) for number in range(16)], "x", "y")
    looks = [(line.get("style"), line.get("stroke-dasharray")) for line in ElementTree.fromstring(svg).iter("polyline")]
    assert len(set(looks)) == 16 and len({style for style, _ in looks}) == 8


def test_a_name_too_long_for_the_legend_is_cut():
    root = ElementTree.fromstring(line_chart([Curve("n" * 80, [(0, 1)])], "x", "y"))
    assert [text.text for text in root.iter("text")][-1] == "n" * 59 + "…"


def lab(colour: str) -> tuple[float, float, float]:
    """CIELAB of an sRGB colour under D65."""
    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def contrast(one: str, other: str) -> float:
    """By WCAG 2."""
    weights = (0.2126, 0.7152, 0.0722)
    dark, light = sorted(
        sum(weight * linear(int(each[at : at + 2], 16) / 255) for weight, at in zip(weights, (1, 3, 5), strict=True))
        for each in (one, other)
    )
    return (light + 0.05) / (dark + 0.05)


def page_colours() -> list[dict[str, str]]:
    """The page's own colours by name, light then dark."""
    light, dark = page("", []).split("prefers-color-scheme: dark")
    return [dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in (light, dark)]


def test_colours_can_be_told_apart_on_light_and_dark_pages():
    schemes = page_colours()
    assert tuple(schemes[0][f"curve-{number}"] for number in range(8)) == CURVE_COLOURS
    for scheme, card in zip(schemes, ("#ffffff", schemes[1]["card"]), strict=True):
        curves = [scheme[f"curve-{number}"] for number in range(8)]
        assert min(contrast(colour, card) for colour in curves) >= 3
        assert min(math.dist(lab(one), lab(other)) for one, other in itertools.combinations(curves, 2)) >= 20


def test_a_chart_of_its_own_needs_nothing_around_it():
    svg = standalone(line_chart([Curve("a & b", [(0, 4), (100, 0)], marked=True)], "steps", "loss"))
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("520", "300", "0 0 520 300")
    assert not re.search("var\\(|currentColor|inherit", svg) and f"stroke:{CURVE_COLOURS[0]}" in svg
    with pytest.raises(ValueError, match="no chart"):
        standalone("")


def test_a_chart_of_its_own_is_drawn_by_a_renderer_that_knows_no_page():
    resvg_py = pytest.importorskip("resvg_py")
    curves = [Curve("a", [(0, 1), (100, 1)]), Curve("b", [(0, 2), (100, 2)])]
    svg = standalone(line_chart(curves, "steps", "loss"))
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    drawn = Image.open(io.BytesIO(png)).convert("RGB")
    colours = {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in set(drawn.getdata())}
    assert drawn.size == (520, 300) and {GROUND, *CURVE_COLOURS[:2]} <= colours
    assert drawn.getpixel((260, 144)) == (0x2F, 0x6F, 0xED)  # the first curve at half height
