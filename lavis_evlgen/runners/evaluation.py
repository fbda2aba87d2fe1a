"""Evaluation batches: every sample once over all ranks, on CPU or GPU."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.bad_samples import BadSampleTally
from lavis_evlgen.runners.data_workers import Batches
from lavis_evlgen.runners.samples import SeededSamples, collater
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sharding import in_step
from lavis_evlgen.runners.sources import quiet_loader
from lavis_evlgen.runners.trainable import batch_size


class EvalLoader:
    """Batches of one evaluation split; rank r takes the samples r, r + world_size, ...

    ``between_batches`` is called before each batch. Batches without any readable sample are left out unless
    ``empty_batches``: LAVIS's tasks fail on them. With ``together`` all ranks get equally many, see :func:`in_step`.
    """

    def __init__(
        self,
        dataset: Any,
        settings: RunSettings,
        rank: int = 0,
        world_size: int = 1,
        between_batches: Callable[[], None] = lambda: None,
        empty_batches: bool = False,
        together: bool = False,
        name: str = "evaluation",
    ) -> None:
        self.dataset = dataset  # tasks ask the loader for it
        self._between_batches = between_batches
        self._empty_batches = empty_batches
        self.together = together
        self._name = name
        if not settings.use_dist_eval_sampler:
            rank, world_size = 0, 1
        options: dict[str, Any] = {"batch_size": settings.batch_size_eval, "collate_fn": collater(dataset)}
        sizes: list[int] = []
        if not isinstance(dataset, IterableDataset):
            options["sampler"] = [(0, index) for index in range(rank, len(dataset), world_size)]
            sizes = [len(dataset), len(options["sampler"])]
            dataset = SeededSamples(dataset, settings.seed)
        self.tally = BadSampleTally(settings.max_bad_share, *sizes)
        self._loader: DataLoader = quiet_loader(dataset, settings, **options)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.together:
            return in_step(self._batches())
        return (batch for batch in self._batches() if batch_size(batch) or self._empty_batches)

    def _batches(self) -> Iterator[dict[str, Any]]:
        for batch in Batches(self._loader, self._name):
            ACTIVITY.move()
            self._between_batches()
            self.tally.show(batch)
            self.tally.add(batch_size(batch), len(batch.get("bad_samples", ())))
            yield batch
