"""The frozen ViT's features on disk: computed once per picture, read at every step."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.errors import ConfigError, DataError

_BLOCK_BYTES = 1 << 24


@dataclass
class FeatureTable:
    """Features of the pictures of one data set: a memory-mapped array [pictures, L, D_v] in fp16.

    Attributes:
        path: the array's file.
        rows: row by picture (the data set's `image_key`).
        bad: what is wrong with the pictures that could not be read.
        seconds: how long the ViT took, when the table was made.
    """

    path: Path
    rows: dict[str, int]
    bad: dict[str, str]
    seconds: float

    def __post_init__(self) -> None:
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}  # every worker process maps the file itself

    def __call__(self, key: str) -> Tensor | BadSample:
        """The features [L, D_v] of a picture in fp32."""
        if key in self.bad:
            return BadSample(key, self.bad[key])
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(self._array[self.rows[key]].astype(np.float32))


def build_feature_table(
    dataset: Any, vision: Any, folder: str | Path, device: torch.device, batch_size: int = 16
) -> FeatureTable:
    """Compute, or find again, the features of all pictures of a data set.

    The file's name is a fingerprint of the ViT's weights, the preprocessing and the list of pictures, so that features
    of another ViT are never read by mistake; a checksum guards its content.

    Args:
        dataset: a map-style data set with `image_key`, `load_image` and `vis_processor`.
        vision: the frozen vision tower.
        folder: where the tables live.
        device: where the ViT runs.

    Raises:
        ConfigError: the image processor is random, so that features cannot be computed once.
        DataError: a table on disk is damaged.
    """
    _check_deterministic(dataset)
    first = {dataset.image_key(index): index for index in reversed(range(len(dataset)))}
    keys = sorted(first)
    preprocessing = repr(getattr(dataset.vis_processor, "transform", dataset.vis_processor))
    name = _digest(json.dumps([vision.fingerprint(), preprocessing, [[key, _stamp(key)] for key in keys]]).encode())
    path = Path(folder).expanduser() / f"{name}.npy"
    index_path = path.with_suffix(".json")
    if not index_path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        bad = _compute(dataset, [(key, first[key]) for key in keys], vision.to(device).eval(), path, device, batch_size)
        seconds = round(time.perf_counter() - began, 1)
        _write(index_path, {"keys": keys, "bad": bad, "seconds": seconds, "sha256": _checksum(path)})
    index = json.loads(index_path.read_text())
    if not path.exists() or _checksum(path) != index["sha256"]:
        raise DataError(f"feature_cache: {path} is damaged; delete it and {index_path.name}, it will be computed again")
    rows = {key: row for row, key in enumerate(index["keys"])}
    return FeatureTable(path, rows, index["bad"], index["seconds"])


@torch.no_grad()
def _compute(
    dataset: Any,
    pictures: list[tuple[str, int]],
    vision: Any,
    path: Path,
    device: torch.device,
    batch_size: int,
) -> dict[str, str]:
    """Write the features of `pictures` (key, index) row by row; returns what is wrong with the unreadable ones."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    shape = (len(pictures), vision.num_tokens, vision.num_features)
    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
    bad: dict[str, str] = {}
    logging.info("computing the frozen ViT's features of %d pictures once, into %s", len(pictures), path.parent)
    try:
        for start in tqdm(range(0, len(pictures), batch_size), desc="features", unit="batch"):
            rows, images = [], []
            for row, (key, index) in enumerate(pictures[start : start + batch_size], start):
                picture = dataset.load_image(index)
                if isinstance(picture, BadSample):
                    bad[key] = picture.reason
                    continue
                rows.append(row)
                images.append(dataset.vis_processor(picture))
            if rows:
                array[rows] = vision(torch.stack(images).to(device)).half().cpu().numpy()
        array.flush()
        os.replace(temporary, path)
    finally:
        del array
        temporary.unlink(missing_ok=True)
    return bad


def _check_deterministic(dataset: Any) -> None:
    """One picture processed twice must give the same pixels."""
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


def _stamp(key: str) -> list[int]:
    """Size and time of a picture's file, so that a replaced picture is computed anew; nothing for a missing one."""
    try:
        status = os.stat(key)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
