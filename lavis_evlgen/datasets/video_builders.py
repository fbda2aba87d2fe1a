"""Builders of data sets of captioned clips: your own, and those of the papers under LAVIS's names."""

from typing import Any

from lavis_evlgen.datasets.builders import ImageCaptionBuilder
from lavis_evlgen.datasets.local_files import CaptionFilesBuilder
from lavis_evlgen.datasets.released import ReleasedBuilder
from lavis_evlgen.datasets.video_text import (
    StaticVideoCaptionDataset,
    StaticVideoCaptionEvalDataset,
    VideoCaptionDataset,
    VideoCaptionEvalDataset,
    frames_of,
)
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register


class ClipBuilder(CaptionFilesBuilder):
    """Clips in the folder ``videos``; processors must be such that read clips, and say how many frames they give."""

    folder_key = "videos"
    example = "evlgen_video_eval with image_size and num_frames"
    train_dataset_cls = VideoCaptionDataset
    eval_dataset_cls = VideoCaptionEvalDataset

    def processors(self, split: str) -> tuple[Any, Any]:
        vis_processor, text_processor = super().processors(split)
        key = self.key(f"vis_processor.{'train' if split == 'train' else 'eval'}")
        frames = frames_of(vis_processor)
        if frames is None and hasattr(vis_processor, "n_frms"):
            raise ConfigError(f"{key}.n_frms is not set: it is how many frames LAVIS's processor takes of a clip")
        if frames is None:
            raise ConfigError(
                f"{key}: {type(vis_processor).__name__} is not a processor of clips; use evlgen_video_train and "
                "evlgen_video_eval, or LAVIS's alpro_video_train and alpro_video_eval"
            )
        return vis_processor, text_processor


@register("builder", "video_caption")
class VideoCaptionBuilder(ClipBuilder):
    """Your own clips and captions: a folder ``videos`` and one annotation file per split in ``annotations``."""

    name = "video_caption"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "video_caption.yaml")}


@register("builder", "static_video_caption")
class StaticVideoCaptionBuilder(ImageCaptionBuilder):
    """Pictures as clips that stand still for ``num_frames``, to be mixed with clips; else as ``image_caption``."""

    name = "static_video_caption"
    train_dataset_cls = StaticVideoCaptionDataset
    eval_dataset_cls = StaticVideoCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "static_video_caption.yaml")}

    def processors(self, split: str) -> tuple[Any, Any]:
        vis_processor, text_processor = super().processors(split)
        if frames_of(vis_processor) is not None:
            key = self.key(f"vis_processor.{'train' if split == 'train' else 'eval'}")
            raise ConfigError(
                f"{key}: {type(vis_processor).__name__} reads clips, but this data set has pictures; use one for "
                "pictures, e.g. blip_image_eval"
            )
        return vis_processor, text_processor

    def options(self, split: str) -> dict[str, Any]:
        frames = self.config.get("num_frames", 4)
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise ConfigError(f"{self.key('num_frames')} must be a whole number from 1 on, not {frames!r}")
        return {"num_frames": frames}


class NamedClipBuilder(ClipBuilder, ReleasedBuilder):
    """A published data set, its files under LAVIS's keys, its annotations in LAVIS's form or in the release's own."""

    def options(self, split: str) -> dict[str, Any]:
        return {"split": split}


@register("builder", "msrvtt_caption")
class MsrvttCaptionBuilder(NamedClipBuilder):
    """MSR-VTT; LAVIS's builder of this name cannot start, because its configuration has another key."""

    name = "msrvtt_caption"
    original = {
        "train": "train_val_videodatainfo.json",
        "val": "train_val_videodatainfo.json",
        "test": "test_videodatainfo.json",
    }
    other_names = {split: (name,) for split, name in original.items()}
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "msrvtt_caption.yaml")}


@register("builder", "msvd_caption")
class MsvdCaptionBuilder(NamedClipBuilder):
    """MSVD (YouTube2Text)."""

    name = "msvd_caption"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "msvd_caption.yaml")}


@register("builder", "vatex_caption")
class VatexCaptionBuilder(NamedClipBuilder):
    """VATEX's English captions."""

    name = "vatex_caption"
    original = {
        "train": "vatex_training_v1.0.json",
        "val": "vatex_validation_v1.0.json",
        "test": "vatex_public_test_english_v1.1.json",
    }
    other_names = {split: (name,) for split, name in original.items()}
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "vatex_caption.yaml")}


@register("builder", "webvid_2m")
class Webvid2mBuilder(NamedClipBuilder):
    """WebVid's 2.5 million clips for pretraining, which LAVIS does not have."""

    name = "webvid_2m"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "webvid_2m.yaml")}
