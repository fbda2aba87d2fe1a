"""The frozen ViT's features on disk: computed once per picture, read at every step."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.feature_table import DTYPE, FeatureFolder, FeatureTable, Fingerprint
from lavis_evlgen.datasets.whole_files import file_stamp
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.runners.data_workers import Batches
from lavis_evlgen.runners.samples import start_worker

SHARD_BYTES = 1 << 30
SHARD_PICTURES = 1024  # an interruption costs no more than these

_OLD_ARRAY = "[0-9a-f]" * 24 + ".npy"


@dataclass(frozen=True)
class FeatureShard:
    """Pictures whose features go into one file: their keys, and where the data set has them."""

    number: int
    keys: list[str]
    indices: list[int]


def build_feature_table(
    dataset: Any, vision: Any, folder: str | Path, device: torch.device, batch_size: int = 16, num_workers: int = 0
) -> FeatureTable:
    """Compute what is missing of the features of all pictures of a data set, and open them.

    Args:
        dataset: a map-style data set with `image_key`, `load_image` and `vis_processor`.
        vision: the frozen vision tower.
        folder: where the features lie, of this data set alone.
        device: where the ViT runs.
        batch_size, num_workers: pictures in one forward pass, and processes that read them.

    Raises:
        ConfigError: the image processor is random, so that features cannot be computed once; or the folder holds
            features of another ViT or other preprocessing.
        DataError: a file is damaged, or the disk too small.
    """
    cache = FeatureCache(dataset, vision, folder)
    cache.compute(cache.plan(), device, batch_size, num_workers)
    return cache.table()


class FeatureCache:
    """The steps of :func:`build_feature_table`, for several processes that share the work.

    Features are in shards of at most ``SHARD_PICTURES`` pictures and ``SHARD_BYTES``, each complete or not there. New
    and replaced pictures go into further shards.
    """

    def __init__(self, dataset: Any, vision: Any, folder: str | Path) -> None:
        self.dataset, self.vision = dataset, vision
        self.folder = FeatureFolder(Path(os.path.expanduser(folder)))

    @cached_property
    def made_by(self) -> Fingerprint:
        """What the features depend on beside the pictures."""
        vision = self.vision
        processor = repr(getattr(self.dataset.vis_processor, "transform", self.dataset.vis_processor))
        return {
            "ViT": f"{vision.fingerprint()}, layer {getattr(vision, 'feature_layer', -1)}",
            "preprocessing": re.sub(r" at 0x[0-9a-f]+|\s+", " ", processor),
            "shape": f"{vision.num_tokens} x {vision.num_features}",
        }

    def plan(self, processes: int = 1) -> list[FeatureShard]:
        """What is to be computed still, with a shard for every process at least; says how much that is."""
        _check_deterministic(self.dataset)
        self.folder.prepare()
        self._say_what_is_old()
        records = self.folder.open(self.made_by)
        first = {self.dataset.image_key(index): index for index in reversed(range(len(self.dataset)))}
        there = self.folder.table(records, first)
        missing = sorted(key for key in first if key not in there.rows and key not in there.bad)
        picture_bytes = self.vision.num_tokens * self.vision.num_features * DTYPE.itemsize
        if missing:
            self._check_space(len(missing), len(missing) * picture_bytes)
        size = max(1, min(SHARD_PICTURES, SHARD_BYTES // picture_bytes, -(-len(missing) // processes)))
        parts = [missing[start : start + size] for start in range(0, len(missing), size)]
        number = max(records, default=-1) + 1
        return [FeatureShard(n, part, [first[key] for key in part]) for n, part in enumerate(parts, start=number)]

    def _check_space(self, pictures: int, needed: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        logging.info(
            "computing the frozen ViT's features of %d pictures once: %.2f GiB in %s, where %.1f GiB are free",
            pictures, needed / 2**30, self.folder.path, free / 2**30,
        )  # fmt: skip
        if needed > free:
            raise DataError(
                f"run.feature_cache: the features of {pictures} pictures take {needed / 2**30:.1f} GiB, but "
                f"{self.folder.path.absolute()} has only {free / 2**30:.1f} GiB; name a folder on another disk, or "
                "leave it out"
            )

    def _say_what_is_old(self) -> None:
        """Earlier versions kept one array for all pictures, named by a hash."""
        folder = self.folder.path
        old = [path for place in (folder, folder.parent) for path in place.glob(_OLD_ARRAY)]
        if old:
            size = sum(path.stat().st_size for path in old) / 2**30
            logging.warning(
                "%s holds features in the layout of an earlier version (%d files, %.2f GiB). They are not used but "
                "computed again; delete them", old[0].parent, len(old), size,
            )  # fmt: skip

    def compute(
        self,
        shards: Sequence[FeatureShard],
        device: torch.device,
        batch_size: int = 16,
        num_workers: int = 0,
        show: bool = True,
        between_batches: Callable[[], None] = lambda: None,
    ) -> None:
        """Write some of a plan's shards; ``show`` the progress. ``between_batches`` may end the process."""
        if not shards:
            return
        self.vision.to(device).eval()
        total = sum(len(shard.keys) for shard in shards)
        with tqdm(total=total, desc="features", unit="picture", disable=None if show else True) as bar:
            for shard in shards:
                began = time.perf_counter()
                bad: dict[str, str] = {}
                stamps = [file_stamp(key) for key in shard.keys]
                record: dict[str, Any] = {"made_by": self.made_by, "keys": shard.keys, "stamps": stamps, "bad": bad}
                shape = (len(shard.keys), self.vision.num_tokens, self.vision.num_features)
                with self.folder.new_array(shard.number, shape, record) as array:
                    for first, pictures in self._pictures(shard, batch_size, num_workers):
                        between_batches()
                        found = list(zip(range(first, first + len(pictures)), pictures, strict=True))
                        bad |= {shard.keys[row]: each.reason for row, each in found if isinstance(each, BadSample)}
                        good = {row: each for row, each in found if not isinstance(each, BadSample)}
                        if good:
                            array[list(good)] = self._features(list(good.values()), device)
                        bar.update(len(pictures))
                    record["seconds"] = round(time.perf_counter() - began, 1)

    def _pictures(self, shard: FeatureShard, batch_size: int, num_workers: int) -> Iterator[tuple[int, list[Any]]]:
        """(number of the first one, processed pictures [3, H, W] or BadSamples) by batches."""
        loader = DataLoader(
            _Processed(self.dataset, shard.indices),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # the global one is left alone
        )
        batches = Batches(loader, "pictures of the feature cache")
        return zip(range(0, len(shard.keys), batch_size), batches, strict=True)

    @torch.no_grad()
    def _features(self, pictures: list[Tensor], device: torch.device) -> np.ndarray:
        """[B, L, D_v] in fp16."""
        features = self.vision(torch.stack(pictures).to(device)).half()
        if not features.isfinite().all():
            raise ConfigError(
                "run.feature_cache: the ViT's features are not finite in fp16, in which they are kept; leave it out, "
                "or set model.vit_precision: fp32 if the ViT computes in fp16"
            )
        return features.cpu().numpy()

    def table(self) -> FeatureTable:
        """The features of all pictures; DataError when some are missing."""
        keys = {self.dataset.image_key(index) for index in range(len(self.dataset))}
        table = self.folder.table(self.folder.open(self.made_by), keys)
        if missing := keys - table.rows.keys() - table.bad.keys():
            raise DataError(
                f"run.feature_cache: {self.folder.path} lacks the features of {len(missing)} pictures, e.g. "
                f"{min(missing)}: all processes must see the same folder, and pictures must not change meanwhile"
            )
        return table


class _Processed(Dataset):
    """Some pictures of a data set as the ViT takes them."""

    def __init__(self, dataset: Any, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Tensor | BadSample:
        picture = self.dataset.load_image(self.indices[number])
        return picture if isinstance(picture, BadSample) else self.dataset.vis_processor(picture)


def _check_deterministic(dataset: Any) -> None:
    """One picture processed several times must give the same pixels."""
    for index in range(min(len(dataset), 8)):
        picture = dataset.load_image(index)
        if isinstance(picture, BadSample):
            continue
        with torch.random.fork_rng(devices=[]):
            versions = []
            for seed in range(4):
                torch.manual_seed(seed)
                versions.append(dataset.vis_processor(picture))
        if any(not torch.equal(versions[0], version) for version in versions[1:]):
            raise ConfigError(
                f"run.feature_cache needs pictures without augmentation, but {type(dataset.vis_processor).__name__} "
                "is random: set vis_processor.train to blip_image_eval, or feature_cache: false"
            )
        return
