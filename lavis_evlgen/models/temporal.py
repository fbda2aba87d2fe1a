"""Clips of T frames: what becomes of a frozen image ViT, and how the frames' tokens come together.

The temporal contextualizer stands inside every block of the ViT (EVLGen, section 3.3); `mean` and `concat` are the
paper's baselines (Table 3), which leave the ViT as it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.vision import VisionTower

NUM_HEADS = 8
QUERY_WIDTH = 256


class FrameMean(nn.Module):
    """Frames pass the ViT as images do; their tokens are averaged."""

    def encode(self, vision: VisionTower, clips: Tensor) -> Tensor:
        """Clips [B, T, 3, H, W] to visual tokens [B, L, D_v], the mean over the frames."""
        return _each_frame(vision, clips).unflatten(0, clips.shape[:2]).mean(dim=1)

    def join(self, prompts: Tensor, batch: int) -> Tensor:
        """The soft prompts of what `encode` gave, as one a clip: [B, L', D_l]."""
        return prompts


class FrameConcat(nn.Module):
    """Frames pass ViT and connector as images do; a clip's soft prompts are put one after the other."""

    def encode(self, vision: VisionTower, clips: Tensor) -> Tensor:
        """Clips [B, T, 3, H, W] to visual tokens [B * T, L, D_v]."""
        return _each_frame(vision, clips)

    def join(self, prompts: Tensor, batch: int) -> Tensor:
        """[B * T, L', D_l] -> [B, T * L', D_l]."""
        return prompts.unflatten(0, (batch, -1)).flatten(1, 2)


class Contextualizer(FrameMean):
    """In every block of the ViT, between its halves, the frames of a clip look at each other.

    The blocks are reached by hooks, so that the ViT stays the module that it was, under the names that it had. From
    then on the tower is one for clips: call it through `encode`.

    Args:
        vision: the tower; its weights may be frozen, gradients pass through it to the contextualizer.
        num_frames: positions of the time embedding.
        centered, time_embedding: see :class:`FrameAttention`.
    """

    def __init__(self, vision: VisionTower, num_frames: int = 4, centered: bool = False, time_embedding: bool = False):
        super().__init__()
        positions = num_frames if time_embedding else 0
        self.blocks = nn.ModuleList(
            FrameAttention(vision.num_features, centered=centered, num_positions=positions) for _ in vision.blocks
        )
        self._num_frames = 1
        self._updates: dict[int, Tensor | None] = {}
        self._sequence_first = vision.sequence_first
        vision.passes_gradient = True
        for number, (block, mlp_norm) in enumerate(vision.blocks):
            block.register_forward_pre_hook(partial(self._before_block, number))
            mlp_norm.register_forward_pre_hook(partial(self._before_mlp, number))
            block.register_forward_hook(partial(self._after_block, number))

    def encode(self, vision: VisionTower, clips: Tensor) -> Tensor:
        # stays set: a checkpointed block runs again in the backward pass
        self._num_frames = clips.shape[1]
        return super().encode(vision, clips)

    def _before_block(self, number: int, _block: nn.Module, _inputs: Any) -> None:
        self._updates[number] = None  # wanted

    def _before_mlp(self, number: int, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The residual stream as the MLP half shall see it."""
        tokens = inputs[0]
        frames = tokens.transpose(0, 1) if self._sequence_first else tokens
        update = self.blocks[number](frames.unflatten(0, (-1, self._num_frames))).flatten(0, 1).to(tokens.dtype)
        update = update.transpose(0, 1) if self._sequence_first else update
        if number in self._updates:  # not when a checkpointed block runs again: nobody would take it away
            self._updates[number] = update
        return (tokens + update, *inputs[1:])

    def _after_block(self, number: int, _block: nn.Module, _inputs: Any, output: Any) -> Any:
        """A pre-norm block adds its MLP to the stream as it was before the norm: the update is still to be added."""
        update = self._updates.pop(number)
        return (output[0] + update, *output[1:]) if isinstance(output, tuple) else output + update


class FrameAttention(nn.Module):
    """Tokens of the same place attend to each other across the frames: update = alpha * attention (section 3.3).

    Queries and keys are linear maps to 8 heads of 32; the values are the tokens themselves. alpha starts at zero, so
    that an image model becomes a video model without changing its outputs.

    Args:
        width: D_v.
        centered: update = alpha * (attention - tokens), which is zero for a clip of equal frames whatever alpha is.
        num_positions: frames of a learned time embedding on the input of queries and keys, which starts at zero; 0
            for none. Without it the mean over a clip's frames does not depend on their order. Clips of another length
            interpolate it.
    """

    def __init__(self, width: int, centered: bool = False, num_positions: int = 0):
        super().__init__()
        if width % NUM_HEADS:
            raise ConfigError(
                f"temporal: the ViT's width {width} is no multiple of the contextualizer's {NUM_HEADS} heads"
            )
        self.query = nn.Linear(width, QUERY_WIDTH)
        self.key = nn.Linear(width, QUERY_WIDTH)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.centered = centered
        self.time_embedding = nn.Parameter(torch.zeros(num_positions, width)) if num_positions else None

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, L, D_v] -> the update of the same shape."""
        asked = tokens
        if self.time_embedding is not None:
            asked = tokens + _resized(self.time_embedding, tokens.shape[1])[:, None].to(tokens.dtype)
        # relative to the first frame the values of equal frames are zero, not only nearly so
        values = tokens - tokens[:, :1] if self.centered else tokens
        weights = torch.matmul(_heads(self.query(asked)), _heads(self.key(asked)).transpose(-1, -2))
        weights = torch.softmax(weights * QUERY_WIDTH**-0.5, dim=-1)
        attended = torch.matmul(weights, _heads(values).to(weights.dtype)).permute(0, 3, 1, 2, 4).flatten(3)
        return self.alpha * (attended - values if self.centered else attended)


def build_temporal(
    kind: str | None, vision: VisionTower, num_frames: int = 4, centered: bool = False, time_embedding: bool = False
) -> FrameMean | FrameConcat | None:
    """The handling of frames that a configuration names: contextualizer, mean, concat, or None for images.

    Raises:
        ConfigError: unknown kind, an option that the kind does not have, or a ViT whose blocks cannot be reached.
    """
    if kind != "contextualizer" and (centered or time_embedding):
        raise ConfigError(f"centered and time_embedding are options of temporal: contextualizer, not of {kind}")
    if num_frames < 1:
        raise ConfigError(f"num_frames: {num_frames} must be at least 1")
    if kind is None:
        return None
    if kind == "contextualizer":
        return Contextualizer(vision, num_frames, centered, time_embedding)
    if kind == "mean":
        return FrameMean()
    if kind == "concat":
        return FrameConcat()
    raise ConfigError(f"temporal: {kind!r} is unknown; choose contextualizer, mean or concat")


def _each_frame(vision: VisionTower, clips: Tensor) -> Tensor:
    return vision(clips.flatten(0, 1))


def _heads(x: Tensor) -> Tensor:
    """[B, T, L, D] -> [B, L, heads, T, D / heads]."""
    return x.unflatten(-1, (NUM_HEADS, -1)).permute(0, 2, 3, 1, 4)


def _resized(embedding: Tensor, length: int) -> Tensor:
    """Time embedding [T, D] for clips of another length."""
    if len(embedding) == length:
        return embedding
    return F.interpolate(embedding.T[None], size=length, mode="linear")[0].T
