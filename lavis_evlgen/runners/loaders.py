"""Training batches that can be resumed at any step, and evaluation batches without duplicates."""

import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lavis_evlgen.datasets.streams import POSITION
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.distributed import gathered
from lavis_evlgen.runners.mixture import Turns, grouped
from lavis_evlgen.runners.samples import EpochBatches, SeededSamples, collater, start_worker
from lavis_evlgen.runners.settings import RunSettings


def quiet_loader(dataset: Dataset, seed: int, num_workers: int, **options: Any) -> DataLoader:
    """A DataLoader that draws nothing from the global generators."""
    return DataLoader(
        dataset,
        num_workers=num_workers,
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
        options = {"batch_sampler": self.batches, "collate_fn": collater(dataset)}
        self._loader = quiet_loader(samples, settings.seed, settings.num_workers, **options)
        self._iterator: Iterator[Any] | None = None
        self._delivered = 0

    @property
    def epoch_length(self) -> int:
        """Batches in one pass over the data."""
        return self.batches.per_epoch

    def __next__(self) -> dict[str, Any]:
        if self._iterator is None:
            self.batches.start = self._delivered
            self._iterator = iter(self._loader)
        batch = next(self._iterator)
        self._delivered += 1
        return batch

    def position(self) -> dict[str, int]:
        epoch, batch = divmod(self._delivered, self.epoch_length)
        return {"epoch": epoch, "samples": batch * self.batches.global_batch}

    def seek(self, position: Mapping[str, int]) -> None:
        """Go on after ``samples`` samples (over all ranks) of ``epoch``; nothing is loaded to get there."""
        batch = min(position["samples"] // self.batches.global_batch, self.epoch_length)
        self.close()
        self._delivered = position["epoch"] * self.epoch_length + batch

    def close(self) -> None:
        """End the worker processes."""
        self._iterator = None


class IterableStream:
    """Endless batches of an IterableDataset; the data set itself shares samples among ranks and workers.

    Before its workers start, ``dataset.set_position(samples)`` is called with the number of samples that all ranks
    have seen; a data set without it starts again from its beginning. Where it also takes ``batch_size`` and
    ``readers``, it is given the batch size and what its batches noted under ``POSITION`` (see
    :class:`ImageCaptionStream`), which spares it reading its way there. ``set_epoch(n)``, if there is one, is called
    before pass n.
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
        self._loader = quiet_loader(
            dataset, settings.seed, settings.num_workers, batch_size=settings.batch_size_train, **collate
        )
        self._iterator: Iterator[Any] | None = None
        self._delivered = 0
        self._epoch = 0
        workers = max(1, settings.num_workers)
        self._own_readers = range(rank * workers, (rank + 1) * workers)
        self._count = workers * world_size  # of readers
        self._readers: dict[int, list[int]] = {}  # where those of this rank stood behind their last batch
        self._place(0, {})

    def _place(self, samples: int, readers: Mapping[str, Any]) -> None:
        if hasattr(self._dataset, "set_position"):
            options = {"batch_size": self._batch_size, "readers": readers}
            taken = inspect.signature(self._dataset.set_position).parameters
            self._dataset.set_position(samples, **{key: value for key, value in options.items() if key in taken})
        elif samples:
            logging.warning("datasets.%s cannot be resumed within a pass: it starts from its beginning.", self.name)

    def __next__(self) -> dict[str, Any]:
        with rng.seeded(*self._seed, self._delivered):
            batch = self._next_of_pass()
        self._delivered += 1
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
                self._iterator = iter(self._loader)
            try:
                return next(self._iterator)
            except StopIteration:
                self._iterator = None
                self._epoch += 1
        raise DataError(f"datasets.{self.name}: the stream gives no sample")

    def position(self) -> dict[str, Any]:
        """Every rank must call it: each adds its readers."""
        place = {"epoch": self._epoch, "samples": self._delivered * self._global_batch}
        readers = {reader: position for own in gathered(self._readers) for reader, position in own.items()}
        return {**place, "readers": {"count": self._count, "positions": readers}} if readers else place

    def seek(self, position: Mapping[str, Any]) -> None:
        self.close()
        self._epoch = position["epoch"]
        self._delivered = position["samples"] // self._global_batch
        readers = position.get("readers", {})
        known = readers["positions"] if readers.get("count") == self._count else {}
        self._readers = {reader: place for reader, place in known.items() if reader in self._own_readers}
        self._place(position["samples"], readers)

    def close(self) -> None:
        self._iterator = None


class TrainLoader:
    """Endless training batches from one or several data sets; batch k comes from the same one on every rank."""

    def __init__(
        self,
        datasets: Mapping[str, list[Dataset]],
        settings: RunSettings,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """``datasets`` maps each name to its training splits; ``settings.train_dataset_ratios`` may weigh the names."""
        self.settings = settings
        groups, weights = grouped(datasets, settings.train_dataset_ratios)
        self.streams = [
            (IterableStream if isinstance(data, IterableDataset) else MapStream)(name, data, settings, rank, world_size)
            for name, data in groups.items()
        ]
        self._turns = Turns(weights)
        self.step = 0

    @property
    def epoch_length(self) -> int | None:
        """Batches a rank makes of one pass over the data; None for mixtures and streams."""
        return self.streams[0].epoch_length if len(self.streams) == 1 else None

    def choice(self, step: int) -> int:
        """Number of the stream that batch ``step`` comes from."""
        return self._turns(step)

    def __iter__(self) -> "TrainLoader":
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.streams[self.choice(self.step)])
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Step and positions. Every rank must call it."""
        return {"step": self.step, "positions": {each.name: each.position() for each in self.streams}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Jump to a saved position; raises ConfigError when it is that of other data sets."""
        names = {stream.name for stream in self.streams}
        if names != set(state["positions"]):
            raise ConfigError(
                f"the checkpoint was trained on {', '.join(sorted(state['positions']))}, but the configuration "
                f"trains on {', '.join(sorted(names))}: give the run another run.output_dir"
            )
        self.step = state["step"]
        for stream in self.streams:
            stream.seek(state["positions"][stream.name])

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
