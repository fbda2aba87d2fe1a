"""Pictures of merged tokens."""

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.reports.tokens.map import (
    BORDER,
    NO_TOKEN,
    SHADE,
    TINT,
    UNMERGED,
    borders,
    colour,
    colour_ranks,
    draw_one_token,
    draw_token_map,
    in_a_row,
    layer_reductions,
    patch_tokens,
    source_map,
    source_maps,
)
from lavis_evlgen.token_reduction import Reduction


def near_another_token(ids: np.ndarray, cell: int, y: int, x: int, width: int) -> bool:
    """One pixel, by the definition: a side of its patch that is nearer than `width` parts two tokens."""
    row, column = y // cell, x // cell
    top, left = y % cell, x % cell
    sides = [(top, -1, 0), (cell - 1 - top, 1, 0), (left, 0, -1), (cell - 1 - left, 0, 1)]
    for distance, down, right in sides:
        other = (row + down, column + right)
        inside = 0 <= other[0] < ids.shape[0] and 0 <= other[1] < ids.shape[1]
        if distance < width and inside and ids[other] != ids[row, column]:
            return True
    return False


@pytest.mark.parametrize("seed", range(5))
def test_borders_stand_exactly_where_the_source_map_differs(seed):
    generator = np.random.default_rng(seed)
    rows, columns, cell, width = *generator.integers(1, 6, 2), 6, 2
    ids = generator.integers(0, 3, (rows, columns))
    mask = borders(ids, cell, width)
    assert mask.shape == (rows * cell, columns * cell)
    for y in range(rows * cell):
        for x in range(columns * cell):
            assert mask[y, x] == near_another_token(ids, cell, y, x, width), (y, x)


