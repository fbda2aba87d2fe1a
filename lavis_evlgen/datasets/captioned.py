"""What data sets of captioned files share: records, one item per caption to train on, one per file to evaluate."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lavis.datasets.datasets.base_dataset import BaseDataset

from lavis_evlgen.datasets.bad_samples import BadSample, collate
from lavis_evlgen.datasets.record_table import RecordTable
from lavis_evlgen.datasets.records import NOUNS, Kind, Record, read_records
from lavis_evlgen.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

MANY = 200_000  # records from which on they are kept in a block of memory that workers share


class CaptionedFiles(BaseDataset):
    """Records of annotation files and the files they name; the arguments are those of LAVIS's data sets."""

    kind: Kind = "image"
    read: Callable[..., list[Record]] = staticmethod(read_records)
    need_captions = True

    def __init__(
        self,
        vis_processor: Callable[[Any], Any] | None = None,
        text_processor: Callable[[str], str] | None = None,
        vis_root: str = ".",
        ann_paths: Sequence[str] = (),
        **reading: Any,
    ) -> None:
        """
        Args:
            vis_processor, text_processor: applied to pictures or clips and to captions; None leaves them as they are.
            vis_root: folder that the records' paths are relative to.
            ann_paths: annotation files, see :func:`lavis_evlgen.datasets.records.read_records`.
            reading: further arguments of what reads them.
        """
        super().__init__(vis_processor, text_processor, vis_root)
        records = [record for path in ann_paths for record in self.read(path, self.need_captions, self.kind, **reading)]
        for record in records:
            record.image_id = self.image_id(record)
        self.records: Sequence[Record] = RecordTable(records) if len(records) > MANY else records

    def image_id(self, record: Record) -> str:
        return record.image_id

    def record(self, index: int) -> Record:
        """The record that item ``index`` is made of."""
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def collater(self, samples: Sequence[Any]) -> dict[str, Any]:
        return collate(samples)

    def file(self, record: Record) -> Path:
        """Where a record's picture or clip lies."""
        return Path(os.path.expanduser(self.vis_root)) / record.file

    def ground_truth(self) -> dict[str, list[str]]:
        """All captions by image_id, unprocessed, of the files that have any."""
        return {record.image_id: list(record.captions) for record in self.records if record.captions}

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        """What the item shows, under its key."""
        raise NotImplementedError

    def _text(self, caption: str) -> str:
        return self.text_processor(caption) if self.text_processor else caption


class CaptionItems(CaptionedFiles):
    """For training: ``{..., "text_input": str, "image_id": str}`` or a BadSample.

    ``captions="all"`` has one item per (file, caption) pair, ``"first"`` one per file with its first caption,
    ``"random"`` one per file whose caption is drawn anew, with torch's generator, each time it is read.
    """

    def __init__(self, *args: Any, captions: Literal["all", "first", "random"] = "all", **kwargs: Any) -> None:
        if captions not in ("all", "first", "random"):
            raise ConfigError(f"captions: {captions!r} is unknown; use 'all', 'first' or 'random'")
        super().__init__(*args, **kwargs)
        self.captions = captions
        self._ends = np.cumsum([len(record.captions) for record in self.records], dtype=np.int64)

    def __len__(self) -> int:
        if self.captions != "all":
            return len(self.records)
        return int(self._ends[-1]) if len(self._ends) else 0

    def _locate(self, index: int) -> tuple[int, int]:
        """(record, caption) numbers of an item; the caption is -1 where it is to be drawn."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        if self.captions != "all":
            return index, 0 if self.captions == "first" else -1
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)

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


class ReferenceItems(CaptionedFiles):
    """For evaluation: ``{..., "image_id", "instance_id", "text_input"}`` per file, or a BadSample.

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
            nouns = NOUNS[self.kind] + "s"
            logger.warning(
                "%d of %d %s have no reference caption; these are not scored", bare, len(self.records), nouns
            )

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
