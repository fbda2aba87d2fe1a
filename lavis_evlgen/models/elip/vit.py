"""LAVIS's ViT with text-guided reduction: parameters and state-dict keys stay those of the parent class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lavis.models.vit import VisionTransformerEncoder
from torch import Tensor

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.guidance import Guidance
from lavis_evlgen.token_reduction import Reduction


class TextGuidedViT(VisionTransformerEncoder):
    """A VisionTransformerEncoder whose `forward_features` reduces tokens while a guide is set, and only then.

    LAVIS's models call their online ViT by `forward_features` and their momentum ViT as a module, so that turning the
    online one into this class (`TextGuidedViT.guide_with`) reduces the tokens of the one and not of the other.

    Attributes:
        guidance: where and how tokens are reduced.
        reductions: those of the last guided pass, in order; `source_map` composes them.
    """

    guidance: Guidance = Guidance()
    reductions: tuple[Reduction, ...] = ()
    _guide: Tensor | None = None

    @classmethod
    def guide_with(cls, encoder: VisionTransformerEncoder, guidance: Guidance) -> TextGuidedViT:
        """Turn a built encoder into this class, in place; ConfigError when the guidance does not fit its depth."""
        guidance.check_depth(len(encoder.blocks))
        encoder.__class__ = cls
        assert isinstance(encoder, cls)
        encoder.guidance = guidance
        return encoder

    @contextmanager
    def guided_by(self, guide: Tensor | None) -> Iterator[None]:
        """While active, tokens are reduced by the texts [B, D] (None: not at all)."""
        before, self._guide = self._guide, None if guide is None else guide.detach()
        try:
            yield
        finally:
            self._guide = before

    def forward_features(self, x: Tensor, register_blk: int = -1) -> Tensor:
        """Images [B, 3, H, W] -> [B, N, D]; without a guide exactly as the parent class."""
        if self._guide is None:
            return super().forward_features(x, register_blk)
        return self.finish(self.begin(x, register_blk), self._guide, register_blk)

    def begin(self, images: Tensor, register_blk: int = -1) -> Tensor:
        """The tokens [B, 1 + N0, D] before the first reduction; they do not depend on any text."""
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.pos_drop(tokens + self.pos_embed[:, : tokens.shape[1]])
        for number, block in enumerate(self.blocks[: self._first]):
            tokens = block(tokens, register_blk == number)
        return tokens

    def finish(self, tokens: Tensor, guide: Tensor | None, register_blk: int = -1) -> Tensor:
        """From what `begin` gave to the output [B, N, D], reduced by texts [B, D] (None: not at all).

        Raises:
            ConfigError: the guide has another width than the ViT, or another number of texts than there are images.
        """
        if guide is not None and guide.shape != (len(tokens), tokens.shape[2]):
            raise ConfigError(
                f"the text guide is {tuple(guide.shape)}, but the ViT has {len(tokens)} images with tokens of width "
                f"{tokens.shape[2]}: text encoder and ViT must be of the same width, with one text an image"
            )
        num_patches, positions, reductions = tokens.shape[1] - 1, self.guidance.positions, []
        for number in range(self._first, len(self.blocks)):
            if guide is not None and number in positions:
                blocks = list(self.blocks)
                reduction = self.guidance.reduction(positions.index(number), tokens, guide, blocks, num_patches)
                reductions.append(reduction)
                tokens = reduction.apply(tokens)
            tokens = self.blocks[number](tokens, register_blk == number)
        self.reductions = tuple(reductions)
        return self.norm(tokens)

    def source_map(self) -> Reduction | None:
        """From CLS and patches to the tokens of the last guided pass; None when there was none."""
        return Reduction.composed(self.reductions)

    @property
    def _first(self) -> int:
        return self.guidance.positions[0] if self.guidance.positions else len(self.blocks)
