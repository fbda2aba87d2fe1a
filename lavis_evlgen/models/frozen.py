"""Parts that never train."""

from __future__ import annotations

from torch import Tensor, nn


class Frozen(nn.Module):
    """A module whose parameters never get gradients and which stays in eval mode whatever its parents do.

    Subclasses call `freeze` after they have built their parts.

    Attributes:
        sharded: this process holds a part of the weights; all processes must use the module equally often.
        entrances: the methods by which others use the weights, where they are brought together.
    """

    frozen: bool = False
    sharded: bool = False
    entrances: tuple[str, ...] = ()

    def layers(self) -> list[nn.Module]:
        """The blocks that run one after the other and hold most of the weights.

        Raises:
            ConfigError: they are not found.
        """
        raise NotImplementedError

    def freeze(self) -> None:
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(mode and not self.frozen)


def parameters_behind(output: Tensor) -> set[nn.Parameter]:
    """The parameters that an output's gradient reaches, found without computing any."""
    found, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        waiting.extend(before for before, _ in node.next_functions)
    return found
