"""Tiny ViTs of transformers with two layers and 16 patches."""

from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
MLP = {"intermediate_size": 64}
VITS = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZE, mlp_ratio=2)),
    "registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZE, num_register_tokens=4)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZE, **MLP)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZE, **MLP)),
    "vit": lambda: ViTModel(ViTConfig(**SIZE, **MLP)),
}
