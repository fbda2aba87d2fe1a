"""Where the blocks of a ViT are, whoever wrote it, and activation checkpointing of them."""

from __future__ import annotations

from torch import nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.layers import checkpoint_layers

# the norm before the MLP half, as pre-norm ViTs call it: LAVIS's eva_vit and DINOv2; LAVIS's clip_vit and OpenAI's
# CLIP; CLIP and SigLIP; ViT, DeiT and BEiT
MLP_NORMS = ("norm2", "ln_2", "layer_norm2", "layernorm_after")


def find_blocks(encoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """(block, norm before its MLP half) for every block of a pre-norm ViT, in the order of the path.

    Raises:
        ConfigError: the encoder has no such blocks.
    """
    blocks = []
    for module in encoder.modules():
        norm = next(
            (getattr(module, name) for name in MLP_NORMS if isinstance(getattr(module, name, None), nn.Module)), None
        )
        if norm is not None:
            blocks.append((module, norm))
    if not blocks:
        raise ConfigError(
            f"no pre-norm blocks found in {type(encoder).__name__} (looked for {', '.join(MLP_NORMS)}); temporal: "
            "contextualizer, use_grad_checkpoint and run.shard need them: do without, or take another vit_model"
        )
    return blocks


def checkpoint_blocks(encoder: nn.Module) -> None:
    """Let every block forget its activations and compute them again in the backward pass.

    The same for every ViT: Hugging Face's own checkpointing is off in eval mode, in which a frozen ViT stays, and
    LAVIS's gives no gradients where the first block's input needs none.
    """
    checkpoint_layers(block for block, _ in find_blocks(encoder))
