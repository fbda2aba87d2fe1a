"""Features of pictures in files: arrays that are mapped into memory, and the records of what they hold."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.whole_files import UNFINISHED, checksum, file_stamp, unfinished, write_text
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.json_text import parse_json

Fingerprint = dict[str, str]  # what the features were made by: the ViT, the preprocessing, their shape
DTYPE = np.dtype(np.float16)


@dataclass
class FeatureTable:
    """Features of the pictures of one data set, in arrays [pictures, L, D_v] in fp16.

    Attributes:
        path: the folder of the arrays.
        rows: (shard, row) by picture (the data set's `image_key`).
        bad: what is wrong with the pictures that could not be read.
        seconds: how long it took to compute the arrays, now or earlier.
    """

    path: Path
    rows: dict[str, tuple[int, int]]
    bad: dict[str, str]
    seconds: float

    def __post_init__(self) -> None:
        self._arrays: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}  # every worker process maps the files itself

    def is_visible(self) -> bool:
        """Whether this machine sees all the arrays."""
        return all(_array_path(self.path, shard).is_file() for shard in {shard for shard, _ in self.rows.values()})

    def __call__(self, key: str) -> Tensor | BadSample:
        """The features [L, D_v] of a picture in fp32."""
        if key in self.bad:
            return BadSample(key, self.bad[key])
        shard, row = self.rows[key]
        if shard not in self._arrays:
            self._arrays[shard] = _mapped(_array_path(self.path, shard))
        return torch.from_numpy(self._arrays[shard][row].astype(np.float32))


class FeatureFolder:
    """Shards of features: array ``00000.npy`` with its record ``00000.json``, and so on.

    A record holds the pictures' keys and file stamps, what is wrong with the bad ones, the array's checksum and what
    the features were made by. A shard is complete when it has a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, made_by: Fingerprint) -> dict[int, dict[str, Any]]:
        """The records by number; each array whose file has changed is compared with its checksum.

        Raises:
            ConfigError: the features were made by something else.
            DataError: a shard is damaged.
        """
        records = {}
        for path in sorted(self.path.glob("*.json")):
            if not re.fullmatch("[0-9]+", path.stem):
                continue
            array = path.with_suffix(".npy")
            if not array.exists():
                path.unlink()  # somebody deleted the array only
                continue
            record = _checked_record(path, array)
            for key, value in made_by.items():
                if record["made_by"].get(key) != value:
                    raise ConfigError(
                        f"run.feature_cache: {self.path} holds features that were made by another {key} "
                        f"({record['made_by'].get(key)}; now it is {value}): set run.feature_cache to another folder, "
                        "or delete this one"
                    )
            records[int(path.stem)] = record
        return records

    def table(self, records: dict[int, dict[str, Any]], keys: Iterable[str]) -> FeatureTable:
        """Those of the pictures that the shards hold, unless their files have changed since."""
        rows: dict[str, tuple[int, int]] = {}
        bad: dict[str, str] = {}
        wanted = set(keys)
        for number, record in records.items():
            for row, (key, stamp) in enumerate(zip(record["keys"], record["stamps"], strict=True)):
                if key not in wanted or stamp != file_stamp(key):
                    continue
                if key in record["bad"]:
                    bad[key] = record["bad"][key]
                else:
                    rows[key] = (number, row)
        seconds = sum(record["seconds"] for record in records.values())
        return FeatureTable(self.path, rows, bad, round(seconds, 1))

    def prepare(self) -> None:
        """Make the folder, and remove what a killed process was writing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run.feature_cache: {self.path} cannot be made ({error}); name another folder"
            ) from error
        for leftover in self.path.glob(f"*{UNFINISHED}"):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def new_array(self, number: int, shape: tuple[int, ...], record: dict[str, Any]) -> Iterator[np.ndarray]:
        """An array to fill; when the block ends well, it and ``record``, which may be filled meanwhile, are kept."""
        path = _array_path(self.path, number)
        with unfinished(path) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=DTYPE, shape=shape)
            _reserve(temporary)
            yield array
            array.flush()
            record["sha256"] = checksum(temporary)
        write_text(path.with_suffix(".json"), json.dumps({**record, "checked": file_stamp(path)}))


def _reserve(path: Path) -> None:
    """Take the space of a file now: a full disk would end the process with SIGBUS when a mapped page is written."""
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DataError(f"run.feature_cache: no space left for {path.parent}; name another disk") from error


def _array_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npy"


def _checked_record(path: Path, array: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_bytes())
        if not _fits(record, _mapped(array)):
            raise ValueError
        stamp = file_stamp(array)
        if record["checked"] != stamp:
            if checksum(array) != record["sha256"]:
                raise ValueError
            record["checked"] = stamp
            write_text(path, json.dumps(record))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"feature_cache: {array} is damaged; delete it and {path.name}, it will be computed again"
        ) from error
    return record


def _mapped(path: Path) -> np.ndarray:
    """The array of a file, in place; DataError when there is none in it."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python's source, with all its kinds of errors
        raise DataError(f"run.feature_cache: {path} is no array of features ({error}): delete it") from error


def _fits(record: dict[str, Any], array: np.ndarray) -> bool:
    """Whether record and array are what `FeatureFolder.new_array` writes."""
    kinds = {"made_by": dict, "keys": list, "stamps": list, "bad": dict, "seconds": int | float}
    if not all(isinstance(record[key], kind) for key, kind in kinds.items()):
        return False
    texts = all(isinstance(text, str) for text in (*record["keys"], *record["bad"].values()))
    pictures = len(record["keys"])
    return texts and array.dtype == DTYPE and array.ndim == 3 and len(array) == pictures == len(record["stamps"])
