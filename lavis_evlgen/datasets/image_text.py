"""Pictures with captions as map-style data sets: one item per caption to train on, one per picture to evaluate."""

import logging
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from lavis.datasets.datasets.base_dataset import BaseDataset
from PIL import Image
from torch import Tensor

from lavis_evlgen.datasets.bad_samples import BadSample, collate, read_picture
from lavis_evlgen.datasets.records import Record, read_records
from lavis_evlgen.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class _PictureDataset(BaseDataset):
    """Records of annotation files and the pictures they name; the arguments are those of LAVIS's data sets."""

    need_captions = True
    features: Callable[[str], Tensor | BadSample] | None = None
    """Where set, items have ``vision_features`` [L, D_v] of their ``image_key`` in place of ``image``."""

    def __init__(
        self,
        vis_processor: Callable[[Image.Image], Any] | None = None,
        text_processor: Callable[[str], str] | None = None,
        vis_root: str = ".",
        ann_paths: Sequence[str] = (),
    ) -> None:
        """
        Args:
            vis_processor, text_processor: applied to pictures and captions; None leaves them as they are.
            vis_root: folder that the records' picture paths are relative to.
            ann_paths: annotation files, see :func:`lavis_evlgen.datasets.records.read_records`.
        """
        super().__init__(vis_processor, text_processor, vis_root)
        self.records: list[Record] = []
        for path in ann_paths:
            self.records.extend(read_records(path, self.need_captions))
        for record in self.records:
            record.image_id = self.image_id(record)

    def image_id(self, record: Record) -> str:
        return record.image_id

    def record(self, index: int) -> Record:
        """The record that item ``index`` is made of."""
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def collater(self, samples: Sequence[Any]) -> dict[str, Any]:
        return collate(samples)

    def image_path(self, index: int) -> Path:
        return Path(self.vis_root).expanduser() / self.record(index).image

    def image_key(self, index: int) -> str:
        """Unique per picture; the items of one picture's captions share it."""
        return str(self.image_path(index))

    def load_image(self, index: int) -> Image.Image | BadSample:
        """The item's picture in RGB before any processing, or what is wrong with its file."""
        return read_picture(self.image_path(index))

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        if self.features is not None:
            features = self.features(self.image_key(index))
            return features if isinstance(features, BadSample) else {"vision_features": features}
        picture = self.load_image(index)
        if isinstance(picture, BadSample):
            return picture
        return {"image": self.vis_processor(picture) if self.vis_processor else picture}

    def _text(self, caption: str) -> str:
        return self.text_processor(caption) if self.text_processor else caption


class ImageCaptionDataset(_PictureDataset):
    """For training: ``{"image", "text_input": str, "image_id": str}`` or a BadSample.

    ``captions="all"`` has one item per (picture, caption) pair, ``"first"`` one per picture with its first caption,
    ``"random"`` one per picture whose caption is drawn anew, with torch's generator, each time it is read.
    """

    def __init__(self, *args: Any, captions: Literal["all", "first", "random"] = "all", **kwargs: Any) -> None:
        if captions not in ("all", "first", "random"):
            raise ConfigError(f"captions: {captions!r} is unknown; use 'all', 'first' or 'random'")
        super().__init__(*args, **kwargs)
        self.captions = captions
        self._ends = list(accumulate(len(record.captions) for record in self.records))

    def __len__(self) -> int:
        if self.captions != "all":
            return len(self.records)
        return self._ends[-1] if self._ends else 0

    def _locate(self, index: int) -> tuple[int, int]:
        """(record, caption) numbers of an item; the caption is -1 where it is to be drawn."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        if self.captions != "all":
            return index, 0 if self.captions == "first" else -1
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def record(self, index: int) -> Record:
        return self.records[self._locate(index)[0]]

    def __getitem__(self, index: int) -> dict[str, Any] | BadSample:
        number, caption = self._locate(index)
        record = self.records[number]
        visual = self._visual(index)
        if isinstance(visual, BadSample):
            return visual
        if caption < 0:
            caption = int(torch.randint(len(record.captions), ()))
        return {
            **visual,
            "text_input": self._text(record.captions[caption]),
            "image_id": record.image_id,
        }


class ImageCaptionEvalDataset(_PictureDataset):
    """For evaluation: ``{"image", "image_id", "instance_id", "text_input"}`` per picture, or a BadSample.

    ``text_input`` is the first reference ("" without references); :meth:`ground_truth` holds all of them, unprocessed.
    """

    need_captions = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        twice = [image_id for image_id, times in Counter(r.image_id for r in self.records).items() if times > 1]
        if twice:
            raise DataError(f"image_id {twice[0]!r} stands in two of the split's annotation files; give it one file")
        bare = sum(not record.captions for record in self.records)
        if bare:
            logger.warning("%d of %d pictures have no reference caption; these are not scored", bare, len(self.records))

    def ground_truth(self) -> dict[str, list[str]]:
        """Reference captions by image_id, of the pictures that have any."""
        return {record.image_id: list(record.captions) for record in self.records if record.captions}

    def __getitem__(self, index: int) -> dict[str, Any] | BadSample:
        record = self.records[index]
        visual = self._visual(index)
        if isinstance(visual, BadSample):
            return visual
        return {
            **visual,
            "image_id": record.image_id,
            "instance_id": str(index),
            "text_input": self._text(record.captions[0]) if record.captions else "",
        }


def coco_image_id(record: Record) -> str:
    """COCO's number as a string: "391895" of ``val2014/COCO_val2014_000000391895.jpg``.

    Raises:
        DataError: the file name does not end in a number.
    """
    digits = re.search(r"\d+$", PurePosixPath(record.image).stem)
    if digits is None:
        raise DataError(
            f"{record.image!r} is not named as COCO's pictures are (NAME_000000391895.jpg); "
            "use the data set image_caption for other pictures"
        )
    return str(int(digits.group()))


class CocoCaptionDataset(ImageCaptionDataset):
    """COCO's training captions; image_id is COCO's own number."""

    def image_id(self, record: Record) -> str:
        return coco_image_id(record)


class CocoCaptionEvalDataset(ImageCaptionEvalDataset):
    """COCO's validation and test pictures; image_id is COCO's own number."""

    def image_id(self, record: Record) -> str:
        return coco_image_id(record)
