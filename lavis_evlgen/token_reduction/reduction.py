"""A token reduction as data: for every input token, the output token it goes to and with what weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reduction:
    """A weighted map from N input tokens to M output tokens, per sample of a batch.

    Attributes:
        target: [B, N] int64, the output token of every input token, in 0 … M-1.
        weight: [B, N], what the input token contributes; the weights of one output token usually sum to one.
        num_out: M, the number of output tokens.

    Reductions compose (`then`); the composition's `target` is the source map from final tokens to image patches
    that pictures and tests use.
    """

    target: Tensor
    weight: Tensor
    num_out: int

    @classmethod
    def identity(cls, batch: int, num_tokens: int, device: torch.device | None = None) -> Reduction:
        """The reduction that keeps every token."""
        target = torch.arange(num_tokens, device=device).expand(batch, num_tokens)
        return cls(target, torch.ones(batch, num_tokens, device=device), num_tokens)

    def apply(self, x: Tensor) -> Tensor:
        """Weighted scatter of tokens: [B, N, D] -> [B, M, D]. Gradient flows through `x`, none through the choice."""
        if self.num_out == self.target.shape[1]:
            return x  # nothing merges: matching keeps the order of the tokens then
        weighted = x * self.weight.unsqueeze(-1).to(x.dtype)
        merged = weighted.new_zeros(x.shape[0], self.num_out, x.shape[2])
        return merged.scatter_add(1, self.target.unsqueeze(-1).expand_as(x), weighted)

    def then(self, later: Reduction) -> Reduction:
        """This reduction followed by `later`, as one map from this one's inputs to `later`'s outputs."""
        return Reduction(
            later.target.gather(1, self.target),
            self.weight * later.weight.gather(1, self.target),
            later.num_out,
        )

    @classmethod
    def composed(cls, reductions: Iterable[Reduction]) -> Reduction | None:
        """Reductions one after the other as one map; None for none."""
        return reduce(cls.then, reductions) if (reductions := list(reductions)) else None

    def sizes(self, input_sizes: Tensor | None = None) -> Tensor:
        """How many original tokens each output token stands for: [B, M]. `input_sizes` [B, N] defaults to ones."""
        if input_sizes is None:
            input_sizes = torch.ones_like(self.weight)
        return input_sizes.new_zeros(len(input_sizes), self.num_out).scatter_add(1, self.target, input_sizes)
