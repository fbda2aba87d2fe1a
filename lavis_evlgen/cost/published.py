"""Sizes of well-known models as published, for machines that do not hold their config.json."""

from __future__ import annotations

import os
import re
from typing import Any

from transformers import AutoConfig, PretrainedConfig


def _opt(width: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    sizes = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width}
    return "opt", {**sizes, "num_hidden_layers": layers, "num_attention_heads": heads}


def _llama(width: int, hidden: int, layers: int, heads: int, **further: Any) -> tuple[str, dict[str, Any]]:
    sizes = {"hidden_size": width, "intermediate_size": hidden, "vocab_size": 32000}
    return "llama", {**sizes, "num_hidden_layers": layers, "num_attention_heads": heads, **further}


def _vit(kind: str, width: int, layers: int, heads: int, **further: Any) -> tuple[str, dict[str, Any]]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "patch_size": 14}
    return kind, {**sizes, **further}


_SMOLLM2 = {"vocab_size": 49152, "tie_word_embeddings": True}

# the sizes that the models' own papers and config.json files state; Vicuna is LLaMA fine-tuned
_PUBLISHED = {
    r"opt-1\.3b": _opt(2048, 24, 32),
    r"opt-2\.7b": _opt(2560, 32, 32),
    r"opt-6\.7b": _opt(4096, 32, 32),
    r"opt-13b": _opt(5120, 40, 40),
    r"(vicuna|llama(-2)?)-7b.*": _llama(4096, 11008, 32, 32),
    r"(vicuna|llama(-2)?)-13b.*": _llama(5120, 13824, 40, 40),
    r"smollm2-135m(-instruct)?": _llama(576, 1536, 30, 9, num_key_value_heads=3, **_SMOLLM2),
    r"smollm2-360m(-instruct)?": _llama(960, 2560, 32, 15, num_key_value_heads=5, **_SMOLLM2),
    r"bert-base-uncased": ("bert", {}),
    r"dinov2-small": _vit("dinov2", 384, 12, 6, image_size=518),
    r"dinov2-base": _vit("dinov2", 768, 12, 12, image_size=518),
    r"dinov2-large": _vit("dinov2", 1024, 24, 16, image_size=518),
    r"dinov2-giant": _vit("dinov2", 1536, 40, 24, image_size=518, use_swiglu_ffn=True),
    r"clip-vit-large-patch14": _vit("clip_vision_model", 1024, 24, 16, intermediate_size=4096, image_size=224),
}
NAMES = (
    "OPT 1.3b to 13b, LLaMA and Vicuna 7b and 13b, SmolLM2 135M and 360M, bert-base-uncased, DINOv2 small to giant, "
    "CLIP ViT-L/14"
)


def published_config(name: str) -> PretrainedConfig | None:
    """The configuration of a model by the last part of its name or path, or None where none is known."""
    last = os.path.basename(name.rstrip("/")).lower()
    for pattern, (kind, fields) in _PUBLISHED.items():
        if re.fullmatch(pattern, last):
            return AutoConfig.for_model(kind, **fields)
    return None
