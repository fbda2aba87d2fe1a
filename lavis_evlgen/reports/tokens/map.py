"""Pictures of merged tokens: which patches of a picture became one token (ToMe, figure 4; EVLGen, figure 4)."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction import Reduction

NO_TOKEN = -1  # in a source map: a visual token that the connector leaves out
BORDER = 2  # pixels, on each side of the line between two tokens
TINT = 0.45  # how much of a token's colour covers its patches
UNMERGED = (150, 150, 150)  # border of a patch that is a token by itself
SHADE = 0.72  # how much darker a patch is that belongs to no token, or not to the one that is lit
GOLDEN = 0.618034  # hues in steps of the golden ratio are far apart, however many there are


def source_maps(model: Any, samples: Tensor | Mapping[str, Any], by_layer: bool = False) -> list[Tensor]:
    """For every visual token, the final token that it became part of: one [B, L], or one per connector layer.

    Args:
        model: an EVLGen model.
        samples: preprocessed images [B, 3, H, W], or a batch. Clips give B * T maps where the connector sees each frame
            by itself (`temporal: concat`), else B.
        by_layer: one map for every layer of a TomeFormer; other connectors reduce at once.

    Returns:
        Tokens of the connector in 0 … L'-1, `NO_TOKEN` for visual tokens that it leaves out.

    Raises:
        ConfigError: the model's connector gives no map.
    """
    reductions = layer_reductions(model, samples)
    return [source_map(each) for each in (reductions if by_layer else reductions[-1:])]


@torch.no_grad()
def layer_reductions(model: Any, samples: Tensor | Mapping[str, Any]) -> list[Reduction]:
    """What the visual tokens have become after each layer of the connector; see :func:`source_maps`."""
    if getattr(model, "connector", None) is None:
        raise _no_map(model)
    batch = {"image": samples} if isinstance(samples, Tensor) else dict(samples)
    return connector_reductions(model.connector, model.extract_features(batch).vision)


@torch.no_grad()
def connector_reductions(connector: Any, features: Tensor) -> list[Reduction]:
    """The same of visual tokens [B, L, D_v] that have been computed before; see :func:`source_maps`."""
    by_layer = getattr(connector, "reduce_by_layer", None)
    found = [each for _, each in (by_layer(features) if by_layer else [connector.reduce(features)])]
    if None in found:
        raise _no_map(connector)
    return found


def _no_map(module: Any) -> ConfigError:
    return ConfigError(
        f"connector: a {type(module).__name__} merges no tokens, so there is no map of them; "
        "use a model with connector: tomeformer"
    )


def source_map(reduction: Reduction) -> Tensor:
    """The token that every input became part of, [B, L]; `NO_TOKEN` for inputs without any weight."""
    return reduction.target.masked_fill(reduction.weight == 0, NO_TOKEN)


def draw_token_map(
    image: Image.Image,
    source_map: Sequence[int] | Tensor,
    grid: tuple[int, int],
    num_prefix_tokens: int = 0,
    size: int = 448,
    ranks: Mapping[int, int] | None = None,
) -> Image.Image:
    """The picture with the patches of each merged token in one translucent colour, outlined against other tokens.

    Patches that merged with no other keep their own look and have a grey outline; those of no token are dark.

    Args:
        image: any size; it is squeezed to the model's square view, as LAVIS's evaluation processor does.
        source_map: the token of each of the L visual tokens: prefix tokens first, then the patches row by row.
        grid: (rows, columns) of patches.
        num_prefix_tokens: leading tokens (CLS, registers) that are no patches.
        size: about how many pixels the longer side of the drawing has; patches are whole pixels.
        ranks: the colours of the tokens with several patches, see :func:`colour_ranks`; by size without it.

    Raises:
        ValueError: the source map does not have prefix + rows * columns entries.
    """
    ids = patch_tokens(source_map, grid, num_prefix_tokens)
    pixels, cell = _squeezed(image, grid, size)
    cover, colours = np.zeros(grid), np.full((*grid, 3), UNMERGED, dtype=np.float32)
    for token, rank in (colour_ranks(ids) if ranks is None else ranks).items():
        cover[ids == token], colours[ids == token] = TINT, colour(rank)
    cover[ids == NO_TOKEN], colours[ids == NO_TOKEN] = SHADE, 0
    covered = _enlarged(cover, cell)
    covered[borders(ids, cell)] = 1.0
    return _mixed(pixels, _enlarged(colours, cell), covered)


def draw_one_token(image: Image.Image, patches: np.ndarray, size: int = 224) -> Image.Image:
    """The picture with the patches of one token, [rows, columns] bool, as they are and the rest in the dark."""
    pixels, cell = _squeezed(image, patches.shape, size)
    covered = _enlarged(np.where(patches, 0.0, SHADE), cell)
    lit = _enlarged(patches, cell)
    edge = borders(patches, cell) & lit
    covered[edge] = 1.0
    return _mixed(pixels, np.where(edge, 255.0, 0.0)[..., None], covered)


def colour(rank: int) -> tuple[int, int, int]:
    """The colour of a rank: RGB. Low ranks differ most."""
    red, green, blue = colorsys.hsv_to_rgb(rank * GOLDEN % 1, 0.85, (0.98, 0.78)[rank % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def colour_ranks(ids: np.ndarray, like: tuple[np.ndarray, Mapping[int, int]] | None = None) -> dict[int, int]:
    """Ranks of colours for the tokens with several patches, the largest token's first.

    Args:
        ids: the token of every patch.
        like: another map of the same patches and its ranks. Each of its colours goes to the token that shares most
            patches with the token that has it there, so that what is nearly the same looks the same.
    """
    tokens, counts = np.unique(ids[ids != NO_TOKEN], return_counts=True)
    merged = [int(tokens[place]) for place in np.argsort(-counts, kind="stable") if counts[place] > 1]
    ranks: dict[int, int] = {}
    if like is not None:
        shared = Counter(zip(ids.flat, like[0].flat, strict=True))
        for (token, other), _ in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0])):
            rank = like[1].get(int(other))
            if token in merged and token not in ranks and rank is not None and rank not in ranks.values():
                ranks[int(token)] = rank
    taken = set(ranks.values())
    unused = (rank for rank in count() if rank not in taken)
    return {token: ranks[token] if token in ranks else next(unused) for token in merged}


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


def _squeezed(image: Image.Image, grid: tuple[int, ...], size: int) -> tuple[np.ndarray, int]:
    """The picture's pixels, as large as whole patches make it, and the side of a patch."""
    cell = max(2 * BORDER + 1, round(size / max(grid)))
    shape = (grid[1] * cell, grid[0] * cell)
    return np.asarray(image.convert("RGB").resize(shape, Image.Resampling.BICUBIC), dtype=np.float32), cell


def _mixed(pixels: np.ndarray, colours: np.ndarray, cover: np.ndarray) -> Image.Image:
    """Colours over pixels, as opaque as `cover` says."""
    cover = cover[..., None]
    return Image.fromarray((pixels * (1 - cover) + colours * cover).round().astype(np.uint8))


def _enlarged(cells: np.ndarray, cell: int) -> np.ndarray:
    """Every entry as a square of `cell` pixels."""
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)
