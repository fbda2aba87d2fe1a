"""Text-guided reduction: the best-scored patches stay, all others become one token (ELIP, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction.reduction import Reduction

_NO_DIVISION_BY_ZERO = 1e-6  # the official code's


@torch.no_grad()
def text_guided_reduction(scores: Tensor, keep: int, *, num_prefix: int = 1) -> Reduction:
    """Keep the `keep` best-scored candidates in their order and fuse the others into one token, put last.

    The fused token is the sum of the others weighted by their scores, which are divided by their total (+ 1e-6). The
    first of equal scores stays.

    Args:
        scores: [B, N - num_prefix], not negative: how much each candidate token matters.
        keep: candidates that stay. Where only one other would be left nothing is gained, and nothing is done.
        num_prefix: tokens in front that are no candidates and always stay (CLS, registers).

    Returns:
        The reduction from N to num_prefix + keep + 1 tokens.
    """
    batch, candidates = scores.shape
    if candidates - keep < 2:
        return Reduction.identity(batch, num_prefix + candidates, scores.device)
    ranks = scores.float().argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    stays = ranks < keep
    of_others = scores.float().masked_fill(stays, 0.0)
    weight = of_others / (of_others.sum(dim=-1, keepdim=True) + _NO_DIVISION_BY_ZERO)
    last = num_prefix + keep
    target = torch.where(stays, num_prefix - 1 + stays.cumsum(dim=-1), last)
    prefix = Reduction.identity(batch, num_prefix, scores.device)
    return Reduction(
        torch.cat([prefix.target, target], dim=1),
        torch.cat([prefix.weight, torch.where(stays, 1.0, weight)], dim=1),
        last + 1,
    )


def kept_counts(num_patches: int, keep: Sequence[float]) -> list[int]:
    """Patches that stay at each reduction: the whole part of every ratio of the ORIGINAL number of patches.

    Raises:
        ConfigError: a ratio is not between 0 and 1, or larger than the one before it.
    """
    if any(not 0 <= ratio <= 1 for ratio in keep) or sorted(keep, reverse=True) != list(keep):
        raise ConfigError(f"elip_keep: {list(keep)} must be shares of the patches, from 0 to 1, that do not rise")
    # 0.29 * 100 is 28.999999999999996
    return [int(ratio * num_patches + 1e-9) for ratio in keep]


def text_guided_counts(num_patches: int, keep: Sequence[float], *, num_prefix: int = 1) -> list[int]:
    """Tokens before the first reduction and after each: 256 patches with .90, .65, .40 give [257, 232, 168, 104]."""
    counts = [num_prefix + num_patches]
    for kept in kept_counts(num_patches, keep):
        reduced = num_prefix + kept + 1
        counts.append(min(counts[-1], reduced))
    return counts
