"""Parts that never train."""

from __future__ import annotations

from torch import nn


class Frozen(nn.Module):
    """A module whose parameters never get gradients and which stays in eval mode whatever its parents do.

    Subclasses call `freeze` after they have built their parts.
    """

    frozen: bool = False

    def freeze(self) -> None:
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(mode and not self.frozen)
