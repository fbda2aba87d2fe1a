"""The vision tower: pixels to visual tokens, by LAVIS's ViTs or any from Hugging Face."""

from __future__ import annotations

import hashlib
import inspect
import os
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lavis.models import clip_vit, eva_vit
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from lavis_evlgen.downloads import download_cached_file
from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.checkpoints import read_weights
from lavis_evlgen.models.frozen import Frozen, parameters_behind
from lavis_evlgen.models.hub import load_pretrained, parse_precision, weights_are_left_out
from lavis_evlgen.models.vit_blocks import checkpoint_blocks, find_blocks

_LAVIS_WEIGHTS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"
_EVA_CLIP_G = {
    "patch_size": 14,
    "embed_dim": 1408,
    "depth": 39,
    "num_heads": 16,
    "mlp_ratio": 4.3637,
    "qkv_bias": True,
}
_CLIP_L = {"patch_size": 14, "width": 1024, "layers": 22, "heads": 16}


class VisionTower(Frozen):
    """Images to visual tokens.

    Attributes:
        num_features: D_v, the width of the tokens.
        num_tokens: L, the tokens of one image: `num_prefix_tokens` (CLS, registers), then the patches row by row.
        grid: (rows, columns) of patches.
        image_size: the side of the square input in pixels.
        sequence_first: the encoder's blocks see [L, B, D_v] rather than [B, L, D_v].
        passes_gradient: something in the encoder trains although its own weights are frozen.
    """

    sequence_first = False
    passes_gradient = False

    def __init__(self, encoder: nn.Module, num_features: int, image_size: int, patch_size: int, num_prefix_tokens: int):
        super().__init__()
        if image_size % patch_size:
            raise ConfigError(f"image_size: {image_size} is no multiple of the ViT's patch size {patch_size}")
        self.encoder: Any = encoder
        self.num_features = num_features
        self.image_size = image_size
        self.num_prefix_tokens = num_prefix_tokens
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.num_tokens = self.grid[0] * self.grid[1] + num_prefix_tokens

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights that meet the pixels (LAVIS's fp16 ViTs keep their norms in fp32)."""
        return next(p.dtype for p in self.encoder.parameters() if p.ndim == 4)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, L, D_v] in fp32, without gradient when frozen.

        Raises:
            ConfigError: the images have another size than the model's `image_size`.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ConfigError(
                f"images are {images.shape[-2]}x{images.shape[-1]} but the model takes {self.image_size}x"
                f"{self.image_size}: set image_size of the vis_processor (or model.image_size) to the same value"
            )
        dtype = self.dtype
        # LAVIS's half-precision ViTs keep fp32 norms, which only autocast reconciles
        mixed = nullcontext() if dtype is torch.float32 else torch.autocast(images.device.type, dtype)
        trains = self.passes_gradient or not self.frozen
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains), mixed:
            return self.encode(images.to(dtype)).float()

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's tokens, in its own dtype."""
        return self.encoder(images)

    @property
    def blocks(self) -> list[tuple[nn.Module, nn.Module]]:
        """(block, norm before its MLP half) of the blocks that the tokens pass; ConfigError for an unknown layout."""
        return find_blocks(self.encoder)

    def layers(self) -> list[nn.Module]:
        return [block for block, _ in find_blocks(self.encoder)]

    def fingerprint(self) -> str:
        """A hash of weights and image size: equal fingerprints give equal features for equal pixels."""
        digest = hashlib.sha256(f"{type(self.encoder).__name__} {self.image_size}".encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]


class HuggingFaceTower(VisionTower):
    """A ViT from transformers (DINOv2, CLIP, SigLIP, ViT, …), read at its `feature_layer`.

    `feature_layer` counts as transformers' hidden states do: -1 is the output (with the final norm where the model
    has one), -2 the second-to-last layer's.
    """

    def __init__(self, encoder: Any, image_size: int, feature_layer: int = -1):
        config = encoder.config
        super().__init__(
            encoder, config.hidden_size, image_size, config.patch_size, _count_prefix_tokens(encoder, config)
        )
        self.feature_layer = feature_layer
        resizes = "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters
        self._kwargs = {"interpolate_pos_encoding": True} if resizes and image_size != config.image_size else {}

    def encode(self, images: Tensor) -> Tensor:
        if self.feature_layer == -1:
            return self.encoder(pixel_values=images, **self._kwargs).last_hidden_state
        outputs = self.encoder(pixel_values=images, output_hidden_states=True, **self._kwargs)
        return outputs.hidden_states[self.feature_layer]

    @property
    def blocks(self) -> list[tuple[nn.Module, nn.Module]]:
        blocks = super().blocks
        # hidden state 0 is the embeddings, so that of number n has passed n blocks
        return blocks[: self.feature_layer % (len(blocks) + 1)]


def build_vision_tower(
    vit_model: str = "eva_clip_g",
    *,
    image_size: int = 224,
    vit_config: dict[str, Any] | None = None,
    vit_weights: str | None = None,
    drop_path_rate: float = 0.0,
    use_grad_checkpoint: bool = False,
    vit_precision: str = "fp16",
    freeze_vit: bool = True,
) -> VisionTower:
    """Build a vision tower from the configuration keys of the same names (see docs/configuration.md).

    Raises:
        ConfigError: unknown `vit_model`, or an image size that the patches do not fill.
        WeightsError: weights missing.
    """
    options: dict[str, Any] = {"image_size": image_size, "weights": vit_weights}
    if vit_model.startswith("hf:"):
        tower: VisionTower = _build_hugging_face(vit_model[3:], image_size, vit_config or {}, vit_weights)
    elif vit_model == "clip_L":
        tower = _build_clip_l(**options)
    elif vit_model == "eva_clip_g":
        tower = _build_eva(_EVA_CLIP_G, drop_path_rate, default_weights="eva_vit_g.pth", **options)
    elif vit_model == "eva_vit":
        tower = _build_eva(vit_config or {}, drop_path_rate, default_weights=None, **options)
    else:
        raise ConfigError(f"vit_model: {vit_model!r} is unknown; choose eva_clip_g, clip_L, eva_vit or hf:NAME-OR-PATH")
    if use_grad_checkpoint:
        checkpoint_blocks(tower.encoder)
    dtype = parse_precision(vit_precision, "vit_precision")
    if freeze_vit:
        _set_precision(tower.encoder, dtype)
        tower.freeze()
    else:  # small steps vanish in 16 bits; what trains computes in the run's precision
        tower.encoder.float()
        _freeze_unused(tower)
    return tower


