"""Pictures with captions streamed from webdataset shards (tar files), endlessly and repeatably."""

import hashlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import webdataset as wds
from PIL import Image
from webdataset.utils import pytorch_worker_info

from lavis_evlgen.datasets.bad_samples import BadSample, collate, decode_picture
from lavis_evlgen.datasets.shards import picture_and_captions, read_shard
from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.rng import restored, seed_cpu

logger = logging.getLogger(__name__)

MOST_BAD_IN_A_ROW = 1000
POSITION = "stream_position"
"""Key of a batch under which :meth:`ImageCaptionStream.collater` notes (readers, reader, \\*ReaderPosition)."""

Name = tuple[int, int, int, int]  # seed, epoch, reader, number in the epoch: seeds a sample's augmentation
Found = tuple[int, int, dict[str, Any]]  # number of the shard among the reader's, number in the shard, the files


class Share(NamedTuple):
    """Every ``readers``-th sample of a shard from number ``own`` on."""

    path: str
    readers: int = 1
    own: int = 0


class ReaderPosition(NamedTuple):
    """Behind the ``seen``-th sample of a reader's ``epoch``; its present block starts at ``offset`` of ``shard``."""

    epoch: int = 0
    shard: int = 0
    offset: int = 0
    seen: int = 0


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
        self._now: tuple[int, ...] | None = None

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
            readers: ``{"count": n, "positions": {reader: ReaderPosition}}`` of all ranks, as batches noted them under
                ``POSITION``, or {} at the start; with it, batches note positions, and each reader goes straight to its
                own. Without it, or when the number of readers has changed, all earlier samples are read to find the
                place. With it, reading also leaves torch's, NumPy's and Python's generators changed, as a loader's
                worker may.
        """
        if samples_seen < 0:
            raise ValueError(f"samples_seen must not be negative, but is {samples_seen}")
        self._samples_seen, self._batch_size, self._readers = samples_seen, batch_size, readers
        self.yield_bad_samples = True

    def __iter__(self) -> Iterator[Any]:
        rank, world_size, worker, workers = pytorch_worker_info()
        batches = self._samples_seen // (self._batch_size * world_size)
        role = (worker + batches) % workers
        reader, readers = rank * workers + role, world_size * workers
        start, unwanted = self._place(reader, readers), 0
        if start is None:
            unwanted = (batches // workers + (role < batches % workers)) * self._batch_size
            if unwanted:
                logger.warning("%s, ...: reading past %d samples to find the place", self.shards[0], unwanted)
        skipped = 0
        for name, raw, position in islice(self._raw(reader, readers, start), unwanted, None):
            item = self._decode(raw, name)
            if self.yield_bad_samples or not isinstance(item, BadSample):
                skipped = 0
                self._now = (readers, reader, *position)
                yield item
                continue
            skipped += 1
            logger.warning("skipped %s", item)
            if skipped >= MOST_BAD_IN_A_ROW:
                raise DataError(f"{skipped} damaged samples in a row, the last one {item}")

    def _place(self, reader: int, readers: int) -> ReaderPosition | None:
        """Where a reader stood, if that was noted."""
        noted = self._readers or {}
        if noted.get("count") != readers or reader not in noted["positions"]:
            return None
        return ReaderPosition(*noted["positions"][reader])

    def _raw(
        self, reader: int, readers: int, start: ReaderPosition | None = None
    ) -> Iterator[tuple[Name, dict[str, Any], ReaderPosition]]:
        """Undecoded samples of one of ``readers``, epoch after epoch, each with its name and the place behind it."""
        start = start or ReaderPosition()
        while True:
            seen = start.seen
            for shard, offset, sample in self._epoch(reader, readers, start):
                seen += 1
                yield (
                    (self.seed, start.epoch, reader, seen - 1),
                    sample,
                    ReaderPosition(start.epoch, shard, offset, seen),
                )
            if not seen:
                raise DataError(
                    f"the shards hold no sample for reader {reader + 1} of {readers}, e.g. {self.shards[0]}"
                )
            start = ReaderPosition(start.epoch + 1)

    def _epoch(self, reader: int, readers: int, start: ReaderPosition) -> Iterator[Found]:
        """What is left of a reader's epoch, shuffled; each sample under the place where its block starts."""
        shards = list(self.shards)
        random.Random(f"{self.seed}-{start.epoch}").shuffle(shards)
        samples = _samples(_shares(shards, reader, readers), start.shard, start.offset)
        size = max(1, self.shuffle_buffer)
        first = max(0, start.seen - 1) // size  # block

        def shuffle(block: list[Found], number: int) -> None:
            random.Random(f"{self.seed}-{start.epoch}-{reader}-{first + number}").shuffle(block)

        return islice(_blockwise(samples, size, shuffle), start.seen - first * size, None)

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


def _shares(shards: Sequence[str], reader: int, readers: int) -> list[Share]:
    """What one reader reads of the shards: as many whole ones as all others, and a part of one of the rest.

    Where as many readers share each of the rest, all read equally much, and end their epochs together.
    """
    whole = len(shards) // readers * readers
    shares = [Share(path) for path in shards[reader:whole:readers]]
    if rest := shards[whole:]:
        number = reader % len(rest)
        shares.append(Share(rest[number], len(range(number, readers, len(rest))), reader // len(rest)))
    return shares


def _samples(shares: Sequence[Share], shard: int, offset: int) -> Iterator[Found]:
    """The samples of the shares from the ``offset``-th of number ``shard`` on, each with its place."""
    for number, (path, readers, own) in enumerate(shares[shard:], shard):
        skipped = offset if number == shard else 0
        few, place = [], -1
        for place, sample in enumerate(read_shard(path)):
            if place < readers:
                few.append(sample)
            if place >= skipped and place % readers == own:
                yield number, place, sample
        if 0 <= place < own and len(shares) == 1:  # fewer samples than readers: nobody goes without
            yield number, 0, few[own % len(few)]


def _blockwise(samples: Iterator[Found], size: int, shuffle: Callable[[list[Found], int], None]) -> Iterator[Found]:
    """Samples in shuffled blocks of ``size``, each under the place where its block starts.

    While one block goes out the next one is read, sample for sample, so that reading is spread evenly.
    """
    block, number = list(islice(samples, size)), 0
    while block:
        shard, offset, _ = block[0]
        shuffle(block, number)
        following: list[Found] = []
        while block:
            yield shard, offset, block.pop()[2]
            following.extend(islice(samples, 1))
        block, number = following, number + 1
