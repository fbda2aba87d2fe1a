"""Pictures with captions streamed from webdataset shards (tar files), endlessly and repeatably."""

import glob
import json
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import braceexpand
import webdataset as wds
from PIL import Image
from webdataset.tariterators import tarfile_samples
from webdataset.utils import pytorch_worker_info

from lavis_evlgen.datasets.bad_samples import BadSample, collate, decode_picture
from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.rng import seeded

logger = logging.getLogger(__name__)

PICTURES = ("jpg", "jpeg", "png", "webp")
MOST_BAD_IN_A_ROW = 1000

Name = tuple[int, int, int, int]  # seed, epoch, reader, number in the epoch: seeds a sample's augmentation


def expand_shards(shards: str | Sequence[str], key: str = "shards") -> list[str]:
    """Paths or URLs of the shards that braces ("{00000..00010}.tar"), a glob or a list name.

    Missing files are left out with a warning; ``key`` is the configuration key that errors name.

    Raises:
        DataError: nothing is named, or none of the files exists.
    """
    patterns = [shards] if isinstance(shards, str) else list(shards or ())
    if not patterns:
        raise DataError(f"no shards given: set {key}, for example to 'data/{{00000..00010}}.tar'")
    named: list[str] = []
    for pattern in patterns:
        for path in braceexpand.braceexpand(os.path.expanduser(str(pattern))):
            named.extend(sorted(glob.glob(path)) or [path])
    present = [path for path in named if _is_remote(path) or os.path.isfile(path)]
    if not present:
        raise DataError(f"none of the {len(named)} shards of {key} exists: looked for {os.path.abspath(named[0])}")
    if len(present) < len(named):
        absent = next(path for path in named if path not in set(present))
        logger.warning("%s: %d of %d shards are missing, e.g. %s", key, len(named) - len(present), len(named), absent)
    return present


