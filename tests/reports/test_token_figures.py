"""What token maps say in numbers, by hand and against the definitions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_evlgen.reports.tokens.figures import (
    adjusted_rand_index,
    agreement,
    map_figures,
    mean_figures,
    pieces,
    token_list,
)
from lavis_evlgen.reports.tokens.map import NO_TOKEN

IDS = np.array([
    [1, 1, 2, 3],
    [4, 1, 2, 2],
    [4, 4, 1, 5],
    [2, 9, 9, NO_TOKEN],
])  # fmt: skip
partitions = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12)


def test_pieces_hang_together_by_sides_and_not_by_corners():
    assert pieces(IDS) == {1: 2, 2: 2, 3: 1, 4: 1, 5: 1, 9: 1}
    assert pieces(np.array([[0, 1], [1, 0]])) == {0: 2, 1: 2}
    assert pieces(np.full((16, 16), 3)) == {3: 1}


def test_figures_of_a_map_by_hand():
    assert map_figures([IDS], num_tokens=8) == {
        "tokens": 8,
        "largest": 4,  # 1 and 2 have four patches, 4 three, 9 two, 3 and 5 one
        "median": 2.5,
        "single_patch": 2,
        "without_patch": 2,
        "several_patches": 4,
        "connected": 2,  # 4 and 9
        "patches_left_out": 1,
    }


def test_frames_with_tokens_of_their_own_are_counted_together():
    found = map_figures([IDS, np.zeros((4, 4), dtype=int)], num_tokens=8)
    assert {key: found[key] for key in ("tokens", "largest", "without_patch", "connected")} == {
        "tokens": 16,
        "largest": 16,
        "without_patch": 9,
        "connected": 3,
    }
    tokens = token_list([IDS, np.zeros((4, 4), dtype=int)])
    assert tokens[0] == {"map": 0, "token": 1, "patches": 4, "pieces": 2}
    assert [(each["map"], each["token"]) for each in tokens] == [(0, n) for n in (1, 2, 4, 9, 3, 5)] + [(1, 0)]


def test_a_map_without_any_token_has_figures():
    found = map_figures([np.full((2, 2), NO_TOKEN)], num_tokens=1)
    assert (found["largest"], found["median"], found["without_patch"], found["patches_left_out"]) == (0, 0.0, 1, 4)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 1, 1], [5, 5, 3, 3], 1.0),
        ([0, 0, 1, 2], [0, 0, 1, 1], 4 / 7),  # one pair of one and two; chance 1/3, most 3/2
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
        ([0, 1, 2, 3], [3, 2, 1, 0], 1.0),
        ([1, 1, 1, 1], [0, 0, 0, 0], 1.0),
    ],
)
def test_adjusted_rand_index_of_known_cases(first, second, expected):
    assert adjusted_rand_index(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-12)


@given(partitions)
def test_adjusted_rand_index_counts_pairs(things):
    first, second = (np.array([thing[side] for thing in things]) for side in (0, 1))
    pairs = list(combinations(range(len(things)), 2))
    in_first = {pair for pair in pairs if first[pair[0]] == first[pair[1]]}
    in_second = {pair for pair in pairs if second[pair[0]] == second[pair[1]]}
    chance = len(in_first) * len(in_second) / len(pairs)
    most = (len(in_first) + len(in_second)) / 2
    expected = 1.0 if most == chance else (len(in_first & in_second) - chance) / (most - chance)
    assert adjusted_rand_index(first, second) == pytest.approx(expected, abs=1e-12)
    assert adjusted_rand_index(second, first) == pytest.approx(expected, abs=1e-12)
    assert adjusted_rand_index(7 - first, second) == pytest.approx(expected, abs=1e-12), "names of parts do not count"


def test_chance_gives_zero_on_average():
    generator = np.random.default_rng(0)
    found = [adjusted_rand_index(*generator.integers(0, 5, (2, 8, 8))) for _ in range(200)]
    assert abs(np.mean(found)) < 0.01 < np.std(found)


def test_means_of_several_pictures():
    def figures(largest: int, agreement: list[float]) -> dict:
        layers = [{"layer": f"layer {n}", "tokens": 8, "largest": largest * n} for n in (1, 2)]
        return {"image": "x", "frames": 1, "as_loaded": {"layers": layers, "final_tokens": []}, "agreement": agreement}

    assert mean_figures([figures(2, [0.5, 1.0]), figures(5, [0.0, 0.5])]) == {
        "files": 2,
        "as_loaded": {
            "layers": [
                {"layer": "layer 1", "tokens": 8.0, "largest": 3.5},
                {"layer": "layer 2", "tokens": 8.0, "largest": 7.0},
            ]
        },
        "agreement": [0.25, 0.75],
    }


def test_agreement_is_the_mean_over_the_frames():
    half, rows = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [0, 1]])
    assert agreement([half, half], [half, rows]) == pytest.approx((1.0 - 0.5) / 2)
