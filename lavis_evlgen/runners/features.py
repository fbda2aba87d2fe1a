"""Frozen features from a cache on disk in the place of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset

from lavis_evlgen.datasets.feature_cache import build_feature_table
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.distributed import on_rank_zero


def use_feature_cache(
    datasets: dict[str, dict[str, Any]], splits: Iterable[str], model: nn.Module, folder: str, device: torch.device
) -> float:
    """Let the given splits of all data sets read the frozen ViT's features from `folder`, computed once.

    Returns:
        The seconds that the ViT took, now or when the cache was made.

    Raises:
        ConfigError: the ViT trains, or a data set is streamed or augmented.
    """
    vision: Any = getattr(model, "vision", None)
    if not getattr(vision, "frozen", False):
        raise ConfigError(
            "run.feature_cache needs a model with a frozen ViT: set model.freeze_vit: true, or false here"
        )
    seconds = 0.0
    for name, of in datasets.items():
        for split in splits:
            dataset = of.get(split)
            if dataset is None:
                continue
            if isinstance(dataset, IterableDataset) or not hasattr(dataset, "image_key"):
                raise ConfigError(f"run.feature_cache: datasets.{name} is streamed or not one of ours; set it to false")
            table = on_rank_zero(partial(build_feature_table, dataset, vision, folder, device))
            dataset.features = table
            seconds += table.seconds
    return round(seconds, 1)
