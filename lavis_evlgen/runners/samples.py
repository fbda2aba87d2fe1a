"""Samples and batches: which sample comes when, each with its own random numbers, and where a batch lives."""

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lavis.datasets.data_utils import apply_to_sample
from torch.utils.data import ConcatDataset, Dataset, Sampler, default_collate, get_worker_info

from lavis_evlgen.runners import rng

Key = tuple[int, int]  # (epoch, index)
GRACE_SECONDS = 60
MOST_WORKERS = 256  # of which it is known what they read


class SeededSamples(Dataset):
    """A map-style data set asked by (epoch, index); the pair and ``seed`` fix every random number of the sample.

    Augmentation is therefore the same under any number of workers and after a resume, and making a sample in the
    training process does not disturb the model's dropout.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.reading = torch.full((MOST_WORKERS,), -1).share_memory_()  # index at which each worker is

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        worker = get_worker_info()
        if worker is not None and worker.id < MOST_WORKERS:
            self.reading[worker.id] = index
        with rng.seeded(self.seed, epoch, index):
            return self.dataset[index]


class Place(NamedTuple):
    """Where an endless run through the data stands: ``samples`` of ``epoch`` are taken, over all ranks.

    ``rest``: what is left of this epoch was shared anew when the global batch changed, so its tail is not dropped.
    """

    epoch: int = 0
    samples: int = 0
    rest: bool = False


class EpochBatches(Sampler):
    """Endless batches of (epoch, index) for one rank, from any place on.

    The order of an epoch is a permutation seeded by (seed, epoch). Consecutive runs of ``batch_size * world_size``
    indices are one global batch; rank r takes the r-th part, so the global batch does not depend on how many
    processes share it. The tail that fills no global batch is dropped; a data set smaller than one is repeated. Of the
    ``rest`` of an epoch the tail is one smaller batch, of which a rank may get nothing.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.per_epoch = max(1, length // self.global_batch)
        self.start = Place()

    def order(self, epoch: int) -> torch.Tensor:
        """Permutation of the indices, repeated until it fills a global batch."""
        generator = torch.Generator().manual_seed(rng.derived_seed(self.seed, epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).repeat(-(-self.global_batch // self.length))

    def remaining(self, place: Place) -> int:
        """Samples that the epoch still shows from ``place`` on."""
        return (self.length if place.rest else self.per_epoch * self.global_batch) - place.samples

    def after(self, place: Place) -> Place:
        """Behind the global batch that begins at ``place``."""
        if self.remaining(place) <= self.global_batch:
            return Place(place.epoch + 1)
        return place._replace(samples=place.samples + self.global_batch)

    def __iter__(self) -> Iterator[list[Key]]:
        place = self.start
        while True:
            epoch, order = place.epoch, self.order(place.epoch)
            while place.epoch == epoch:
                size = min(self.global_batch, self.remaining(place))
                first, end = (place.samples + size * r // self.world_size for r in (self.rank, self.rank + 1))
                yield [(epoch, index) for index in order[first:end].tolist()]
                place = self.after(place)


def collater(dataset: Any) -> Callable[[list[Any]], Any]:
    """How samples of a data set become a batch: its ``collater``, that of its first part, or torch's default."""
    if isinstance(dataset, ConcatDataset):
        return _SharedKeys(collater(dataset.datasets[0]))
    return getattr(dataset, "collater", None) or default_collate


class NothingOrBatch:
    """Collates as ``collate`` does; no samples at all are an empty batch, which few collaters make of them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return self.collate(samples) if samples else {}


class _SharedKeys:
    """Collates dicts of several data sets by the keys that all of them have."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        dicts = [set(sample) for sample in samples if isinstance(sample, dict)]
        shared = set.intersection(*dicts) if dicts else set()
        return self.collate(
            [{k: v for k, v in s.items() if k in shared} if isinstance(s, dict) else s for s in samples]
        )


def start_worker(_worker_id: int) -> None:
    """A batch system sends SIGTERM to workers too: go on for a minute, so that the trainer can end its step."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def to_device(samples: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device``; the given dict is not changed."""
    return apply_to_sample(lambda tensor: tensor.to(device, non_blocking=True), samples)