@torch.no_grad()
def _freeze_unused(tower: VisionTower) -> None:
    """Freeze what no token depends on: poolers, mask tokens, blocks after `feature_layer`.

    With several processes DDP would wait for gradients of these for ever, and stop the run.
    """
    tower.eval()  # draws no random numbers
    weights = next(tower.parameters())
    with torch.enable_grad():
        tokens = tower(weights.new_zeros(1, 3, tower.image_size, tower.image_size))
    tower.train()
    used = parameters_behind(tokens)
    for parameter in tower.parameters():
        parameter.requires_grad_(parameter in used)


def _build_eva(
    config: dict[str, Any],
    drop_path_rate: float,
    default_weights: str | None,
    image_size: int,
    weights: str | None,
) -> VisionTower:
    config = {"drop_path_rate": drop_path_rate, "use_mean_pooling": False, "img_size": image_size, **config}
    known = set(inspect.signature(eva_vit.VisionTransformer).parameters)
    unknown = sorted(set(config) - known)
    if unknown:
        raise ConfigError(f"vit_config: unknown {', '.join(unknown)}; eva_vit takes {', '.join(sorted(known))}")
    state = _vit_weights(weights, default_weights)  # first: a missing file is said before a large model is built
    encoder = eva_vit.VisionTransformer(**config, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    if state is not None:
        eva_vit.interpolate_pos_embed(encoder, state)
        _load_vit(encoder, state, weights or default_weights)
    patch_size = encoder.patch_embed.patch_size[0]
    return VisionTower(encoder, encoder.num_features, config["img_size"], patch_size, num_prefix_tokens=1)


def _build_clip_l(image_size: int, weights: str | None) -> VisionTower:
    state = _vit_weights(weights, "clip_vit_L.pth")
    encoder = clip_vit.VisionTransformer(input_resolution=image_size, use_grad_checkpointing=False, **_CLIP_L)
    if state is not None:
        clip_vit.interpolate_pos_embed(encoder, state)
        _load_vit(encoder, state, weights or "clip_vit_L.pth")
    tower = VisionTower(encoder, encoder.num_features, image_size, _CLIP_L["patch_size"], num_prefix_tokens=1)
    tower.sequence_first = True
    return tower


def _build_hugging_face(name: str, image_size: int, vit_config: dict[str, Any], weights: str | None) -> VisionTower:
    options = dict(vit_config)
    feature_layer = options.pop("feature_layer", -1)
    if options:
        raise ConfigError(f"vit_config: unknown {', '.join(sorted(options))}; for hf: models it takes feature_layer")
    name = weights or name
    config = load_pretrained(AutoConfig.from_pretrained, name, "vit_model")
    # two-tower models (CLIP, SigLIP) nest the ViT's configuration; loading by it takes the ViT alone
    config = getattr(config, "vision_config", config)
    encoder = load_pretrained(AutoModel.from_pretrained, name, "vit_model", config=config)
    return HuggingFaceTower(encoder, image_size, feature_layer)


def _count_prefix_tokens(encoder: nn.Module, config: Any) -> int:
    embeddings = getattr(getattr(encoder, "vision_model", encoder), "embeddings", None)
    has_cls = any(hasattr(embeddings, name) for name in ("cls_token", "class_embedding"))
    return int(has_cls) + getattr(config, "num_register_tokens", 0)


def _vit_weights(path: str | None, default: str | None) -> dict[str, Tensor] | None:
    if weights_are_left_out():
        return None
    if path:
        return read_weights(os.path.expanduser(path), "vit_weights")
    if default is None:
        return None
    try:
        return read_weights(
            download_cached_file(_LAVIS_WEIGHTS + default, check_hash=False, progress=True), "vit_weights"
        )
    except (OSError, WeightsError) as error:
        raise WeightsError(
            f"vit_weights: {default} is not in the torch hub cache ({torch.hub.get_dir()}) and could not be downloaded "
            f"from LAVIS's storage ({error}). Set model.vit_weights to a local copy"
        ) from error


def _load_vit(encoder: nn.Module, state: dict[str, Tensor], source: str | None) -> None:
    """Load ViT weights; the file may hold more than the tower uses (LAVIS leaves off the last block and the head)."""
    missing = encoder.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise WeightsError(f"vit_weights: {source} lacks {len(missing)} tensors of this ViT, first {missing[0]}")


def _set_precision(encoder: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights; in fp16 the norms of LAVIS's own ViTs stay in fp32, as LAVIS has it."""
    if dtype is torch.float16 and isinstance(encoder, (eva_vit.VisionTransformer, clip_vit.VisionTransformer)):
        convert = eva_vit if isinstance(encoder, eva_vit.VisionTransformer) else clip_vit
        convert.convert_weights_to_fp16(encoder)
    else:
        encoder.to(dtype)
