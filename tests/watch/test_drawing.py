"""Curves in characters, against drawings by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.watch.drawing import Canvas, sparkline
from lavis_evlgen.watch.words import number, span


def rows(canvas: Canvas) -> list[str]:
    return ["".join(character for character, _ in row) for row in canvas.cells]


def test_sparkline():
    assert sparkline([(1, 0.0), (2, 7.0), (3, 3.0)], 8) == "▁█▄"
    assert sparkline([(1, 0.0), (2, 7.0)], 8, ascii_only=True) == "_#"
    assert sparkline([(1, 5.0), (9, 5.0)], 8) == "▁▁" and sparkline([], 8) == "" and sparkline([(4, 1.0)], 8) == "▁"
    assert sparkline([(1, 1.0), (2, 1.5), (3, 3.0)], 8) == "▁▃█"
    assert sparkline([(1, 1.0), (2, 10.0), (3, 100.0)], 8) == "▁▅█"  # logarithms
    # means of the halves of the steps 0 to 9, not of the points: 0, 0, 0 | 7
    assert sparkline([(0, 0.0), (1, 0.0), (2, 0.0), (9, 7.0)], 2) == "▁█"


def test_a_falling_line_of_dots():
    canvas = Canvas([[(0, 7.0), (3, 0.0)]], width=2, height=2)
    assert rows(canvas) == ["⢣⠀", "⠀⢣"]
    assert canvas.ticks == {0: 7.0, 1: 0.0} and canvas.x_range == (0, 3)
    assert rows(Canvas([[(0, 7.0), (3, 0.0)]], 2, 2, ascii_only=True)) == ["* ", " *"]


def test_a_cell_has_the_colour_of_the_last_curve_through_it():
    canvas = Canvas([[(0, 1.0), (10, 1.0)], [(10, 1.0), (10, 2.0)]], width=3, height=1)
    assert [owner for _, owner in canvas.cells[0]] == [0, 0, 1]


def test_the_axis_of_large_ranges_is_logarithmic():
    assert Canvas([[(0, 1.0), (1, 100.0)]], 4, 3).ticks == pytest.approx({0: 100.0, 1: 10.0, 2: 1.0})
    assert Canvas([[(0, 1.0), (1, 3.0)]], 4, 3).ticks == pytest.approx({0: 3.0, 1: 2.0, 2: 1.0})
    assert Canvas([[(0, -1.0), (1, 99.0)]], 4, 3).ticks == pytest.approx({0: 99.0, 1: 49.0, 2: -1.0})


def test_one_point_and_a_level_line_stand_in_the_middle():
    assert rows(Canvas([[(5, 3.0)]], 2, 3)) == ["⠀⠀", "⠄⠀", "⠀⠀"]
    assert Canvas([[(5, 3.0)]], 2, 3).ticks == {0: 3.0, 1: 3.0, 2: 3.0}


points = st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6)), min_size=1, max_size=30).map(sorted)


@settings(max_examples=60, deadline=None)
@given(st.lists(points, min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 9))
def test_any_curves_fit_into_the_chart(curves, width, height):
    canvas = Canvas(curves, width, height)
    assert [len(row) for row in canvas.cells] == [width] * height
    assert any(owner is not None for row in canvas.cells for _, owner in row)
    assert len(sparkline(curves[0], width)) <= width


def test_words():
    assert [number(x) for x in (None, 0.0, 3, 12000, 0.25, 1.5, 12.345, 123.45, 1234.5)] == [
        *("–", "0", "3", "12,000", "0.2500", "1.500", "12.35", "123.5", "1,234"),
    ]
    assert [number(x) for x in (-0.5, 1e-5, 2.5e7, 0.00123)] == ["-0.5000", "1.00e-05", "2.50e+07", "0.001230"]
    assert [span(x) for x in (None, 0.4, 59, 60, 3599, 3600, 86399, 90000, 8e5)] == [
        *("–", "0 s", "59 s", "1 min", "59 min", "1 h 0 min", "23 h 59 min", "1 d 1 h", "9 d 6 h"),
    ]