def _is_remote(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")


class ImageCaptionStream(wds.DataPipeline):
    """Endless stream of ``{"image", "text_input": str, "image_id": "shard/key"}`` from shards of pictures and captions.

    A sample's files share a name: a picture (jpg, jpeg, png, webp) and its caption, in .json under ``caption_key`` or
    as a .txt. Every (rank, worker) reads its own shards, or every n-th sample of a shared one where readers outnumber
    shards. One pass over the shards is an epoch; shard order depends on (seed, epoch), the shuffling of samples and
    the augmentation also on rank and worker, so that the stream is the same in every run.

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

    def collater(self, samples: Sequence[Any]) -> dict[str, Any]:
        return collate(samples)

    def set_position(self, samples_seen: int, batch_size: int = 1) -> None:
        """Start behind the first ``samples_seen`` items (of all ranks together), which are read but not decoded.

        Call it before a loader starts its workers, also with 0 for a fresh start, and with the loader's batch size
        per rank when it has several workers: these deliver batches in turn, and the first worker of a new loader has
        to continue where the turn stood.
        """
        if samples_seen < 0:
            raise ValueError(f"samples_seen must not be negative, but is {samples_seen}")
        self._samples_seen, self._batch_size = samples_seen, batch_size
        self.yield_bad_samples = True

    def __iter__(self) -> Iterator[Any]:
        rank, world_size, worker, workers = pytorch_worker_info()
        batches = self._samples_seen // (self._batch_size * world_size)
        role = (worker + batches) % workers
        own_batches = batches // workers + (role < batches % workers)
        samples = self._raw(rank * workers + role, world_size * workers)
        skipped = 0
        for name, raw in islice(samples, own_batches * self._batch_size, None):
            item = self._decode(raw, name)
            if self.yield_bad_samples or not isinstance(item, BadSample):
                skipped = 0
                yield item
                continue
            skipped += 1
            logger.warning("skipped %s", item)
            if skipped >= MOST_BAD_IN_A_ROW:
                raise DataError(f"{skipped} damaged samples in a row, the last one {item}")

    def _raw(self, slot: int, slots: int) -> Iterator[tuple[Name, dict[str, Any]]]:
        """Undecoded samples of one reader out of ``slots``, epoch after epoch, each with its name."""
        sharing = -(-slots // len(self.shards))  # readers of one shard
        epoch = 0
        while True:
            shards = list(self.shards)
            random.Random(f"{self.seed}-{epoch}").shuffle(shards)
            if sharing == 1:
                samples = _samples(shards[slot::slots])
            else:
                readers = range(slot % len(shards), slots, len(shards))
                samples = _every(_samples([shards[slot % len(shards)]]), len(readers), slot // len(shards))
            rng = random.Random(f"{self.seed}-{epoch}-{slot}")
            number = -1
            for number, sample in enumerate(_shuffled(samples, self.shuffle_buffer, rng)):
                yield (self.seed, epoch, slot, number), sample
            if number < 0:
                raise DataError(f"the shards hold no sample for reader {slot + 1} of {slots}, e.g. {shards[0]}")
            epoch += 1

    def _decode(self, raw: dict[str, Any], name: Name) -> dict[str, Any] | BadSample:
        """The processed sample; its augmentation depends on ``name`` alone, so a resumed run sees the same one."""
        image_id = f"{os.path.basename(raw['__url__']).removesuffix('.tar')}/{raw['__key__']}"
        try:
            if "__error__" in raw:
                raise ValueError(raw["__error__"])
            files = {suffix.rsplit(".", 1)[-1]: data for suffix, data in raw.items() if not suffix.startswith("__")}
            data = next((files[kind] for kind in PICTURES if kind in files), None)
            if data is None:
                raise ValueError(f"no picture ({', '.join(PICTURES)}) beside {', '.join(files) or 'nothing'}")
            picture, captions = decode_picture(data), self._captions(files)
        except ValueError as error:
            return BadSample(f"{raw['__url__']}#{raw['__key__']}", str(error))
        with seeded(*name):
            text = random.choice(captions)
            return {
                "image": self.vis_processor(picture),
                "text_input": self.text_processor(text),
                "image_id": image_id,
            }

    def _captions(self, files: dict[str, bytes]) -> list[str]:
        if "json" in files:
            fields = json.loads(files["json"])
            if not isinstance(fields, dict) or self.caption_key not in fields:
                raise ValueError(f"the .json has no key {self.caption_key!r} (caption_key)")
            caption = fields[self.caption_key]
        elif "txt" in files:
            caption = files["txt"].decode()
        else:
            raise ValueError("neither .json nor .txt for the caption")
        captions = [caption] if isinstance(caption, str) else caption
        if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
            raise ValueError(f"the caption is {str(caption)[:40]!r}, not text")
        captions = [text.strip() for text in captions if text.strip()]
        if not captions:
            raise ValueError("empty caption")
        return captions


def _samples(shards: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Samples of the shards as dicts of suffix to bytes; what cannot be read of a shard ends in one ``__error__``."""
    for shard in shards:
        errors: list[str] = []

        def note(error: Exception, errors: list[str] = errors) -> bool:
            errors.append(str(error.args[0]) if error.args else type(error).__name__)
            return True

        yield from tarfile_samples([{"url": shard}], handler=note)
        if errors:
            yield {"__url__": shard, "__key__": "*", "__error__": f"damaged shard ({errors[0]})"}


def _every(samples: Iterable[Any], readers: int, own: int) -> Iterator[Any]:
    """Every ``readers``-th sample from the ``own``-th on; of fewer samples than readers, all."""
    few = []
    for number, sample in enumerate(samples):
        if number < readers:
            few.append(sample)
        if number % readers == own:
            yield sample
    if len(few) <= own:
        yield from few


def _shuffled(samples: Iterable[Any], size: int, rng: random.Random) -> Iterator[Any]:
    """Samples drawn from a buffer of ``size`` that the stream keeps filling; its rest comes last."""
    buffer: list[Any] = []
    for sample in samples:
        buffer.append(sample)
        if len(buffer) > size:
            drawn = rng.randrange(len(buffer))
            buffer[drawn], buffer[-1] = buffer[-1], buffer[drawn]
            yield buffer.pop()
    rng.shuffle(buffer)
    yield from buffer
