"""Pictures of merged tokens: which patches of a picture became one token (ToMe, figure 4; EVLGen, figure 4)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lavis_evlgen.errors import ConfigError

BORDER = 2  # pixels, on each side of the line between two tokens
TINT = 0.45  # how much of a token's colour covers its patches
UNMERGED = (150, 150, 150)  # border of a patch that is a token by itself
GOLDEN = 0.618034  # hues in steps of the golden ratio are far apart, however many there are


@torch.no_grad()
def source_maps(model: Any, images: Tensor, by_layer: bool = False) -> list[Tensor]:
    """For every visual token, the final token that it became part of: one [B, L], or one per connector layer.

    Args:
        model: an EVLGen model.
        images: preprocessed, [B, 3, H, W].

    Raises:
        ConfigError: the model's connector merges no tokens.
    """
    connector: Any = getattr(model, "connector", None)
    if not hasattr(connector, "reduce_by_layer"):
        raise ConfigError(
            f"connector: a {type(connector or model).__name__} merges no tokens, so there is no map of them; "
            "use a model with connector: tomeformer"
        )
    features = model.ln_vision(model.vision(images))
    maps = [reduction.target for _, reduction in connector.reduce_by_layer(features)]
    return maps if by_layer else maps[-1:]


def draw_token_map(
    image: Image.Image,
    source_map: Sequence[int] | Tensor,
    grid: tuple[int, int],
    num_prefix_tokens: int = 0,
    size: int = 448,
) -> Image.Image:
    """The picture with the patches of each merged token in one translucent colour, outlined against other tokens.

    Patches that merged with no other keep their own look and have a grey outline.

    Args:
        image: any size; it is squeezed to the model's square view, as LAVIS's evaluation processor does.
        source_map: the token of each of the L visual tokens: prefix tokens first, then the patches row by row.
        grid: (rows, columns) of patches.
        num_prefix_tokens: leading tokens (CLS, registers) that are no patches.
        size: about how many pixels the longer side of the drawing has; patches are whole pixels.

    Raises:
        ValueError: the source map does not have prefix + rows * columns entries.
    """
    ids = patch_tokens(source_map, grid, num_prefix_tokens)
    cell = max(2 * BORDER + 1, round(size / max(grid)))
    shape = (grid[1] * cell, grid[0] * cell)
    pixels = np.asarray(image.convert("RGB").resize(shape, Image.Resampling.BICUBIC), dtype=np.float32)
    colours, merged = _colours(ids)
    cover = _enlarged(np.where(merged, TINT, 0.0), cell)
    cover[borders(ids, cell)] = 1.0
    cover = cover[..., None]
    drawn = pixels * (1 - cover) + _enlarged(colours, cell) * cover
    return Image.fromarray(drawn.round().astype(np.uint8))


def patch_tokens(source_map: Sequence[int] | Tensor, grid: tuple[int, int], num_prefix_tokens: int) -> np.ndarray:
    """The token of every patch: [rows, columns]."""
    ids = np.asarray([int(token) for token in source_map])
    rows, columns = grid
    if len(ids) != num_prefix_tokens + rows * columns:
        raise ValueError(f"{len(ids)} tokens are not {num_prefix_tokens} + {rows} x {columns}")
    return ids[num_prefix_tokens:].reshape(rows, columns)


def borders(ids: np.ndarray, cell: int, width: int = BORDER) -> np.ndarray:
    """Which pixels lie within `width` of a side that parts two tokens: [rows * cell, columns * cell] bool.

    Pixels at a corner belong to a border only if one of their patch's own two sides there does.
    """
    mask = np.zeros((ids.shape[0] * cell, ids.shape[1] * cell), dtype=bool)
    across, down = _enlarged(ids[:, 1:] != ids[:, :-1], cell), _enlarged(ids[1:] != ids[:-1], cell)
    near = np.arange(cell)
    last, first = np.tile(near >= cell - width, ids.shape[1] - 1), np.tile(near < width, ids.shape[1] - 1)
    mask[:, :-cell] |= across & last
    mask[:, cell:] |= across & first
    last, first = np.tile(near >= cell - width, ids.shape[0] - 1), np.tile(near < width, ids.shape[0] - 1)
    mask[:-cell] |= down & last[:, None]
    mask[cell:] |= down & first[:, None]
    return mask


def in_a_row(pictures: Sequence[Image.Image], labels: Sequence[str], gap: int = 12) -> Image.Image:
    """Pictures of one size side by side on white, each with its label below."""
    width, height = pictures[0].size
    font = ImageFont.load_default(size=max(12, width // 22))
    strip = Image.new("RGB", ((width + gap) * len(pictures) - gap, height + width // 12), "white")
    draw = ImageDraw.Draw(strip)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = number * (width + gap)
        strip.paste(picture, (left, 0))
        draw.text((left + width / 2, height + width // 24), label, fill="black", font=font, anchor="mm")
    return strip


def _colours(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour of every patch, [rows, columns, 3], and whether its token has several patches.

    Tokens take their hues by size, so that the largest ones differ most.
    """
    tokens, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    palette = np.tile(np.asarray(UNMERGED, dtype=np.float32), (len(tokens), 1))
    for rank, token in enumerate(np.argsort(-counts, kind="stable")):
        if counts[token] > 1:
            light = (0.98, 0.78)[rank % 2]
            palette[token] = np.asarray(colorsys.hsv_to_rgb(rank * GOLDEN % 1, 0.85, light)) * 255
    inverse = inverse.reshape(ids.shape)  # numpy 2.0 keeps the shape, others flatten
    return palette[inverse], counts[inverse] > 1


def _enlarged(cells: np.ndarray, cell: int) -> np.ndarray:
    """Every entry as a square of `cell` pixels."""
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)
