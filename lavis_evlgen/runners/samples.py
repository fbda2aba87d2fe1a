"""Samples and batches: which sample comes when, each with its own random numbers, and where a batch lives."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lavis.datasets.data_utils import apply_to_sample
from torch.utils.data import ConcatDataset, Dataset, Sampler, default_collate

from lavis_evlgen.runners import rng

Key = tuple[int, int]  # (epoch, index)
GRACE_SECONDS = 60


class SeededSamples(Dataset):
    """A map-style data set asked by (epoch, index); the pair and ``seed`` fix every random number of the sample.

    Augmentation is therefore the same under any number of workers and after a resume, and making a sample in the
    training process does not disturb the model's dropout.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        with rng.seeded(self.seed, epoch, index):
            return self.dataset[index]


class EpochBatches(Sampler):
    """Endless batches of (epoch, index) for one rank, from any position on.

    The order of an epoch is a permutation seeded by (seed, epoch). Consecutive runs of ``batch_size * world_size``
    indices are one global batch; rank r takes the r-th part, so the global batch does not depend on how many
    processes share it. The tail that fills no global batch is dropped; a data set smaller than one is repeated.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.global_batch = batch_size * world_size
        self.per_epoch = max(1, length // self.global_batch)
        self.start = 0  # batches that are not wanted again

    def order(self, epoch: int) -> torch.Tensor:
        """Permutation of the indices, repeated until it fills a global batch."""
        generator = torch.Generator().manual_seed(rng.derived_seed(self.seed, epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).repeat(-(-self.global_batch // self.length))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, batch = divmod(self.start, self.per_epoch)
        while True:
            order = self.order(epoch)
            for position in range(batch, self.per_epoch):
                first = position * self.global_batch + self.rank * self.batch_size
                yield [(epoch, index) for index in order[first : first + self.batch_size].tolist()]
            epoch, batch = epoch + 1, 0


def collater(dataset: Any) -> Callable[[list[Any]], Any]:
    """How samples of a data set become a batch: its ``collater``, that of its first part, or torch's default."""
    if isinstance(dataset, ConcatDataset):
        return _SharedKeys(collater(dataset.datasets[0]))
    return getattr(dataset, "collater", None) or default_collate


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