def test_patches_of_a_token_share_a_colour_and_others_keep_their_look():
    tokens = [0, 1, 1, 2, 3, 4, 3, 4, 4]  # 3 x 3 patches: 0 and 2 alone, 1 twice, 3 twice and 4 three times
    grey = Image.new("RGB", (90, 60), (100, 100, 100))
    drawn = np.asarray(draw_token_map(grey, tokens, (3, 3), size=90))
    assert drawn.shape == (90, 90, 3)
    inner = {n: tuple(drawn[n // 3 * 30 + 15, n % 3 * 30 + 15]) for n in range(9)}
    assert inner[0] == inner[3] == (100, 100, 100)
    assert inner[1] == inner[2] and inner[4] == inner[6] and inner[5] == inner[7] == inner[8]
    assert len({inner[1], inner[4], inner[5], (100, 100, 100)}) == 4
    # the border of a merged token is its colour in full, that of a single patch grey
    border = np.float32(drawn[15, 30])
    assert np.allclose(100 * (1 - TINT) + border * TINT, inner[1], atol=1)
    assert tuple(drawn[15, 29]) == UNMERGED and tuple(drawn[15, 29 - BORDER]) == (100, 100, 100)
    assert tuple(drawn[15, 59]) == tuple(drawn[15, 60]) == inner[1], "no line inside a token"


def test_prefix_tokens_are_no_patches():
    assert patch_tokens(torch.tensor([7, 7, 1, 2, 3, 4]), (2, 2), 2).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="5 tokens are not 0 \\+ 2 x 2"):
        draw_token_map(Image.new("RGB", (8, 8)), [0, 1, 2, 3, 4], (2, 2))


def test_one_token_has_no_border_and_one_colour():
    drawn = np.asarray(draw_token_map(Image.new("L", (10, 10), 200), [0] * 4, (2, 2), size=20))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_the_largest_token_has_the_first_colour_and_single_patches_have_none():
    ids = np.array([[5, 5, 2], [5, 2, 2], [2, NO_TOKEN, 7], [1, 1, NO_TOKEN]])
    assert colour_ranks(ids) == {2: 0, 5: 1, 1: 2}
    assert len({colour(rank) for rank in range(40)}) == 40


def test_colours_go_to_the_tokens_that_share_most_patches():
    whole, ranks = np.array([[1, 1, 1, 1], [0, 0, 0, 2]]), {1: 4, 0: 0}  # token 2 is one patch
    parts = np.array([[8, 8, 8, 9], [9, 7, 7, 6]])
    # 8 has three patches of the four of 1, 7 two of the three of 0; 9 shares one with each, but both colours are gone
    assert colour_ranks(parts, like=(whole, ranks)) == {8: 4, 7: 0, 9: 1}
    assert colour_ranks(whole, like=(whole, ranks)) == ranks


def test_given_colours_are_used():
    drawn = np.asarray(draw_token_map(Image.new("RGB", (4, 4)), [0, 0, 1, 1], (2, 2), size=40, ranks={0: 3, 1: 0}))
    assert np.allclose(drawn[5, 5], np.array(colour(3)) * TINT, atol=1)
    assert np.allclose(drawn[35, 5], np.array(colour(0)) * TINT, atol=1)


def test_patches_of_no_token_are_dark():
    white = Image.new("RGB", (60, 30), "white")
    drawn = np.asarray(draw_token_map(white, [NO_TOKEN, 0], (1, 2), size=60))
    assert np.allclose(drawn[15, 10], 255 * (1 - SHADE), atol=1) and tuple(drawn[15, 50]) == (255, 255, 255)


def test_one_token_is_lit_and_the_rest_dimmed():
    grey = Image.new("RGB", (90, 60), (100, 100, 100))
    drawn = np.asarray(draw_one_token(grey, np.array([[True, True, False], [False, False, False]]), size=90))
    assert drawn.shape == (60, 90, 3)
    assert tuple(drawn[15, 15]) == tuple(drawn[15, 30]) == (100, 100, 100), "no line inside it"
    assert np.allclose(drawn[45, 15], 100 * (1 - SHADE), atol=1)
    assert tuple(drawn[29, 15]) == (255, 255, 255) and drawn[30, 15].max() < 100, "its edge is white, on its own side"


def test_visual_tokens_without_weight_belong_to_no_token():
    reduction = Reduction(torch.tensor([[0, 0, 1, 0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]]), 2)
    assert source_map(reduction).tolist() == [[0, NO_TOKEN, 1, NO_TOKEN]]


def test_connectors_without_layers_have_one_map(tiny_model, batch):
    linear = tiny_model(connector="linear")
    (only,) = source_maps(linear, batch["image"], by_layer=True)
    assert only.tolist() == [list(range(17))] * 3
    random = tiny_model(connector="linear", linear_reduction="random", num_query_token=5)
    (only,) = source_maps(random, batch["image"])
    kept = {0: 0, 3: 1, 7: 2, 11: 3, 15: 4}  # CLS, and of the 16 patches 2, 6, 10 and 14
    assert only.tolist() == [[kept.get(place, NO_TOKEN) for place in range(17)]] * 3


def test_a_model_of_another_package_is_said():
    with pytest.raises(ConfigError, match="a Linear merges no tokens"):
        layer_reductions(torch.nn.Linear(2, 2), torch.zeros(1, 3, 2, 2))


def test_source_maps_are_the_connectors(tiny_model, batch):
    model = tiny_model()
    maps = source_maps(model, batch["image"], by_layer=True)
    assert [tuple(each.shape) for each in maps] == [(3, 17)] * 3
    assert [int(each.max()) + 1 for each in maps] == [13, 9, 5]
    (last,) = source_maps(model, batch["image"])
    assert torch.equal(last, maps[-1])
    assert torch.equal(last, model.extract_features(batch).source_map)


def test_a_connector_that_merges_nothing_is_said(tiny_model, batch):
    with pytest.raises(ConfigError, match="QFormerConnector merges no tokens.*connector: tomeformer"):
        source_maps(tiny_model(connector="qformer", num_query_token=3), batch["image"])


def test_pictures_in_a_row_have_labels_below():
    row = in_a_row([Image.new("RGB", (240, 240), colour) for colour in ("red", "blue")], ["one", "two"], gap=10)
    pixels = np.asarray(row)
    assert row.size == (490, 260)
    assert tuple(pixels[120, 120]) == (255, 0, 0) and tuple(pixels[120, 370]) == (0, 0, 255)
    assert tuple(pixels[120, 245]) == (255, 255, 255)
    assert (pixels[240:, :240] < 100).any() and (pixels[240:, 250:] < 100).any()
