"""Drawing a scene: OpenMoji's SVGs as stickers with a white rim on a coloured ground."""

import functools
import io
import random
from pathlib import Path

from PIL import Image, ImageFilter

from lavis_evlgen.embedded.scenes import BACKGROUNDS, Scene
from lavis_evlgen.errors import DataError

_STICKER = 256  # pixels of the longest side; pictures scale it down
_RIM = 7  # pixels around the drawing, so that dark lines show on a dark ground
# Longest side as a share of the picture. Two large things fit beside each other.
_SHARE = {1: {"small": (0.25, 0.30), "large": (0.46, 0.54)}, 2: {"small": (0.20, 0.24), "large": (0.36, 0.41)}}
_MARGIN = 0.03
_CENTRE = {
    "low": (0.19, 0.27),
    "mid": (0.47, 0.53),
    "high": (0.73, 0.81),
    "free": (0.38, 0.62),
}  # of the thing, along x or y
_AXES = {  # (x, y) of each thing
    "left": [("low", "free")],
    "middle": [("mid", "free")],
    "right": [("high", "free")],
    "to the left of": [("low", "mid"), ("high", "mid")],
    "to the right of": [("high", "mid"), ("low", "mid")],
    "above": [("mid", "low"), ("mid", "high")],
    "below": [("mid", "high"), ("mid", "low")],
}


def draw(scene: Scene, image_size: int, seed: str) -> Image.Image:
    """RGB picture of ``image_size`` pixels square; ``seed`` moves, scales, turns and tints it a little."""
    rng = random.Random(seed)
    ground = tuple(min(255, max(0, c + rng.randint(-8, 8))) for c in BACKGROUNDS[scene.background])
    picture = Image.new("RGB", (image_size, image_size), ground)
    for thing, size, axes in zip(scene.things, scene.sizes, _AXES[scene.where], strict=True):
        side = rng.uniform(*_SHARE[len(scene.things)][size]) * image_size
        cut = _turned(sticker(thing.svg), rng.uniform(-8, 8), side)
        corner = [_corner(axis, length / image_size, rng) for axis, length in zip(axes, cut.size, strict=True)]
        picture.paste(cut, (round(corner[0] * image_size), round(corner[1] * image_size)), cut)
    return picture


def _turned(cut: Image.Image, degrees: float, side: float) -> Image.Image:
    """The sticker scaled to a longest side in pixels, then turned."""
    scale = side / max(cut.size)
    # Twice the final size is enough for a smooth turn, and four times faster than turning the original.
    half = cut.resize([max(1, round(2 * scale * s)) for s in cut.size], Image.Resampling.BILINEAR)
    half = half.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=(255, 255, 255, 0))
    return half.resize([max(1, s // 2) for s in half.size], Image.Resampling.BOX)


def _corner(axis: str, length: float, rng: random.Random) -> float:
    """Left or upper edge of a thing of ``length``, in shares of the picture, inside the margin."""
    edge = rng.uniform(*_CENTRE[axis]) - length / 2
    return min(max(edge, _MARGIN), 1 - _MARGIN - length)


@functools.lru_cache(maxsize=1024)
def sticker(svg: Path) -> Image.Image:
    """RGBA drawing cropped to its ink, with a white rim; white where transparent, so that scaling adds no dark edge.

    Raises DataError when the file cannot be rendered.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise DataError("drawing the embedded pictures needs resvg-py; run: pip install resvg-py") from error
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=288, height=288, skip_system_fonts=True))
    except ValueError as error:
        raise DataError(f"{svg} is no SVG that can be drawn: {error}") from error
    ink = Image.open(io.BytesIO(png)).convert("RGBA")
    if not (box := ink.getchannel("A").getbbox()):
        raise DataError(f"{svg} is an empty drawing")
    ink = ink.crop(box)
    ink.thumbnail((_STICKER - 2 * _RIM, _STICKER - 2 * _RIM), Image.Resampling.LANCZOS)
    whole = Image.new("RGBA", (ink.width + 2 * _RIM, ink.height + 2 * _RIM), (255, 255, 255, 0))
    whole.alpha_composite(ink, (_RIM, _RIM))
    rim = whole.getchannel("A").filter(ImageFilter.GaussianBlur(_RIM / 2)).point(lambda a: min(255, a * 6))
    cut = Image.new("RGBA", whole.size, "white")
    cut.alpha_composite(whole)
    cut.putalpha(rim)
    return cut
