"""Endless batches of one data set, map-style or streamed, that can be resumed at any step."""

import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lavis_evlgen.datasets.shard_readers import at_next_epoch, taken_over, without_past
from lavis_evlgen.datasets.streams import POSITION
from lavis_evlgen.errors import DataError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.data_workers import Batches
from lavis_evlgen.runners.distributed import gathered
from lavis_evlgen.runners.samples import EpochBatches, NothingOrBatch, Place, SeededSamples, collater, start_worker
from lavis_evlgen.runners.settings import RunSettings

NOTHING_LOST = "none of them is lost or repeated"


def quiet_loader(dataset: Dataset, settings: RunSettings, **options: Any) -> DataLoader:
    """A DataLoader that draws nothing from the global generators."""
    seed, workers = settings.seed, settings.num_workers
    return DataLoader(
        dataset,
        num_workers=workers,
        timeout=settings.data_timeout if workers else 0,
        worker_init_fn=start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(rng.derived_seed(seed) % 2**63),
        **options,
    )


class MapStream:
    """Endless batches of one map-style data set for this rank."""

    def __init__(self, name: str, dataset: Any, settings: RunSettings, rank: int, world_size: int) -> None:
        if len(dataset) == 0:
            raise DataError(f"datasets.{name}: the training split is empty")
        self.name = name
        self.batches = EpochBatches(len(dataset), settings.batch_size_train, settings.seed, rank, world_size)
        if len(dataset) < self.batches.global_batch:
            logging.warning(
                "datasets.%s has %d samples, less than one batch over all processes (%d): samples are repeated.",
                name, len(dataset), self.batches.global_batch,
            )  # fmt: skip
        samples = SeededSamples(dataset, settings.seed)
        options = {"batch_sampler": self.batches, "collate_fn": NothingOrBatch(collater(dataset))}
        self._loader = quiet_loader(samples, settings, **options)
        self._iterator: Iterator[Any] | None = None
        self._place = Place()

    @property
    def epoch_length(self) -> int:
        """Batches in one pass over the data."""
        return self.batches.per_epoch

    def batches_until(self, epoch: int) -> int:
        """Batches of this rank from here to the end of the pass before number ``epoch``."""
        whole = epoch - self._place.epoch - 1
        remaining = self.batches.remaining(self._place)
        return max(0, whole * self.epoch_length + -(-remaining // self.batches.global_batch))

    def __next__(self) -> dict[str, Any]:
        if self._iterator is None:
            self.batches.start = self._place
            self._iterator = Batches(self._loader, f"datasets.{self.name}")
        batch = next(self._iterator)
        self._place = self.batches.after(self._place)
        return batch

    def position(self) -> dict[str, Any]:
        return {**self._place._asdict(), "global_batch": self.batches.global_batch, **self._order()}

    def _order(self) -> dict[str, int]:
        """What the order of every epoch depends on."""
        return {"length": self.batches.length, "seed": self.batches.seed}

    def seek(self, position: Mapping[str, Any]) -> str:
        """Go on after ``samples`` samples (over all ranks) of ``epoch``; nothing is loaded to get there.

        Returns what is different now, for the log; "" where the batches are those that would have come anyway.
        """
        self.close()
        self._place = Place(position["epoch"], position["samples"], position.get("rest", False))
        was = {key: position.get(key, value) for key, value in self._order().items()}
        if was != self._order():
            self._place = Place(position["epoch"] + 1)
            return f"the order of {self.name} is another one ({was}, now {self._order()}): its next epoch begins"
        batch = self.batches.global_batch
        anew = position["global_batch"] != batch if "global_batch" in position else position["samples"] % batch > 0
        if not (anew and self._place.samples):
            return ""
        self._place = self._place._replace(rest=True)
        remaining = self.batches.remaining(self._place)
        return f"the remaining {remaining} samples of this epoch of {self.name} are shared anew, {NOTHING_LOST}"

    def close(self) -> None:
        """End the worker processes."""
        self._iterator = None


class IterableStream:
    """Endless batches of an IterableDataset; the data set itself shares samples among ranks and workers.

    Before its workers start, ``dataset.set_position(samples)`` is called with the number of samples that all ranks
    have seen; a data set without it starts again from its beginning. Where it also takes ``batch_size`` and
    ``readers``, it is given the batch size and what its batches noted under ``POSITION`` (see
    :class:`ImageCaptionStream`), which spares it reading its way there. What that depends on it may tell as ``order``.
    ``set_epoch(n)``, if there is one, is called before pass n.
    """

    epoch_length = None

    def __init__(self, name: str, dataset: Any, settings: RunSettings, rank: int, world_size: int) -> None:
        self.name = name
        self._dataset = dataset
        self._seed = (settings.seed, rank)
        self._batch_size = settings.batch_size_train
        self._global_batch = settings.batch_size_train * world_size
        # a webdataset pipeline without a collater may give ready batches of single samples: torch collates those
        collate = {"collate_fn": collater(dataset)} if hasattr(dataset, "collater") else {}
        self._loader = quiet_loader(dataset, settings, batch_size=settings.batch_size_train, **collate)
        self._iterator: Iterator[Any] | None = None
        self._epoch = 0
        self._samples = 0  # that all ranks have seen
        self._delivered = 0  # batches
        workers = max(1, settings.num_workers)
        self._own_readers = range(rank * workers, (rank + 1) * workers)
        self._count = workers * world_size  # of readers
        self._readers: dict[int, Any] = {}  # where those of this rank stood behind their last batch
        self._before: Mapping[str, Any] | None = None  # the readers of another number whose rest is being read
        self._order: str | None = getattr(dataset, "order", None)
        self._place(0, {})

    def _place(self, samples: int, readers: Mapping[str, Any]) -> None:
        if hasattr(self._dataset, "set_position"):
            options = {"batch_size": self._batch_size, "readers": readers}
            taken = inspect.signature(self._dataset.set_position).parameters
            self._dataset.set_position(samples, **{key: value for key, value in options.items() if key in taken})
        elif samples:
            logging.warning(
                "datasets.%s cannot be resumed within a pass: it starts over, so samples seen in it come again.",
                self.name,
            )

    def __next__(self) -> dict[str, Any]:
        with rng.seeded(*self._seed, self._delivered):
            batch = self._next_of_pass()
        self._delivered += 1
        self._samples += self._global_batch
        if isinstance(batch, dict) and POSITION in batch:
            _, reader, *position = batch.pop(POSITION)
            self._readers[reader] = position
        return batch

    def _next_of_pass(self) -> dict[str, Any]:
        for _ in range(2):
            if self._iterator is None:
                if hasattr(self._dataset, "set_epoch"):
                    self._dataset.set_epoch(self._epoch)
                seed = rng.derived_seed(*self._seed, self._delivered)  # of the workers, if there are any
                self._loader.generator.manual_seed(seed % 2**63)
                self._iterator = Batches(self._loader, f"datasets.{self.name}")
            try:
                return next(self._iterator)
            except StopIteration:
                self._iterator = None
                self._epoch += 1
        raise DataError(f"datasets.{self.name}: the stream gives no sample")

    def position(self) -> dict[str, Any]:
        """Every rank must call it: each adds its readers."""
        place: dict[str, Any] = {"epoch": self._epoch, "samples": self._samples, "global_batch": self._global_batch}
        if self._order is not None:
            place["order"] = self._order
        readers = {reader: position for own in gathered(self._readers) for reader, position in own.items()}
        if not readers and self._before is None:
            return place
        noted = {"count": self._count, "positions": readers, "batches": self._delivered}
        if self._before is not None:
            noted["before"] = self._before
        return {**place, "readers": without_past(noted)}

    def seek(self, position: Mapping[str, Any]) -> str:
        """As :meth:`MapStream.seek`."""
        self.close()
        self._epoch, self._samples = position["epoch"], position["samples"]
        was = position.get("readers", {})
        self._delivered = was.get("batches", self._samples // self._global_batch)
        another = bool(was) and position.get("order", self._order) != self._order
        readers = (at_next_epoch if another else taken_over)(was, self._count) if was else {}
        self._readers = {n: place for n, place in readers.get("positions", {}).items() if n in self._own_readers}
        self._before = readers.get("before")
        self._place(self._samples, readers)
        if another:
            return f"the order of {self.name} is another one (shards, seed or shuffle_buffer): its next pass begins"
        if was and was["count"] != self._count:
            return (
                f"what {was['count']} readers had not read of their pass over {self.name} is read by {self._count}, "
                f"{NOTHING_LOST}"
            )
        if not was and self._samples and position.get("global_batch", self._global_batch) != self._global_batch:
            return f"{self.name} is told that {self._samples} samples were seen, and must itself go on from there"
        return ""

    def close(self) -> None:
        self._iterator = None
