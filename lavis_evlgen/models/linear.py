"""Connectors to compare with: a linear layer on all visual tokens, or on fewer that are chosen without training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.models.connector import Connector
from lavis_evlgen.models.vision import VisionTower
from lavis_evlgen.token_reduction import Reduction, bipartite_soft_matching

REDUCTIONS = ("none", "average", "random", "merge")


class LinearConnector(Connector):
    """Visual tokens [B, L, D_v], reduced without any learning, to tokens [B, L', D] by a linear layer.

    CLS and register tokens are never reduced by `average` and `random`: each stays a token of its own, first and
    counted in L'. `merge` protects the CLS token alone, as TomeFormer does.

    Args:
        vision: gives D_v, L, the grid of patches and the number of tokens before them.
        hidden_size: D.
        reduction: `none`: all tokens. `average`: means over cells of the patch grid (`grid_cells`). `random`: in
            training patches drawn anew for every picture, in evaluation patches at even distances in the grid's
            row-by-row order, so that the same picture always gives the same tokens and no single draw decides.
            `merge`: the tokens most alike merge until L' are left (`merge_down`).
        num_tokens_out: L'; without reduction it is L.

    Raises:
        ConfigError: unknown `reduction`, or an L' that is larger than L or leaves no token for the patches.
    """

    def __init__(self, vision: VisionTower, hidden_size: int, reduction: str = "none", num_tokens_out: int = 32):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError(f"linear_reduction: {reduction!r} is unknown{nearest(reduction, REDUCTIONS)}")
        prefix, total = vision.num_prefix_tokens, vision.num_tokens
        if reduction != "none" and not prefix < num_tokens_out <= total:
            raise ConfigError(
                f"num_query_token: {num_tokens_out} for linear_reduction: {reduction}; the ViT gives {total} tokens, "
                f"{prefix} of them no patches: choose {prefix + 1} to {total}"
            )
        self.hidden_size = hidden_size
        self.reduction = reduction
        self.num_tokens_out = total if reduction == "none" else num_tokens_out
        self.num_prefix_tokens = prefix
        self.input_proj = nn.Linear(vision.num_features, hidden_size)
        cells = grid_cells(*vision.grid, self.num_tokens_out - prefix) if reduction == "average" else torch.empty(0)
        self.register_buffer("cells", cells, persistent=False)

    def reduce(self, features: Tensor) -> tuple[Tensor, Reduction]:
        """The tokens [B, L', D] and the reduction to them; it has weight 0 for tokens that `random` drops."""
        reduction = self._choose(features)
        return self.input_proj(reduction.apply(features)), reduction

    def _choose(self, features: Tensor) -> Reduction:
        batch, num_tokens, _ = features.shape
        prefix, count = self.num_prefix_tokens, self.num_tokens_out
        if self.reduction == "merge":
            return merge_down(features, count, protect_cls=prefix > 0)
        if self.reduction == "average":
            assert isinstance(self.cells, Tensor)
            own = torch.arange(prefix, device=features.device)
            target = torch.cat([own, prefix + self.cells]).expand(batch, num_tokens)
            sizes = torch.bincount(target[0], minlength=count)
            return Reduction(target, 1 / sizes[target], count)
        if self.reduction == "random":
            return _keep(self._kept_patches(batch, num_tokens - prefix, features.device), prefix, num_tokens)
        return Reduction.identity(batch, num_tokens, features.device)

    def _kept_patches(self, batch: int, patches: int, device: torch.device) -> Tensor:
        """[B, n] indices of patches in ascending order."""
        count = self.num_tokens_out - self.num_prefix_tokens
        if self.training:
            return torch.rand(batch, patches, device=device).argsort(dim=1)[:, :count].sort(dim=1).values
        even = (2 * torch.arange(count, device=device) + 1) * patches // (2 * count)
        return even.expand(batch, count)


def grid_cells(rows: int, columns: int, count: int) -> Tensor:
    """Divide a grid of patches into `count` cells: the cell of every patch, row by row, [rows * columns].

    Cells are equal rectangles where the grid can be divided so, the squarest if in several ways. Otherwise the grid
    is cut into bands of rows and these into cells, as near to squares of one size as `count` allows.
    """
    equal = [h for h in range(1, count + 1) if count % h == 0 and rows % h == 0 and columns % (count // h) == 0]
    if equal:
        bands = min(equal, key=lambda h: abs(math.log(rows / h) - math.log(columns / (count // h))))
    else:
        bands = min(max(round(math.sqrt(count * rows / columns)), -(-count // columns)), rows, count)
    starts = [band * count // bands for band in range(bands + 1)]
    cells = torch.empty(rows, columns, dtype=torch.long)
    for row in range(rows):
        band = row * bands // rows
        width = starts[band + 1] - starts[band]
        cells[row] = starts[band] + torch.arange(columns) * width // columns
    return cells.flatten()


def merge_down(features: Tensor, count: int, *, protect_cls: bool) -> Reduction:
    """Merge the tokens [B, N, C] most alike until `count` are left: ToMe on a ViT's output, without training.

    A quarter of the tokens merges at a time, by `bipartite_soft_matching` on the tokens themselves, so that what has
    merged is compared again; merged tokens are means over all tokens that they stand for (ToMe, section 3).
    """
    # on DINOv2's tokens halves lose far more of what the tokens say, and smaller parts keep no more
    tokens = features.detach()
    so_far = Reduction.identity(len(tokens), tokens.shape[1], tokens.device)
    while tokens.shape[1] > count:
        present = tokens.shape[1]
        r = min(present - count, max(present // 4, 1))
        step = bipartite_soft_matching(tokens, r, protect_cls=protect_cls, sizes=so_far.sizes())
        tokens, so_far = step.apply(tokens), so_far.then(step)
    return so_far


def _keep(patches: Tensor, prefix: int, num_tokens: int) -> Reduction:
    """The reduction to the prefix and the given patches [B, n]; the others go nowhere (weight 0, target 0)."""
    batch, count = patches.shape
    own = torch.arange(prefix, device=patches.device).expand(batch, prefix)
    kept = torch.cat([own, prefix + patches], dim=1)
    order = torch.arange(prefix + count, device=patches.device).expand_as(kept)
    target = torch.zeros(batch, num_tokens, dtype=torch.long, device=patches.device).scatter(1, kept, order)
    weight = torch.zeros(batch, num_tokens, device=patches.device).scatter(1, kept, 1.0)
    return Reduction(target, weight, prefix + count)
