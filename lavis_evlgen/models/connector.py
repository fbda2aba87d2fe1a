"""What every connector is: visual tokens in, tokens for the soft prompt out."""

from __future__ import annotations

from torch import Tensor, nn

from lavis_evlgen.token_reduction import Reduction


class Connector(nn.Module):
    """Visual tokens [B, L, D_v] to connector tokens [B, L', D].

    Attributes:
        hidden_size: D.
        num_tokens_out: L'.
    """

    hidden_size: int
    num_tokens_out: int

    def forward(self, features: Tensor) -> Tensor:
        """[B, L, D_v] -> [B, L', D]."""
        return self.reduce(features)[0]

    def reduce(self, features: Tensor) -> tuple[Tensor, Reduction | None]:
        """The tokens [B, L', D], and which visual token went into which of them (None where that has no meaning)."""
        raise NotImplementedError
