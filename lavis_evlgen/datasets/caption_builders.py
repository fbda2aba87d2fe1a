"""Builders of the public data sets on which captions are evaluated: COCO, nocaps and Flickr30k."""

import re
from pathlib import PurePosixPath
from typing import Any

from lavis_evlgen.datasets.caption_annotations import read_caption_records
from lavis_evlgen.datasets.captioned import CaptionedFiles
from lavis_evlgen.datasets.image_text import ImageCaptionDataset, ImageCaptionEvalDataset
from lavis_evlgen.datasets.records import Record
from lavis_evlgen.datasets.released import ReleasedBuilder
from lavis_evlgen.errors import DataError
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register


class ReleasedPictures(CaptionedFiles):
    """Pictures of a release, by any of its official annotation files."""

    read = staticmethod(read_caption_records)


class CocoPictures(ReleasedPictures):
    """The image_id is COCO's own number: "391895" of ``val2014/COCO_val2014_000000391895.jpg``."""

    def image_id(self, record: Record) -> str:
        digits = re.search(r"\d+$", PurePosixPath(record.file).stem)
        if digits is None:
            raise DataError(
                f"{record.file!r} is not named as COCO's pictures are (NAME_000000391895.jpg); "
                "use the data set image_caption for other pictures"
            )
        return str(int(digits.group()))


class CocoCaptionDataset(CocoPictures, ImageCaptionDataset):
    """COCO's training captions."""


class CocoCaptionEvalDataset(CocoPictures, ImageCaptionEvalDataset):
    """COCO's validation and test pictures."""

    @property
    def submission(self) -> str:
        """What follows the split in the name of the submission file: the server wants one of its own."""
        path = PurePosixPath(self.records[0].file)
        named = re.match(r"COCO_(\w+)_\d+$", path.stem)
        part = named[1] if named else path.parent.name or "val2014"
        return f"_submission/captions_{part}_evlgen_results"


class NocapsEvalDataset(ReleasedPictures, ImageCaptionEvalDataset):
    """nocaps; the image_id is its own number (0 to 4499 for validation), ``extras["domain"]`` the kind of picture."""

    subset = "domain"
    submission = "_submission"


class FlickrPictures(ReleasedPictures):
    """The image_id is Flickr's number, by the picture's name."""

    def image_id(self, record: Record) -> str:
        return PurePosixPath(record.file).stem


class FlickrCaptionDataset(FlickrPictures, ImageCaptionDataset):
    """Flickr30k's training captions."""


class FlickrCaptionEvalDataset(FlickrPictures, ImageCaptionEvalDataset):
    """Flickr30k's validation and test pictures."""


class ReleasedCaptionsBuilder(ReleasedBuilder):
    """Captioned pictures of a release; pictures may lie in its own folders, in ``subfolders``, or all in one."""

    subfolders: tuple[str, ...] = ()

    def options(self, split: str) -> dict[str, Any]:
        return {"split": split, "folder": self.folder(), "subfolders": self.subfolders}


@register("builder", "coco_caption")
class CocoCaptionBuilder(ReleasedCaptionsBuilder):
    """LAVIS's ``coco_caption`` (same configuration) with string ids and reference captions for any evaluation.

    Files: LAVIS's ``coco_karpathy_*.json``, Karpathy's ``dataset_coco.json``, COCO's own ``captions_*.json``.
    """

    name = "coco_caption"
    original = dict.fromkeys(("train", "val", "test"), "dataset_coco.json")
    other_names = dict.fromkeys(original, ("dataset_coco.json",))
    subfolders = ("val2014", "train2014", "test2014", "val2017", "train2017")
    train_dataset_cls = CocoCaptionDataset
    eval_dataset_cls = CocoCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": "configs/datasets/coco/defaults_cap.yaml"}


@register("builder", "nocaps")
class NocapsBuilder(ReleasedCaptionsBuilder):
    """nocaps, for evaluation: the official ``nocaps_val_4500_captions.json``, or LAVIS's list without captions."""

    name = "nocaps"
    source = "nocaps.org"
    other_names = {"val": ("nocaps_val.json",), "test": ("nocaps_test.json",)}
    subfolders = ("val", "test", "validation", "val_imgs", "test_imgs")
    train_dataset_cls = ImageCaptionDataset
    eval_dataset_cls = NocapsEvalDataset
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "nocaps.yaml")}


@register("builder", "flickr30k_caption")
class Flickr30kCaptionBuilder(ReleasedCaptionsBuilder):
    """Flickr30k in Karpathy's splits: his ``dataset_flickr30k.json``, LAVIS's lists, or the release's token file."""

    name = "flickr30k_caption"
    original = dict.fromkeys(("train", "val", "test"), "dataset_flickr30k.json")
    other_names = {split: ("dataset_flickr30k.json", f"flickr30k_{split}.json") for split in ("train", "val", "test")}
    subfolders = ("flickr30k-images", "flickr30k_images", "images", "Images")
    train_dataset_cls = FlickrCaptionDataset
    eval_dataset_cls = FlickrCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "flickr30k_caption.yaml")}
