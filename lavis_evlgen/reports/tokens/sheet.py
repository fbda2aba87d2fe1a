"""Token maps as one picture: states, frames or layers side by side, and every final token alone."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lavis_evlgen.reports.tokens.figures import token_list
from lavis_evlgen.reports.tokens.map import draw_one_token, draw_token_map, in_a_row
from lavis_evlgen.reports.tokens.states import Shown

GAP = 12  # pixels between pictures
TILES = 8  # small pictures a row
Labelled = tuple[Image.Image, str]


def sheet(shown: Shown, every_layer: bool = False, tokens: bool = False) -> Image.Image:
    """One picture of all maps: those after the last layer, or after every one.

    Args:
        shown: a picture or clip with its maps.
        every_layer: a row of all layers for every state and frame.
        tokens: below, for every state each final token alone, its patches lit and the rest dimmed, by size.
    """
    rows = _every_layer(shown) if every_layer else _last_layer(shown)
    rows += _tokens(shown) if tokens else []
    (_, first), *others = rows
    if len(first) == 1 and not others:
        return first[0][0]
    return _stacked(
        [_headed(heading, in_a_row([each for each, _ in row], [text for _, text in row], GAP)) for heading, row in rows]
    )


def _last_layer(shown: Shown) -> list[tuple[str, list[Labelled]]]:
    """States side by side for a picture; a row of frames for each state of a clip."""
    last = {state: f"{layers[-1].num_tokens * shown.num_maps} tokens" for state, layers in shown.states.items()}
    if len(shown.frames) == 1:
        named = len(last) > 1
        return [
            ("", [(_map(shown, state, -1, 0), f"{state}: {text}" if named else text) for state, text in last.items()])
        ]
    frames = range(len(shown.frames))
    return [
        (f"{state}: {text}", [(_map(shown, state, -1, frame), f"frame {frame + 1}") for frame in frames])
        for state, text in last.items()
    ]


def _every_layer(shown: Shown) -> list[tuple[str, list[Labelled]]]:
    """A row for every map; one that frames share is drawn over the first of them."""
    shared = "the same for all frames" if len(shown.frames) > shown.num_maps else ""
    return [
        (
            _heading(shown, state, number, shared),
            [
                (_map(shown, state, n, number), f"{each.name}: {each.num_tokens} tokens")
                for n, each in enumerate(layers)
            ],
        )
        for state, layers in shown.states.items()
        for number in range(shown.num_maps)
    ]


def _tokens(shown: Shown) -> list[tuple[str, list[Labelled]]]:
    rows = []
    for state, layers in shown.states.items():
        for number, ids in enumerate(layers[-1].maps):
            frames = [shown.frames[number]] if shown.num_maps > 1 else shown.frames
            tiles = []
            for token in token_list([ids]):
                lit = [draw_one_token(frame, ids == token["token"]) for frame in frames]
                count = token["patches"]
                label = f"token {token['token']}: {count} {'patch' if count == 1 else 'patches'}"
                tiles.append((_beside(lit), label))
            heading = _heading(shown, state, number, "each final token alone")
            size = max(1, TILES // len(frames))
            parts = [tiles[start : start + size] for start in range(0, len(tiles), size)]
            rows += [("" if n else heading, part) for n, part in enumerate(parts)]
    return rows


def _map(shown: Shown, state: str, layer: int, frame: int) -> Image.Image:
    number = frame if shown.num_maps > 1 else 0
    ids = shown.states[state][layer].maps[number]
    return draw_token_map(shown.frames[frame], ids.ravel(), ids.shape, ranks=shown.ranks[state][layer][number])


def _heading(shown: Shown, state: str, number: int, text: str) -> str:
    """State and frame, where there are several, of a map."""
    parts = [state if len(shown.states) > 1 else "", f"frame {number + 1}" if shown.num_maps > 1 else "", text]
    return ", ".join(part for part in parts if part)


def _headed(heading: str, picture: Image.Image) -> Image.Image:
    """The picture under a line of text, if there is one."""
    if not heading:
        return picture
    line = Image.new("RGB", (picture.width, 40), "white")
    ImageDraw.Draw(line).text((0, 20), heading, fill="black", font=ImageFont.load_default(size=20), anchor="lm")
    return _stacked([line, picture], gap=0)


def _beside(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Pictures of one size side by side on white."""
    width, height = pictures[0].size
    row = Image.new("RGB", ((width + gap) * len(pictures) - gap, height), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * (width + gap), 0))
    return row


def _stacked(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Pictures below each other on white."""
    height = sum(picture.height + gap for picture in pictures) - gap
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + gap
    return whole
