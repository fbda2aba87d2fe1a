"""Writing shards: pictures and their captions packed into tar files, repeatably, and resumably after a kill."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from lavis_evlgen.datasets.bad_samples import decode_picture, picture_bytes
from lavis_evlgen.datasets.records import read_records
from lavis_evlgen.datasets.shard_folder import ShardFolder
from lavis_evlgen.datasets.shards import TEXTS, picture_and_captions
from lavis_evlgen.datasets.whole_files import digest, file_stamp
from lavis_evlgen.errors import ConfigError, DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # packed as they are; other pictures become png


@dataclass(frozen=True)
class Entry:
    """A picture to be packed; ``fields`` is the content of its .json, None where its caption lies beside it."""

    name: str
    picture: Path
    fields: Mapping[str, Any] | None = None

    def caption_files(self) -> list[Path]:
        """The .json and .txt beside the picture."""
        paths = [self.picture.with_suffix(f".{kind}") for kind in TEXTS] if self.fields is None else []
        return [path for path in paths if path.is_file()]

    def stamp(self) -> list[Any]:
        """Changes when the picture or its caption does."""
        stamps = [file_stamp(path) for path in (self.picture, *self.caption_files())]
        return [self.name, self.fields, [stamp for stamp in stamps if stamp]]

    def size(self) -> int:
        """Bytes of the picture's file."""
        return next(iter(file_stamp(self.picture)), 0)


@dataclass(frozen=True)
class Written:
    """What :func:`write_shards` did. ``kept`` shards were there already; ``left_out`` says what is missing, and why."""

    shards: int
    kept: int
    pictures: int
    left_out: list[dict[str, str]]
    left_out_path: Path
    pattern: str


def entries_of(images: Path, data: Path | None = None, caption_key: str = "caption") -> list[Entry]:
    """What is to be packed: the records of an annotation file, or every picture below a folder, by name.

    Raises:
        DataError: no such folder, no picture in it, or an annotation file that cannot be read.
    """
    if not images.is_dir():
        raise DataError(f"--images: the folder {images} does not exist (looked for {images.absolute()})")
    if data is None:
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise DataError(f"--images: {images} holds no picture ({', '.join(SUFFIXES)})")
        return [Entry(path.relative_to(images).as_posix(), path) for path in found]
    return [
        Entry(
            record.file,
            images / record.file,
            record.extras | {"image": record.file, "image_id": record.image_id, caption_key: record.captions},
        )
        for record in read_records(data)
    ]


def write_shards(
    entries: Sequence[Entry],
    out: str,
    size: int = 1000,
    caption_key: str = "caption",
    shuffle: int | None = None,
    overwrite: bool = False,
) -> Written:
    """Write shards of ``size`` entries each, less those that cannot be read; the same entries give the same bytes.

    A shard is written beside its place and renamed, so that a kill leaves complete ones only. Those are kept by the
    next call as long as their entries are the same; ``shards.json`` beside them is the record. What is left out is
    listed in ``left_out.jsonl``.

    Args:
        entries: see :func:`entries_of`.
        out: path of the shards with a place for their number, such as ``data/{:05d}.tar``.
        caption_key: key of the captions in the samples' .json.
        shuffle: seed to mix the entries with; None keeps their order. A stream mixes whole shards, and neighbours.
        overwrite: replace shards of other data.

    Raises:
        ConfigError: ``out`` or ``size`` do not fit, or shards of other data are there.
        DataError: too little space, or no entry can be read.
    """
    folder = ShardFolder(out)
    if size < 1:
        raise ConfigError(f"--size must be at least 1, not {size}")
    order = list(entries)
    if shuffle is not None:
        random.Random(shuffle).shuffle(order)
    slices = [order[first : first + size] for first in range(0, len(order), size)]
    digests = [digest([caption_key, [entry.stamp() for entry in each]]) for each in slices]
    if not overwrite:
        folder.refuse_others(digests)
    folder.clean(len(slices))
    missing = [number for number, each in enumerate(digests) if not folder.is_complete(number, each)]
    folder.check_space(sum(entry.size() for number in missing for entry in slices[number]))
    with tqdm(total=len(order), desc="shards", unit="picture", disable=None) as bar:
        bar.update(len(order) - sum(len(slices[number]) for number in missing))
        for number in missing:
            left_out: list[dict[str, str]] = []
            samples = _packed(slices[number], number * size, caption_key, left_out, bar)
            folder.write(number, digests[number], samples, left_out)
    left_out = folder.finish()
    pictures = sum(known["samples"] for known in folder.record.values())
    if not pictures:
        raise DataError(f"none of the {len(order)} pictures can be packed, e.g. {_line(left_out[0])}")
    shards = sum(known["samples"] > 0 for known in folder.record.values())
    kept = len(slices) - len(missing)
    return Written(shards, kept, pictures, left_out, folder.left_out_path, folder.pattern())


def _line(left_out: dict[str, str]) -> str:
    return f"{left_out['image']}: {left_out['reason']}"


def _packed(
    entries: Sequence[Entry], first: int, caption_key: str, left_out: list[dict[str, str]], bar: tqdm
) -> Iterator[dict[str, Any]]:
    """webdataset's samples of the entries that can be read; their keys are numbers, for a name may hold anything."""
    for number, entry in enumerate(entries, start=first):
        try:
            sample = _sample(entry, caption_key)
        except (OSError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            left_out.append({"image": entry.name, "reason": reason})
        else:
            yield {"__key__": f"{number:09d}", **sample}
        bar.update()


def _sample(entry: Entry, caption_key: str) -> dict[str, bytes]:
    """The files of one sample, which a stream is then sure to read."""
    data = picture_bytes(entry.picture)
    picture = decode_picture(data)
    kind = _KINDS.get(Image.open(io.BytesIO(data)).format or "")
    if kind is None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        kind, data = "png", buffer.getvalue()
    if entry.fields is None:
        found = {path.suffix[1:]: path.read_bytes() for path in entry.caption_files()}
        texts = {"json": found["json"]} if "json" in found else found
    else:
        texts = {"json": json.dumps(entry.fields, ensure_ascii=False).encode()}
    picture_and_captions({kind: data, **texts}, caption_key)
    return {kind: data, **texts}
