"""Clips read from their files, cut out, resized and normalised: T frames of one size for the ViT.

The whole picture is squeezed into a square, as LAVIS does with clips and as EVLGen's image models were evaluated: what
happens at the edges of a wide clip stays in sight. Frames are decoded at their own size and resized once, as pictures
are (bicubic, antialiased); LAVIS has decord shrink them to the square first and enlarges its crops from there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lavis.processors.base_processor import BaseProcessor
from torch import Tensor
from torchvision.transforms import v2

from lavis_evlgen.datasets.frame_sampling import check_sampling
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.registration_tools import register

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RATIOS = (3 / 4, 4 / 3)  # of the sides of a training crop, as for pictures
VIRTUAL = 1 << 12  # side of the square that training crops are drawn in


class VideoProcessor(BaseProcessor):
    """Called with the path of a clip, as LAVIS's ``alpro_video_*`` processors are; gives [3, T, H, W] in fp32."""

    CONFIG_KEYS: tuple[str, ...] = ("image_size", "num_frames", "n_frms", "sampling", "mean", "std", "decoder")
    SAMPLING = "uniform"

    def __init__(
        self,
        image_size: int = 224,
        num_frames: int = 4,
        sampling: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        decoder: str = "auto",
    ) -> None:
        """
        Args:
            image_size: H = W, in pixels.
            num_frames: T.
            sampling: ``uniform``, ``headtail`` or ``random``; None is the processor's own.
            mean, std: of the normalisation, three numbers each between 0 and 1; CLIP's by default.
            decoder: see :func:`lavis_evlgen.datasets.video_reading.read_clip`.
        """
        super().__init__()
        self.image_size = image_size
        self.num_frames = num_frames
        self.sampling = sampling or self.SAMPLING
        check_sampling(self.num_frames, self.sampling)
        self.decoder = decoder
        self.normalize = v2.Normalize([255 * m for m in mean or CLIP_MEAN], [255 * s for s in std or CLIP_STD])

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any] | None = None) -> "VideoProcessor":
        """Keys: CONFIG_KEYS; ``n_frms`` is LAVIS's name of ``num_frames``."""
        options = {key: value for key, value in (cfg or {}).items() if key != "name"}
        lavis_name = options.pop("n_frms", None)
        if lavis_name is not None and options.setdefault("num_frames", lavis_name) != lavis_name:
            raise ConfigError(
                f"num_frames: {options['num_frames']} and n_frms: {lavis_name} mean the same; remove one of them"
            )
        return cls(**options)

    def __call__(self, path: str | Path) -> Tensor:
        """The clip of a file. Raises ClipError where it cannot be read."""
        return self.from_frames(self.read(path))

    def read(self, path: str | Path) -> Tensor:
        """The chosen frames of a file, uint8 [T, H, W, 3], as they are."""
        return read_clip(path, self.num_frames, self.sampling, self.decoder)

    def from_frames(self, frames: Tensor) -> Tensor:
        """Frames uint8 [T, H, W, 3] as the clip [3, T, image_size, image_size]."""
        square = self.square(frames.permute(0, 3, 1, 2))
        return self.normalize(square.float()).transpose(0, 1).contiguous()

    def square(self, frames: Tensor) -> Tensor:
        """Frames uint8 [T, 3, H, W] brought to [T, 3, image_size, image_size]."""
        side = [self.image_size, self.image_size]
        return v2.functional.resize(frames, side, v2.InterpolationMode.BICUBIC, antialias=True)


@register("processor", "evlgen_video_eval")
class VideoEvalProcessor(VideoProcessor):
    """The same frames at every call, whole: what ``blip_image_eval`` does with a picture, for each frame."""


@register("processor", "evlgen_video_train")
class VideoTrainProcessor(VideoProcessor):
    """Frames drawn from head and tail, all cut alike at random; to be read under a seeded generator.

    The crop covers between ``min_scale`` and ``max_scale`` of the frame and is drawn in the frame squeezed to a square,
    as LAVIS's is, so that at full scale it is the view of evaluation. LAVIS also mirrors half of the clips, which
    falsifies "left" and "right", and distorts colours and shapes; its own ``alpro_video_train`` does both.
    """

    CONFIG_KEYS = (*VideoProcessor.CONFIG_KEYS, "min_scale", "max_scale", "flip")
    SAMPLING = "headtail"

    def __init__(
        self, *args: Any, min_scale: float = 0.5, max_scale: float = 1.0, flip: bool = False, **kwargs: Any
    ) -> None:
        """
        Args:
            args, kwargs: those of :class:`VideoProcessor`.
            min_scale, max_scale: least and greatest share of the frame's area that a crop has.
            flip: mirror half of the clips.
        """
        super().__init__(*args, **kwargs)
        if not 0 < min_scale <= max_scale <= 1:
            raise ConfigError(f"min_scale: {min_scale}, max_scale: {max_scale}: need 0 < min_scale <= max_scale <= 1")
        self.scale = (min_scale, max_scale)
        self.flip = flip

    def square(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        top, left, rows, columns = self._crop()
        frames = super().square(frames[..., _pixels(top, rows, height), _pixels(left, columns, width)])
        return frames.flip(-1) if self.flip and torch.rand(()) < 0.5 else frames

    def _crop(self) -> tuple[float, float, float, float]:
        """Top, left, height and width of a crop as shares of the frame's sides."""
        virtual = torch.empty(3, VIRTUAL, VIRTUAL, device="meta")
        drawn = v2.RandomResizedCrop(1, scale=self.scale, ratio=RATIOS).make_params([virtual])
        return tuple(drawn[key] / VIRTUAL for key in ("top", "left", "height", "width"))  # type: ignore[return-value]


def _pixels(start: float, share: float, length: int) -> slice:
    """A share of a side as pixels, at least one."""
    first = min(round(start * length), length - 1)
    return slice(first, max(round((start + share) * length), first + 1))
