"""Pictures of merged tokens."""

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.reports.token_map import (
    BORDER,
    TINT,
    UNMERGED,
    borders,
    draw_token_map,
    in_a_row,
    patch_tokens,
    source_maps,
)


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
