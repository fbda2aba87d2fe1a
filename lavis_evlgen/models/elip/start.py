"""Weights that LAVIS's ViT starts from: a file, or a ViT of transformers (ViT, DeiT, DINOv2)."""

from __future__ import annotations

import os
from typing import Any

import torch
from lavis.models.vit import VisionTransformer, interpolate_pos_embed
from torch import Tensor, nn
from transformers import AutoModel

from lavis_evlgen.embedded.folders import PREFIX
from lavis_evlgen.errors import WeightsError
from lavis_evlgen.models.checkpoints import read_weights
from lavis_evlgen.models.hub import load_pretrained

_IN_A_MODEL = "visual_encoder."


def load_vit(encoder: VisionTransformer, source: str, key: str = "vit_weights") -> None:
    """Load weights into LAVIS's ViT, with its positions resized to the encoder's grid.

    Args:
        encoder: the ViT.
        source: a file (of a ViT, or of a LAVIS model, whose ``visual_encoder`` is taken), or the folder, Hugging Face
            name or ``embedded:…`` of a ViT of transformers.
        key: the configuration key that `source` came from, for messages.

    Raises:
        WeightsError: nothing to load there, or it does not fill this ViT.
    """
    if os.path.isfile(source):
        state = read_weights(source, key)
        if any(name.startswith(_IN_A_MODEL) for name in state):
            state = {n.removeprefix(_IN_A_MODEL): t for n, t in state.items() if n.startswith(_IN_A_MODEL)}
    else:
        state = state_of_transformers(load_pretrained(AutoModel.from_pretrained, source, key))
    if "pos_embed" in state and state["pos_embed"].shape[-1] == encoder.pos_embed.shape[-1]:
        state["pos_embed"] = interpolate_pos_embed(state["pos_embed"], encoder)
    own = encoder.state_dict()
    wrong = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    if wrong:
        found = tuple(state[wrong[0]].shape) if wrong[0] in state else "nothing"
        hint = "" if not source.startswith(PREFIX) else "; see docs/elip.md for the vit_config that fits it"
        raise WeightsError(
            f"{key}: {source} does not fill {len(wrong)} tensors of the ViT, first {wrong[0]}: it has {found} where "
            f"{tuple(own[wrong[0]].shape)} is needed{hint}"
        )
    encoder.load_state_dict({name: state[name] for name in own})


def state_of_transformers(model: nn.Module) -> dict[str, Tensor]:
    """The weights of transformers' ViTModel (so DeiT's) or Dinov2Model under the names of LAVIS's ViT.

    DINOv2's layer scales are multiplied into the linear layers before them, which gives the same outputs.

    Raises:
        WeightsError: a model of another layout.
    """
    vit: Any = model
    try:
        embeddings, layers, norm = vit.embeddings, vit.encoder.layer, vit.layernorm
        state = {
            "cls_token": embeddings.cls_token,
            "pos_embed": embeddings.position_embeddings,
            **_named("patch_embed.proj", embeddings.patch_embeddings.projection),
            **_named("norm", norm),
        }
        for number, layer in enumerate(layers):
            state |= {f"blocks.{number}.{name}": tensor for name, tensor in _block(layer).items()}
    except AttributeError as error:
        raise WeightsError(
            f"vit_weights: {type(model).__name__} is no ViT, DeiT or DINOv2 of transformers, which LAVIS's ViT could "
            f"start from ({error})"
        ) from error
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _block(layer: Any) -> dict[str, Tensor]:
    attention = layer.attention.attention
    projections = (attention.query, attention.key, attention.value)
    dino = hasattr(layer, "norm1")
    norms = (layer.norm1, layer.norm2) if dino else (layer.layernorm_before, layer.layernorm_after)
    halves = (layer.mlp.fc1, layer.mlp.fc2) if dino else (layer.intermediate.dense, layer.output.dense)
    scales = (layer.layer_scale1.lambda1, layer.layer_scale2.lambda1) if dino else (None, None)
    return {
        **_named("norm1", norms[0]),
        "attn.qkv.weight": torch.cat([each.weight for each in projections]),
        "attn.qkv.bias": torch.cat([each.bias for each in projections]),
        **_named("attn.proj", layer.attention.output.dense, scales[0]),
        **_named("norm2", norms[1]),
        **_named("mlp.fc1", halves[0]),
        **_named("mlp.fc2", halves[1], scales[1]),
    }


def _named(name: str, module: nn.Module, scale: Tensor | None = None) -> dict[str, Tensor]:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    if scale is not None:
        weight, bias = weight * scale[:, None], bias * scale
    return {f"{name}.weight": weight, f"{name}.bias": bias}
