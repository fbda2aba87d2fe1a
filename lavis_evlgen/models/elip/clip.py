"""ELIP in ViTs of transformers: CLIP's, ViT, DeiT and DINOv2, guided by any text encoder (the METER and CLIP cases).

    guided = TextGuidedBlocks(vision_model, METER)
    with guided.by(cls_guide(text_model, **tokens)):
        visual = vision_model(pixels).last_hidden_state  # reduced

Blocks are reached by hooks: the model stays the module that it was, under the names that it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.guidance import Guidance, without_dropout
from lavis_evlgen.models.vit_blocks import find_blocks
from lavis_evlgen.token_reduction import Reduction

METER = Guidance(positions=(2, 4, 9), keep=(0.90, 0.70, 0.45))
"""The authors' schedule for METER, which uses 11 of CLIP's 12 blocks."""

_CLS_NAMES = ("cls_token", "class_embedding")


class TextGuidedBlocks:
    """Reduces the tokens of a ViT while a guide is set (`by`); else the ViT is as before.

    Args:
        encoder: a ViT of transformers with a CLS token, such as CLIPVisionModel, ViTModel or Dinov2Model.
        guidance: where and how tokens are reduced.

    Attributes:
        reductions: those of the last guided pass, in order.

    Raises:
        ConfigError: no CLS token, blocks of an unknown layout, or a guidance that does not fit their number.
    """

    def __init__(self, encoder: nn.Module, guidance: Guidance):
        embeddings: Any = getattr(getattr(encoder, "vision_model", encoder), "embeddings", None)
        if not any(hasattr(embeddings, name) for name in _CLS_NAMES):
            raise ConfigError(f"{type(encoder).__name__} has no CLS token, whose attention tells what a text looks at")
        self.encoder = encoder
        self.guidance = guidance
        self.blocks = [block for block, _ in find_blocks(encoder)]
        guidance.check_depth(len(self.blocks))
        self.num_prefix = 1 + getattr(encoder.config, "num_register_tokens", 0)
        self.reductions: list[Reduction] = []
        self._guide: Tensor | None = None
        self._looking_ahead = False
        self._num_patches = 0
        self._hooks = [
            self.blocks[position].register_forward_pre_hook(partial(self._before_block, number), with_kwargs=True)
            for number, position in enumerate(guidance.positions)
        ]

    @contextmanager
    def by(self, guide: Tensor | None) -> Iterator[None]:
        """While active, tokens are reduced by the texts [B, D] (None: not at all).

        Raises:
            ConfigError: transformers' own activation checkpointing is on, which would run a block again without guide.
        """
        if any(getattr(module, "gradient_checkpointing", False) for module in self.encoder.modules()):
            raise ConfigError(
                "transformers' gradient_checkpointing repeats blocks when the guide is gone: switch it off and use "
                "lavis_evlgen.models.vit_blocks.checkpoint_blocks(encoder)"
            )
        before, self._guide = self._guide, None if guide is None else guide.detach()
        try:
            yield
        finally:
            self._guide = before

    def source_map(self) -> Reduction | None:
        """From prefix tokens and patches to the tokens of the last guided pass; None when there was none."""
        return Reduction.composed(self.reductions)

    def remove(self) -> None:
        """Take the hooks off the ViT."""
        for hook in self._hooks:
            hook.remove()

    def _before_block(self, number: int, _block: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._guide is None or self._looking_ahead:
            return None
        tokens = args[0] if args else kwargs["hidden_states"]
        if self._guide.shape != (len(tokens), tokens.shape[2]):
            raise ConfigError(
                f"the text guide is {tuple(self._guide.shape)}, but there are {len(tokens)} images with tokens of "
                f"width {tokens.shape[2]}: give one text an image, of the same width (see clip_guide for CLIP)"
            )
        if number == 0:
            self._num_patches = tokens.shape[1] - self.num_prefix
            self.reductions = []

        def run(block: nn.Module, tokens: Tensor) -> Tensor:
            its_args, its_kwargs = _with_tokens(tokens, args, kwargs)
            out = block(*its_args, **its_kwargs)
            return out[0] if isinstance(out, tuple) else out

        self._looking_ahead = True
        try:
            reduction = self.guidance.reduction(
                number, tokens, self._guide, self.blocks, self._num_patches, num_prefix=self.num_prefix, run=run
            )
        finally:
            self._looking_ahead = False
        self.reductions.append(reduction)
        return _with_tokens(reduction.apply(tokens), args, kwargs)


@torch.no_grad()
def cls_guide(text_encoder: nn.Module, **tokens: Tensor) -> Tensor:
    """The last hidden state at CLS [B, D] of a BERT or RoBERTa, which must be as wide as the ViT (METER)."""
    with without_dropout([text_encoder]):
        return text_encoder(**tokens).last_hidden_state[:, 0]


@torch.no_grad()
def clip_guide(model: Any, **tokens: Tensor) -> Tensor:
    """The guide [B, D_v] for a CLIPModel's ViT: the normalised text feature times the vision head, transposed.

    Text and vision of CLIP differ in width and meet in the projected space only; so the authors' CLIP code has it.
    """
    with without_dropout([model.text_model]):
        features = model.get_text_features(**tokens)
    return F.normalize(features, dim=-1) @ model.visual_projection.weight


def _with_tokens(tokens: Tensor, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The arguments of a block with other tokens."""
    return ((tokens, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": tokens})
