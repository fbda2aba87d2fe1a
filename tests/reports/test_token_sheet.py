"""The picture of token maps: what stands where."""

import numpy as np
import pytest
from PIL import Image

from lavis_evlgen.reports.tokens.map import SHADE, draw_one_token, draw_token_map
from lavis_evlgen.reports.tokens.sheet import GAP, sheet
from lavis_evlgen.reports.tokens.states import AFTER, BEFORE, Layer, Shown

LABEL, HEADING = 448 // 12, 40  # pixels below a map, and above a row
RIGHT, DOWN = 448 + GAP, 448 + LABEL + GAP


def layer(number: int, *maps: list[list[int]]) -> Layer:
    return Layer(f"layer {number}", 1 + max(token for ids in maps for row in ids for token in row), np.array(maps))


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (20, 20), (40 * number + 40, 90, 160)) for number in range(count)]


ALONE, ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 0], [1, 1]], [[0, 1], [0, 1]]


def part(whole: Image.Image, left: int, top: int, size: int = 448) -> np.ndarray:
    return np.asarray(whole.crop((left, top, left + size, top + size)))


def drawn(shown: Shown, state: str, number: int, frame: int = 0, own: int = 0) -> np.ndarray:
    ids = shown.states[state][number].maps[own]
    return np.asarray(
        draw_token_map(shown.frames[frame], ids.ravel(), ids.shape, ranks=shown.ranks[state][number][own])
    )


def test_one_map_is_the_whole_picture():
    shown = Shown("x.png", pictures(1), {}, 4, states={"as loaded": [layer(1, ALONE), layer(2, ROWS)]})
    whole = sheet(shown)
    assert whole.size == (448, 448) and (np.asarray(whole) == drawn(shown, "as loaded", 1)).all()


def test_states_stand_side_by_side():
    shown = Shown("x.png", pictures(1), {}, 4, states={BEFORE: [layer(1, ROWS)], AFTER: [layer(1, COLUMNS)]})
    whole = sheet(shown)
    assert whole.size == (448 + RIGHT, 448 + LABEL)
    assert (part(whole, 0, 0) == drawn(shown, BEFORE, 0)).all()
    assert (part(whole, RIGHT, 0) == drawn(shown, AFTER, 0)).all()
    assert (np.asarray(whole)[448:, :448] < 100).any(), "a label"


def test_every_layer_has_its_place_in_the_row_of_its_state():
    states = {BEFORE: [layer(1, ALONE), layer(2, ROWS)], AFTER: [layer(1, COLUMNS), layer(2, [[0, 0], [0, 0]])]}
    shown = Shown("x.png", pictures(1), {}, 4, states=states)
    whole = sheet(shown, every_layer=True)
    assert whole.size == (448 + RIGHT, 2 * (HEADING + 448 + LABEL) + GAP)
    for row, state in enumerate(states):
        for column in range(2):
            found = part(whole, column * RIGHT, HEADING + row * (HEADING + DOWN))
            assert (found == drawn(shown, state, column)).all()


def test_a_map_that_frames_share_is_drawn_over_each_of_them():
    shown = Shown("x.mp4", pictures(3), {}, 4, states={"as loaded": [layer(1, ALONE), layer(2, ROWS)]})
    whole = sheet(shown)
    assert whole.size == (448 + 2 * RIGHT, HEADING + 448 + LABEL)
    for frame in range(3):
        assert (part(whole, frame * RIGHT, HEADING) == drawn(shown, "as loaded", 1, frame)).all()
    assert sheet(shown, every_layer=True).size == (448 + RIGHT, HEADING + 448 + LABEL), "once, over the first frame"


def test_frames_with_maps_of_their_own_have_a_row_each():
    shown = Shown("x.mp4", pictures(2), {}, 4, states={"as loaded": [layer(1, ALONE, ALONE), layer(2, ROWS, COLUMNS)]})
    whole = sheet(shown, every_layer=True)
    for frame in range(2):
        found = part(whole, RIGHT, HEADING + frame * (HEADING + DOWN))
        assert (found == drawn(shown, "as loaded", 1, frame, own=frame)).all()
    last = sheet(shown)
    assert (part(last, RIGHT, HEADING) == drawn(shown, "as loaded", 1, 1, own=1)).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_every_final_token_alone_by_size(frames):
    ids = [[0, 1], [1, 1]]
    shown = Shown("x", pictures(frames), {}, 4, states={"as loaded": [layer(1, ids)]})
    maps, whole = sheet(shown), sheet(shown, tokens=True)
    top = maps.height + (LABEL if frames == 1 else 0) + GAP + HEADING
    for place, token in enumerate((1, 0)):  # the larger first
        for frame, picture in enumerate(shown.frames):
            left = place * (frames * 224 + 2 * (frames - 1) + GAP) + frame * 226
            expected = np.asarray(draw_one_token(picture, np.array(ids) == token))
            assert (part(whole, left, top, 224) == expected).all()
            assert np.allclose(
                expected[20 if token else 200, 20], np.array(picture.getpixel((0, 0))) * (1 - SHADE), atol=1
            )


def test_tokens_go_on_in_the_next_row():
    ids = np.arange(9).reshape(3, 3).tolist()
    shown = Shown("x.png", pictures(1), {}, 9, states={"as loaded": [layer(1, ids)]})
    whole = sheet(shown, tokens=True)
    side = 225  # three patches of whole pixels, nearest to 224
    assert whole.width == 8 * (side + GAP) - GAP
    bottom = part(whole, 0, whole.height - side - side // 12, side)
    assert (bottom == np.asarray(draw_one_token(shown.frames[0], np.array(ids) == 8))).all(), "the ninth"
    assert (np.asarray(whole)[-side - side // 12 :, side:] == 255).all(), "nothing beside it"
