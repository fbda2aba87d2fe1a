"""Where shards are written: their names, the record of what each holds, and files that are whole or not there."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from webdataset import TarWriter

from lavis_evlgen.datasets.whole_files import UNFINISHED, checksum, unfinished, write_text
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.json_text import parse_json


def _is_entry(value: Any) -> bool:
    """Whether it is what `ShardFolder.write` notes of a shard."""
    kinds = {"entries": str, "samples": int, "bytes": int, "sha256": str, "left_out": list}
    if not all(isinstance(value[key], kind) for key, kind in kinds.items()):
        return False
    return all(isinstance(each["image"], str) and isinstance(each["reason"], str) for each in value["left_out"])


class ShardFolder:
    """The shards of one pattern such as ``data/train-{:05d}.tar``, and ``data/train-shards.json`` about them.

    The record holds, by file name: ``entries`` (a digest of what was to be packed), ``samples``, ``bytes``, ``sha256``
    and ``left_out``. A shard is complete when it is in the record and has the size that stands there.
    """

    def __init__(self, pattern: str) -> None:
        """Raises ConfigError when the pattern has no place for a number or does not end in .tar."""
        path = Path(os.path.expanduser(pattern))
        try:
            names = [path.name.format(number) for number in (0, 1)]
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f"--out {pattern}: {error}; write the number as {{:05d}}, as in DIR/{{:05d}}.tar"
            ) from error
        if names[0] == names[1] or path.suffix != ".tar" or "{" in str(path.parent):
            raise ConfigError(f"--out {pattern}: name the shards by their number and .tar, as in DIR/{{:05d}}.tar")
        self.path = path.parent
        self._name = path.name
        prefix = path.name.partition("{")[0]
        self._any = re.sub(r"\{[^}]*\}", "*", path.name)
        self.record_path = self.path / f"{prefix}shards.json"
        self.left_out_path = self.path / f"{prefix}left_out.jsonl"
        self.record = self._read()

    def shard(self, number: int) -> Path:
        return self.path / self._name.format(number)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.record_path.is_file():
            return {}
        try:
            content = parse_json(self.record_path.read_bytes())
            name, shards = content["name"], content["shards"]
            if not all(_is_entry(each) for each in shards.values()):
                raise ValueError
        except (AttributeError, ValueError, KeyError, TypeError):
            logging.warning("%s is damaged: its shards are written again", self.record_path)
            return {}
        if name != self._name:
            raise ConfigError(
                f"--out: {self.record_path} is about shards named {name}; use these names, or another folder"
            )
        numbered = re.compile(re.sub(r"\\\{.*\\\}", r"\\d+", re.escape(self._name)))
        return {name: each for name, each in shards.items() if numbered.fullmatch(name)}  # others would be removed

    def is_complete(self, number: int, entries: str) -> bool:
        """Whether the shard holds these entries (their digest) already."""
        known = self.record.get(self.shard(number).name)
        if known is None or known["entries"] != entries:
            return False
        path = self.shard(number)
        return path.stat().st_size == known["bytes"] if path.is_file() else not known["samples"]

    def refuse_others(self, entries: list[str]) -> None:
        """Raise ConfigError when the shards that are there are none of ours, or all made of other data."""
        numbers = range(len(entries))
        there = [number for number in numbers if self.shard(number).is_file()]
        ours = any(self.is_complete(number, entries[number]) for number in there)
        if there and not ours:
            raise ConfigError(
                f"--out: {self.shard(there[0])} is there already and holds other data; name another place, or add "
                "--overwrite to replace it"
            )

    def clean(self, count: int) -> None:
        """Remove what a killed writer left, and shards behind the ``count``-th from when there was more data."""
        for path in self.path.glob(f"{self._any}.*{UNFINISHED}"):
            path.unlink(missing_ok=True)
        kept = {self.shard(number).name for number in range(count)}
        for name in [name for name in self.record if name not in kept]:
            logging.info("removing %s: there is less data than before", self.path / name)
            (self.path / name).unlink(missing_ok=True)
            del self.record[name]

    def check_space(self, needed: int) -> None:
        """Make the folder; raise DataError when its disk has less than ``needed`` bytes."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out: the folder {self.path} cannot be made ({error}); name another one") from error
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise DataError(
                f"--out: the shards take about {needed / 2**30:.1f} GiB, but {self.path.absolute()} has only "
                f"{free / 2**30:.1f} GiB; free some space or name another disk"
            )

    def write(
        self, number: int, entries: str, samples: Iterable[Mapping[str, Any]], left_out: list[dict[str, str]]
    ) -> None:
        """Write a shard of webdataset samples and enter it in the record; ``left_out`` fills while samples are made.

        A shard without any sample is not written.
        """
        path = self.shard(number)
        count = 0
        try:
            with unfinished(path) as temporary:
                with temporary.open("wb") as file:
                    # equal samples are equal bytes: the names of user and group are webdataset's, the time is fixed
                    writer = TarWriter(file, encoder=False, mtime=0)
                    for sample in samples:
                        writer.write(dict(sample))
                        count += 1
                    writer.close()
                    file.flush()
                    os.fsync(file.fileno())
                # never an old shard beside a new record: its size alone might not tell
                path.unlink(missing_ok=True)
                self.record[path.name] = {
                    "entries": entries,
                    "samples": count,
                    "bytes": temporary.stat().st_size if count else 0,
                    "sha256": checksum(temporary) if count else "",
                    "left_out": left_out,
                }
                self._save()
                if not count:
                    temporary.unlink()
        except OSError as error:
            raise DataError(f"could not write {path}: {error}; the shards before it are complete") from error

    def _save(self) -> None:
        ordered = dict(sorted(self.record.items()))
        write_text(self.record_path, json.dumps({"name": self._name, "shards": ordered}, indent=1))

    def finish(self) -> list[dict[str, str]]:
        """Write the list of what was left out, if anything was, and return it."""
        left_out = [each for name in sorted(self.record) for each in self.record[name]["left_out"]]
        self._save()
        if left_out:
            write_text(self.left_out_path, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in left_out))
        else:
            self.left_out_path.unlink(missing_ok=True)
        return left_out

    def pattern(self) -> str:
        """The shards that hold samples, as a builder's ``shards`` takes them."""
        numbers = [number for number in range(len(self.record)) if self.record[self.shard(number).name]["samples"]]
        first, last = (self.shard(number).name for number in (numbers[0], numbers[-1]))
        if len(numbers) == 1:
            return str(self.path / first)
        if last == self.shard(numbers[0] + len(numbers) - 1).name and len(first) == len(last):
            start, end = len(self._name.partition("{")[0]), -len(self._name.rpartition("}")[2])
            return str(self.path / f"{first[:start]}{{{first[start:end]}..{last[start:end]}}}{first[end:]}")
        return str(self.path / self._any)
