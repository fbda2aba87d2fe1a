"""How much the CLS token attends to every token inside a block of a pre-norm ViT."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError


class _Attention(NamedTuple):
    norm: nn.Module
    query: Tensor
    query_bias: Tensor | None
    key: Tensor
    num_heads: int
    scale: float


def cls_attention(block: nn.Module, tokens: Tensor) -> Tensor:
    """Attention [B, N] from token 0 to all tokens [B, N, D] in the block that they are about to enter, over heads.

    Equal to running the block and averaging the first row of its attention over the heads, at a small part of the
    cost: the row depends on the block's first norm, queries and keys alone; only the CLS token needs a query; and a
    key is never made, as ``q · (K n) = (Kᵀ q) · n`` (the keys' bias is the same for all and leaves the softmax).

    Raises:
        ConfigError: a block of unknown layout.
    """
    parts = _attention(block)
    normed = parts.norm(tokens)
    query = F.linear(normed[:, 0], parts.query, parts.query_bias).unflatten(-1, (parts.num_heads, -1))
    key = parts.key.unflatten(0, (parts.num_heads, -1))
    asked = torch.einsum("bhd,hdc->bhc", query * parts.scale, key.to(query.dtype))
    logits = normed.to(asked.dtype) @ asked.transpose(1, 2)
    return logits.float().softmax(dim=1).mean(dim=2)


def _attention(block: Any) -> _Attention:
    """The parts of LAVIS's `vit` (and timm's) blocks, of CLIP's, and of ViT's, DeiT's and DINOv2's in transformers."""
    if hasattr(block, "attn") and hasattr(block.attn, "qkv"):
        attention, width = block.attn, block.attn.qkv.in_features
        weight, bias = attention.qkv.weight, attention.qkv.bias
        of_query = None if bias is None else bias[:width]
        return _Attention(
            block.norm1, weight[:width], of_query, weight[width : 2 * width], attention.num_heads, attention.scale
        )
    if hasattr(block, "self_attn") and hasattr(block.self_attn, "q_proj"):
        attention, norm = block.self_attn, block.layer_norm1
        query, key, num_heads = attention.q_proj, attention.k_proj, attention.num_heads
    elif hasattr(block, "attention") and hasattr(block.attention, "attention"):
        attention = block.attention.attention
        norm = block.layernorm_before if hasattr(block, "layernorm_before") else block.norm1
        query, key, num_heads = attention.query, attention.key, attention.num_attention_heads
    else:
        raise ConfigError(
            f"text guidance reads the attention of LAVIS's vit and of CLIP, ViT, DeiT and DINOv2 from transformers, "
            f"not of {type(block).__name__}"
        )
    return _Attention(norm, query.weight, query.bias, key.weight, num_heads, (key.out_features // num_heads) ** -0.5)
