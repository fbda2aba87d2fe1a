"""What is wrong with somebody's own pictures or clips and their texts, before anything is trained on them."""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lavis_evlgen.datasets.bad_samples import BadSample, read_picture
from lavis_evlgen.datasets.records import NOUNS, Kind
from lavis_evlgen.errors import EvlgenError

DECODED = {"image": 2000, "video": 50}  # files that are opened and decoded, unless all are asked for
BINS = 8
EXAMPLES = 3


@dataclass(frozen=True)
class Item:
    """A picture or clip, by its path relative to the data folder, and the texts that belong to it."""

    file: str
    texts: list[str]


@dataclass
class DataCheck:
    """What was found.

    Attributes:
        files, texts: how many there are; empty texts do not count.
        missing: files that do not exist.
        unreadable: reasons by file, of the ``decoded`` files that were opened.
        same: groups of files with the same content.
        repeated: (file, text) pairs that stand there more than once, in whatever letter case.
        sizes: (width, height) of the decoded pictures.
        lengths: of the texts, by unit (characters, words, tokens).
    """

    kind: Kind
    files: int = 0
    texts: int = 0
    empty: int = 0
    decoded: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    same: list[list[str]] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)

    @property
    def bad(self) -> set[str]:
        """Files that cannot be used."""
        return {*self.missing, *self.unreadable}

    def report(self, nouns: str = "captions") -> list[str]:
        """Lines to be printed; ``nouns`` is what the texts are."""
        files = NOUNS[self.kind] + "s"
        looked_at = "all" if self.decoded == self.files - len(self.missing) else f"{self.decoded:,} drawn at random"
        lines = [
            f"{self.files:,} {files}, {self.texts:,} {nouns}",
            f"missing {files}: {_examples(self.missing)}",
            f"unreadable {files} ({looked_at} were opened): "
            + _examples(f"{file} ({reason})" for file, reason in self.unreadable.items()),
            f"{files} that are the same: {_examples(' = '.join(group) for group in self.same)}",
            f"repeated {nouns} of one {NOUNS[self.kind]}: {_examples(f'{file}: {t!r}' for file, t in self.repeated)}",
            f"empty {nouns}: {self.empty or 'none'}",
        ]
        if self.sizes:
            small, middle, large = (f"{w}x{h}" for w, h in _quantiles_by_area(self.sizes))
            lines.append(f"sizes: {small} to {large}, median {middle}")
        for unit, lengths in self.lengths.items():
            lines += _described(unit, lengths, histogram=unit == "words")
        return lines


def check_data(
    items: Sequence[Item],
    folder: Path,
    kind: Kind = "image",
    empty: int = 0,
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None,
    decode_all: bool = False,
    show: bool = False,
) -> DataCheck:
    """Look at every file and text: that it exists, decodes, is no copy of another.

    Args:
        folder: what the items' files are relative to.
        empty: how many empty texts were left out of the items before.
        count_tokens: token counts of texts, to be reported too.
        decode_all: open every file, not DECODED ones drawn at random (with a fixed seed).
        show: a progress bar.
    """
    texts = [text for item in items for text in item.texts]
    found = DataCheck(kind, files=len(items), texts=len(texts), empty=empty)
    found.missing = [item.file for item in items if not os.path.isfile(folder / item.file)]
    there = sorted({item.file for item in items} - set(found.missing))
    drawn = there if decode_all else sorted(random.Random(0).sample(there, min(len(there), DECODED[kind])))
    found.decoded = len(drawn)
    for file in tqdm(drawn, desc=f"opening {NOUNS[kind]}s", leave=False, disable=not show):
        size = (_picture_size if kind == "image" else _clip_size)(folder / file)
        if isinstance(size, str):
            found.unreadable[file] = size
        else:
            found.sizes.append(size)
    found.same = _same_content(folder, there)
    found.repeated = _repeated(items)
    found.lengths = {"characters": [len(text) for text in texts], "words": [len(text.split()) for text in texts]}
    if count_tokens is not None:
        found.lengths["tokens"] = count_tokens(texts)
    return found


def _picture_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of a picture that decodes to its end, or what is wrong with it."""
    picture = read_picture(path)
    if isinstance(picture, BadSample):
        return picture.reason
    assert isinstance(picture, Image.Image)
    return picture.size


def _clip_size(path: Path) -> tuple[int, int] | str:
    from lavis_evlgen.datasets.video_reading import read_clip

    try:
        height, width = read_clip(path, 2).shape[1:3]
    except EvlgenError as error:
        return str(error)
    return width, height


def _same_content(folder: Path, files: Iterable[str]) -> list[list[str]]:
    """Groups of files with the same bytes; only files of one size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for file in files:
        by_size[(folder / file).stat().st_size].append(file)
    by_content: dict[str, list[str]] = defaultdict(list)
    for alike in by_size.values():
        for file in alike if len(alike) > 1 else ():
            by_content[hashlib.sha256((folder / file).read_bytes()).hexdigest()].append(file)
    return [group for group in by_content.values() if len(group) > 1]


def _repeated(items: Iterable[Item]) -> list[tuple[str, str]]:
    pairs = []
    for item in items:
        seen: set[str] = set()
        for text in item.texts:
            same = " ".join(text.lower().split())
            if same in seen:
                pairs.append((item.file, text))
            seen.add(same)
    return pairs


def _examples(items: Iterable[str]) -> str:
    found = list(items)
    if not found:
        return "none"
    return f"{len(found):,}, e.g. " + "; ".join(found[:EXAMPLES])


def _quantiles_by_area(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _described(unit: str, lengths: Sequence[int], histogram: bool) -> list[str]:
    if not lengths:
        return []
    values: Any = np.array(lengths)
    median, most = np.percentile(values, [50, 95])
    lines = [f"{unit}: median {median:.0f}, 95 % up to {most:.0f}, longest {values.max()}"]
    if histogram:
        counts, edges = np.histogram(values, bins=_edges(int(values.min()), int(values.max())))
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
            span = f"{low}" if high - low == 1 else f"{low}-{high - 1}"
            lines.append(f"  {span:>9}  {'#' * int(np.ceil(40 * count / counts.max()))} {count:,}".rstrip())
    return lines


def _edges(low: int, high: int) -> list[int]:
    """Whole numbers that bound at most BINS bins of equal width."""
    width = -(-(high - low + 1) // BINS)
    return [*range(low, high + 1, width), low + width * -(-(high - low + 1) // width)]
