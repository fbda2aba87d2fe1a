"""Clips with captions as map-style data sets, and pictures with captions as clips that stand still."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.captioned import CaptionedFiles, CaptionItems, ReferenceItems
from lavis_evlgen.datasets.clip_errors import ClipError, message, unreadable
from lavis_evlgen.datasets.frame_sampling import spread
from lavis_evlgen.datasets.image_text import Pictures
from lavis_evlgen.datasets.records import Record
from lavis_evlgen.datasets.video_annotations import read_clip_records
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.errors import ConfigError

SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".gif")


def frames_of(processor: Any) -> int | None:
    """T of a video processor, ours or LAVIS's; None where it does not say, or means all frames of a clip."""
    frames = next((getattr(processor, key) for key in ("num_frames", "n_frms") if hasattr(processor, key)), None)
    return frames if frames is not None and frames < sys.maxsize else None


def process_clip(processor: Any, path: Path) -> Tensor | BadSample:
    """What a video processor makes of a file, with exactly T frames, or what is wrong with the file.

    LAVIS's processors give fewer frames of short clips, and one more or less of some T: frames are repeated, or left
    out, evenly.

    Raises:
        ConfigError: the processor cannot work as it is configured.
    """
    reason = unreadable(path)
    if reason:
        return BadSample(str(path), reason)
    try:
        clip = processor(str(path))
    except ConfigError:
        raise
    except Exception as error:  # LAVIS's processors let through whatever decord raises, of a dozen kinds
        return BadSample(str(path), message(error))
    if clip.shape[1] == 0:
        return BadSample(str(path), "the processor chose no frame of it")
    count = frames_of(processor)
    return clip if count in (None, clip.shape[1]) else clip[:, torch.tensor(spread(clip.shape[1], count))]


class Clips(CaptionedFiles):
    """Items show a clip [3, T, H, W] as the processor, which is called with its path, makes it.

    A clip whose name ends in another suffix than the annotation file says is found too: many collections were fetched
    in whatever format the source offered.
    """

    kind = "video"
    read = staticmethod(read_clip_records)

    def file(self, record: Record) -> Path:
        path = super().file(record)
        if os.path.exists(path):
            return path
        stem = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        others = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
        return next((other for other in others if os.path.exists(other)), path)

    def load_clip(self, index: int, count: int | None = None) -> Tensor | BadSample:
        """``count`` frames of an item's clip, spread evenly, as they are: uint8 [T, H, W, 3]. For pictures of it.

        The default is as many as the model sees.
        """
        path = self.file(self.record(index))
        try:
            return read_clip(path, count or frames_of(self.vis_processor) or 1)
        except ClipError as error:
            return BadSample(str(path), str(error))

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        path = self.file(self.record(index))
        clip = process_clip(self.vis_processor, path) if self.vis_processor else str(path)
        return clip if isinstance(clip, BadSample) else {"video": clip}


class VideoCaptionDataset(CaptionItems, Clips):
    """For training: ``{"video" [3, T, H, W], "text_input": str, "image_id": str}`` or a BadSample."""


class VideoCaptionEvalDataset(ReferenceItems, Clips):
    """For evaluation: ``{"video", "image_id", "instance_id", "text_input"}`` per clip, or a BadSample."""


class StaticClips(Pictures):
    """Items show a picture for T frames: ``video`` [3, T, H, W], a view of one frame's memory until it is collated."""

    def __init__(self, *args: Any, num_frames: int = 4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_frames = num_frames

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        visual = super()._visual(index)
        if isinstance(visual, BadSample):
            return visual
        return {"video": visual["image"].unsqueeze(1).expand(-1, self.num_frames, -1, -1)}


class StaticVideoCaptionDataset(CaptionItems, StaticClips):
    """Pictures as clips that stand still, for training; to be mixed with clips of as many frames."""


class StaticVideoCaptionEvalDataset(ReferenceItems, StaticClips):
    """Pictures as clips that stand still, for evaluation."""
