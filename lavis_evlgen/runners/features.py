"""Frozen features from a cache on disk in the place of pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from torch import nn
from torch.utils.data import IterableDataset

from lavis_evlgen.datasets.feature_cache import FeatureCache
from lavis_evlgen.datasets.feature_table import FeatureTable
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.distributed import on_every_rank, on_rank_zero


def use_feature_cache(
    datasets: dict[str, dict[str, Any]],
    splits: Iterable[str],
    model: nn.Module,
    folder: str,
    device: torch.device,
    num_workers: int = 0,
    between_batches: Callable[[], None] = lambda: None,
) -> float:
    """Let the given splits of all data sets read the frozen ViT's features from `folder`, computed once.

    ``between_batches`` may end the process: what was finished is kept.
    Every rank must call it, and they must share the folder: each computes its part of what is missing.

    Returns:
        The seconds that computing took, now or when the cache was made, summed over processes.

    Raises:
        ConfigError: the ViT trains, a data set is streamed or augmented, or the folder holds other features.
        DataError: a file of the cache is damaged, or the disk too small.
    """
    vision: Any = getattr(model, "vision", None)
    if not getattr(vision, "frozen", False) or vision.passes_gradient:
        raise ConfigError(
            "run.feature_cache needs a model with a frozen ViT and no contextualizer in it: set model.freeze_vit: true "
            "and model.temporal: mean, or false here"
        )
    seconds = 0.0
    for name, of in datasets.items():
        for split in splits:
            dataset = of.get(split)
            if dataset is None:
                continue
            if isinstance(dataset, IterableDataset) or not hasattr(dataset, "image_key"):
                raise ConfigError(f"run.feature_cache: datasets.{name} is streamed or not one of ours; set it to false")
            cache = FeatureCache(dataset, vision, Path(folder) / f"{name}-{split}")
            dataset.features = _shared_table(cache, device, num_workers, between_batches)
            seconds += dataset.features.seconds
    return round(seconds, 1)


def _shared_table(
    cache: FeatureCache, device: torch.device, num_workers: int, between_batches: Callable[[], None]
) -> FeatureTable:
    """The table of a cache that all ranks fill together."""
    shards = on_rank_zero(partial(cache.plan, get_world_size()))
    own = shards[get_rank() :: get_world_size()]
    options = {"num_workers": num_workers, "show": is_main_process(), "between_batches": between_batches}
    on_every_rank(partial(cache.compute, own, device, **options))
    table = on_rank_zero(cache.table)

    def look() -> None:
        if not table.is_visible():
            raise ConfigError(f"run.feature_cache: rank {get_rank()} does not see {table.path}: name a shared folder")

    on_every_rank(look)
    if table.bad:
        path, reason = next(iter(table.bad.items()))
        logging.warning("%d pictures could not be read, e.g. %s: %s", len(table.bad), path, reason)
    return table
