"""The evaluation picture processor that official EVLGen files name and LAVIS 1.0.2 lacks."""

from typing import Any

from lavis.processors.blip_processors import BlipImageEvalProcessor
from omegaconf import OmegaConf

from lavis_evlgen.registration_tools import register


@register("processor", "blip2_image_eval")
class Blip2ImageEvalProcessor(BlipImageEvalProcessor):
    """Resize to a square, bicubic, and normalise; like ``blip_image_eval``, with blip2_image_train's default size."""

    @classmethod
    def from_config(cls, cfg: Any = None) -> "Blip2ImageEvalProcessor":
        """Keys: image_size (pixels, default 364), mean and std (three numbers each, default CLIP's)."""
        cfg = OmegaConf.create() if cfg is None else cfg
        return cls(image_size=cfg.get("image_size", 364), mean=cfg.get("mean"), std=cfg.get("std"))
