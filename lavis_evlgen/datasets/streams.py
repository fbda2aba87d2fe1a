"""Pictures with captions streamed from webdataset shards (tar files), endlessly and repeatably."""

import hashlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import webdataset as wds
from PIL import Image
from webdataset.utils import pytorch_worker_info

from lavis_evlgen.datasets.bad_samples import BadSample, collate, decode_picture
from lavis_evlgen.datasets.shard_readers import Name, Read, Readers, plain, taken_over
from lavis_evlgen.datasets.shards import picture_and_captions
from lavis_evlgen.datasets.whole_files import digest
from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.rng import restored, seed_cpu

logger = logging.getLogger(__name__)

MOST_BAD_IN_A_ROW = 1000
POSITION = "stream_position"
"""Key of a batch under which :meth:`ImageCaptionStream.collater` notes (readers, reader, \\*position)."""


class ImageCaptionStream(wds.DataPipeline):
    """Endless stream of ``{"image", "text_input": str, "image_id": "shard/key"}`` from shards of pictures and captions.

    A sample's files share a name: a picture (jpg, jpeg, png, webp) and its caption, in .json under ``caption_key`` or
    as a .txt. Every (rank, worker) reads its own shards, and every n-th sample of a shared one where the shards do not
    go evenly into the readers. One pass over the shards is an epoch; shard order depends on (seed, epoch), the
    shuffling of samples and the augmentation also on rank and worker, so that the stream is the same in every run.
    Samples are shuffled in blocks of ``shuffle_buffer``, which is what a reader holds in memory.

    It is an IterableDataset, and a DataPipeline because LAVIS's stock runners take no other one. Those cannot handle
    a :class:`BadSample`: unless :meth:`set_position` was called or ``yield_bad_samples`` is set, damaged samples are
    skipped and counted in the log. A loader that restores its position has to see, and count, every item.
    """

    def __init__(
        self,
        shards: Sequence[str],
        vis_processor: Callable[[Image.Image], Any],
        text_processor: Callable[[str], str],
        caption_key: str = "caption",
        shuffle_buffer: int = 1000,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.shards = list(shards)
        self.vis_processor = vis_processor
        self.text_processor = text_processor
        self.caption_key = caption_key
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.yield_bad_samples = False
        self._samples_seen, self._batch_size = 0, 1
        self._readers: Mapping[str, Any] | None = None
        self._now: tuple[Any, ...] | None = None

    @property
    def order(self) -> str:
        """Changes with all that positions depend on; the shards may lie elsewhere."""
        return digest([[os.path.basename(shard) for shard in self.shards], self.seed, self.shuffle_buffer])

    def collater(self, samples: Sequence[Any]) -> dict[str, Any]:
        """A batch of the good samples; with the reader's position behind them where positions are kept."""
        batch = collate(samples)
        return batch if self._readers is None or self._now is None else {**batch, POSITION: self._now}

    def set_position(self, samples_seen: int, batch_size: int = 1, readers: Mapping[str, Any] | None = None) -> None:
        """Start behind the first ``samples_seen`` items (of all ranks together), which are not decoded again.

        Call it before a loader starts its workers, also with 0 for a fresh start, and with the loader's batch size
        per rank when it has several workers: these deliver batches in turn, and the first worker of a new loader has
        to continue where the turn stood.

        Args:
            readers: ``{"count": n, "positions": {reader: position}, "batches": those of each rank}``, positions as
                batches noted them under ``POSITION``, or {} at the start. With it, batches note positions, and each
                reader goes straight to its own; when the number of readers has changed, those of now first share what
                those of then had not read of their pass. Without it, all earlier samples are read to find the place.
                With it, reading also leaves torch's, NumPy's and Python's generators changed, as a loader's worker may.
        """
        if samples_seen < 0:
            raise ValueError(f"samples_seen must not be negative, but is {samples_seen}")
        self._samples_seen, self._batch_size, self._readers = samples_seen, batch_size, readers
        self.yield_bad_samples = True

    def __iter__(self) -> Iterator[Any]:
        rank, world_size, worker, workers = pytorch_worker_info()
        noted = self._readers or {}
        batches = noted.get("batches", self._samples_seen // (self._batch_size * world_size))
        role = (worker + batches) % workers
        reader, readers = rank * workers + role, world_size * workers
        unwanted = 0 if noted else (batches // workers + (role < batches % workers)) * self._batch_size
        if unwanted:
            logger.warning("%s, ...: reading past %d samples to find the place", self.shards[0], unwanted)
        skipped = 0
        for name, raw, position in islice(self._raw(reader, readers), unwanted, None):
            item = self._decode(raw, name)
            if self.yield_bad_samples or not isinstance(item, BadSample):
                skipped = 0
                self._now = (readers, reader, *plain(position))
                yield item
                continue
            skipped += 1
            logger.warning("skipped %s", item)
            if skipped >= MOST_BAD_IN_A_ROW:
                raise DataError(f"{skipped} damaged samples in a row, the last one {item}")

    def _raw(self, reader: int, readers: int) -> Iterator[Read]:
        """Undecoded samples of one of ``readers`` from its noted place on, epoch after epoch."""
        noted = taken_over(self._readers or {"count": readers, "positions": {}}, readers)
        return Readers(self.shards, self.seed, self.shuffle_buffer, noted).samples(reader)

    def _decode(self, raw: dict[str, Any], name: Name) -> dict[str, Any] | BadSample:
        """The processed sample; its augmentation depends on ``name`` alone, so a resumed run sees the same one."""
        try:
            if "__error__" in raw:
                raise ValueError(raw["__error__"])
            data, captions = picture_and_captions(raw, self.caption_key)
            picture = decode_picture(data)
        except ValueError as error:
            return BadSample(f"{raw['__url__']}#{raw['__key__']}", str(error))
        if self._readers is not None:  # a loader that keeps positions keeps the caller's generators too
            return self._item(picture, captions, raw, name)
        with restored():
            return self._item(picture, captions, raw, name)

    def _item(self, picture: Image.Image, captions: list[str], raw: dict[str, Any], name: Name) -> dict[str, Any]:
        seed_cpu(int.from_bytes(hashlib.blake2b(repr(name).encode(), digest_size=8).digest(), "little"))
        text = captions[0] if len(captions) == 1 else random.choice(captions)
        return {
            "image": self.vis_processor(picture),
            "text_input": self.text_processor(text),
            "image_id": f"{os.path.basename(raw['__url__']).removesuffix('.tar')}/{raw['__key__']}",
        }
