"""ELIP: which visual tokens a text keeps (Guo et al., Efficient Discriminative Language-Image Pre-training, section 3).

`Guidance` says before which blocks of a ViT tokens are reduced, how far and by what look-ahead. `vit` applies it
to LAVIS's ViT, `clip` to those of transformers; `albef` and `blip` are the registered models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.attention import cls_attention
from lavis_evlgen.token_reduction import Reduction, kept_counts, text_guided_reduction

GUIDANCE_KEYS = frozenset({"elip_positions", "elip_keep", "elip_lambda", "elip_lookahead"})


@dataclass(frozen=True)
class Guidance:
    """Text-guided reduction of a ViT's tokens.

    Attributes:
        positions: the blocks (from 0) before which tokens are reduced.
        keep: at each of them, the share of the original patches that stays.
        vision_share: λ; the tokens' CLS is replaced by ``λ · CLS + (1 - λ) · guide`` where attention is read.
        lookahead: in which of the following blocks the attention is read. ``official``: the last one before the next
            reduction or the end; a number n: the n-th, 1 being the very next; ``random``: none, scores are drawn.
    """

    positions: tuple[int, ...] = (2, 4, 10)
    keep: tuple[float, ...] = (0.90, 0.65, 0.40)
    vision_share: float = 0.8
    lookahead: str | int = "official"

    def __post_init__(self) -> None:
        kept_counts(0, self.keep)
        if len(self.positions) != len(self.keep):
            raise ConfigError(
                f"elip_positions has {len(self.positions)} entries and elip_keep {len(self.keep)}: one share a position"
            )
        blocks = [position for position in self.positions if isinstance(position, int) and position >= 0]
        if sorted(set(blocks)) != list(self.positions):
            raise ConfigError(f"elip_positions: {list(self.positions)} must be blocks from 0 on, in rising order")
        if not 0 <= self.vision_share <= 1:
            raise ConfigError(f"elip_lambda: {self.vision_share} is the CLS token's share, from 0 to 1")
        named = self.lookahead in ("official", "random")
        if not named and (isinstance(self.lookahead, str | bool) or self.lookahead < 1):
            raise ConfigError(
                f"elip_lookahead: {self.lookahead!r} is unknown; choose official, random or blocks (1, 2, …)"
            )

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> Guidance:
        """From the model keys ``elip_positions``, ``elip_keep``, ``elip_lambda`` and ``elip_lookahead``."""
        return cls(
            _numbers(cfg, "elip_positions", cls.positions),
            _numbers(cfg, "elip_keep", cls.keep),
            cfg.get("elip_lambda", cls.vision_share),
            cfg.get("elip_lookahead", cls.lookahead),
        )

    def check_depth(self, depth: int) -> None:
        """ConfigError when a position is no block of a ViT with `depth` blocks."""
        if self.positions and self.positions[-1] >= depth:
            raise ConfigError(f"elip_positions: {list(self.positions)}, but the ViT has the blocks 0 to {depth - 1}")

    def blocks_ahead(self, number: int, depth: int) -> int:
        """Blocks that reduction `number` of a ViT of `depth` blocks looks ahead."""
        ends = [*self.positions[1:], depth]
        if self.lookahead == "official":
            return ends[number] - self.positions[number]
        return 0 if self.lookahead == "random" else min(int(self.lookahead), depth - self.positions[number])

    def reduction(
        self,
        number: int,
        tokens: Tensor,
        guide: Tensor,
        blocks: Sequence[nn.Module],
        num_patches: int,
        *,
        num_prefix: int = 1,
        run: Callable[[nn.Module, Tensor], Tensor] = lambda block, tokens: block(tokens),
    ) -> Reduction:
        """Reduction `number` for the tokens that are about to enter its block.

        Args:
            tokens: [B, N, D]: CLS, other prefix tokens, then patches and an earlier fused token.
            guide: [B, D], the text's CLS.
            blocks: all blocks of the ViT.
            num_patches: N0, how many patches there were at first.
            num_prefix: tokens that always stay.
            run: how a block is called for the look-ahead.
        """
        ahead = self.blocks_ahead(number, len(blocks))
        if ahead:
            first = self.positions[number]
            scores = look_ahead(tokens, guide, blocks[first : first + ahead], self.vision_share, run)[:, num_prefix:]
        else:
            scores = torch.rand(len(tokens), tokens.shape[1] - num_prefix, device=tokens.device)
        kept = kept_counts(num_patches, self.keep)[number]
        return text_guided_reduction(scores, kept, num_prefix=num_prefix)


def _numbers(cfg: Mapping[str, Any], key: str, default: tuple[Any, ...]) -> tuple[Any, ...]:
    given = cfg.get(key, default)
    if not isinstance(given, Sequence) or not all(isinstance(each, int | float) for each in given):
        raise ConfigError(f"{key}: {given!r} must be a list of numbers, such as {list(default)}")
    return tuple(given)


@torch.no_grad()
def look_ahead(
    tokens: Tensor,
    guide: Tensor,
    blocks: Sequence[nn.Module],
    vision_share: float,
    run: Callable[[nn.Module, Tensor], Tensor],
) -> Tensor:
    """Attention [B, N] from CLS in the last of `blocks`, for a copy of the tokens whose CLS is mixed with the guide.

    The copy runs through the blocks before the last one at full length, without dropout, so that no random number is
    drawn. Of the last one only what the attention depends on is computed.
    """
    mixed = vision_share * tokens[:, 0] + (1 - vision_share) * guide.to(tokens.dtype)
    copy = torch.cat([mixed[:, None], tokens[:, 1:]], dim=1)
    with without_dropout(blocks[:-1]):
        for block in blocks[:-1]:
            copy = run(block, copy)
    return cls_attention(blocks[-1], copy)


@contextmanager
def without_dropout(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While active, the modules behave as in eval mode."""
    training = [module for block in blocks for module in block.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
