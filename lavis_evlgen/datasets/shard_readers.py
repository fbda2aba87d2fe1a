"""Who reads which samples of a set of shards, in which order, and from any place on.

A reader is one data loading process of one rank. A number of readers share each pass over the shards, and each of them
can be told where it stood. When a run goes on with another number of readers, these first share what the earlier ones
had not read yet of the passes that these had begun (see :meth:`Readers.samples`), so that no sample of a pass is lost
or repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from lavis_evlgen.datasets.shards import read_shard
from lavis_evlgen.errors import DataError

Name = tuple[int, int, int, int]  # seed, epoch, reader, number in the epoch: seeds a sample's augmentation
Found = tuple[int, int, dict[str, Any]]  # number of the shard among the reader's, number in the shard, the files


class Share(NamedTuple):
    """Every ``readers``-th sample of a shard from number ``own`` on."""

    path: str
    readers: int = 1
    own: int = 0


class ReaderPosition(NamedTuple):
    """Behind the ``seen``-th sample of a reader's ``epoch``; its present block starts at ``offset`` of ``shard``."""

    epoch: int = 0
    shard: int = 0
    offset: int = 0
    seen: int = 0


class RestPosition(NamedTuple):
    """Behind the ``number``-th sample of what the earlier reader ``of`` left, which stands at ``place`` then."""

    of: int
    number: int
    place: Position | None


Position = ReaderPosition | RestPosition
Read = tuple[Name, dict[str, Any], Position]  # undecoded sample and the position behind it


class Readers:
    """A number of readers of the same shards, and where they stand."""

    def __init__(self, shards: Sequence[str], seed: int, block: int, noted: Mapping[str, Any]) -> None:
        """``noted``: ``{"count": n, "positions": {reader: position}}``, where a missing position is the beginning;
        ``before``, if there, holds the same of the earlier readers whose rest comes first. ``block``: samples that are
        shuffled together.
        """
        self.shards, self.seed, self.block = shards, seed, max(1, block)
        self.count: int = noted["count"]
        self.positions = {reader: _position(found) for reader, found in noted["positions"].items()}
        before = noted.get("before")
        self.before = Readers(shards, seed, block, before) if before else None

    @property
    def last_epoch(self) -> int:
        """The latest epoch that one of the readers has begun."""
        found = [0 if self.before is None else self.before.last_epoch]
        return max(found + [each.epoch for each in self.positions.values() if isinstance(each, ReaderPosition)])

    def samples(self, reader: int, start: Position | None = None, last: int | None = None) -> Iterator[Read]:
        """Undecoded samples of one reader from ``start`` (or else its position) to the end of epoch ``last``, or
        without end.

        The rest of the earlier readers is that of all epochs which one of them has begun; all go on with the next one.
        """
        start = start or self.positions.get(reader)
        if self.before is not None and not isinstance(start, ReaderPosition):
            yield from self._rest(self.before, reader, start)
            start = ReaderPosition(self.before.last_epoch + 1)
        place = start if isinstance(start, ReaderPosition) else ReaderPosition()
        while last is None or place.epoch <= last:
            seen = place.seen
            for shard, offset, sample in self._epoch(reader, place):
                seen += 1
                name = (self.seed, place.epoch, reader, seen - 1)
                yield name, sample, ReaderPosition(place.epoch, shard, offset, seen)
            if not seen:
                raise DataError(
                    f"the shards hold no sample for reader {reader + 1} of {self.count}, e.g. {self.shards[0]}"
                )
            place = ReaderPosition(place.epoch + 1)

    def _rest(self, before: Readers, reader: int, start: RestPosition | None) -> Iterator[Read]:
        """This reader's part of what the earlier ones left: each of those is cut into ``count`` equal parts, and every
        reader takes as many parts, one after another.
        """
        first = start or RestPosition(0, 0, None)
        for of in range(first.of, before.count):
            parts = [part for part in range(self.count) if (of * self.count + part) // before.count == reader]
            if not parts:
                continue
            number, place = (first.number, first.place) if of == first.of else (0, None)
            for name, sample, behind in before.samples(of, place, before.last_epoch):
                number += 1
                if (number - 1) % self.count in parts:
                    yield name, sample, RestPosition(of, number, behind)

    def _epoch(self, reader: int, start: ReaderPosition) -> Iterator[Found]:
        """What is left of a reader's epoch, shuffled; each sample under the place where its block starts."""
        shards = list(self.shards)
        random.Random(f"{self.seed}-{start.epoch}").shuffle(shards)
        samples = _samples(_shares(shards, reader, self.count), start.shard, start.offset)
        first = max(0, start.seen - 1) // self.block

        def shuffle(block: list[Found], number: int) -> None:
            random.Random(f"{self.seed}-{start.epoch}-{reader}-{first + number}").shuffle(block)

        return islice(_blockwise(samples, self.block, shuffle), start.seen - first * self.block, None)


def taken_over(noted: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """``noted`` of the same number of readers, or ``count`` new ones that first share the rest of the noted ones."""
    return noted if noted["count"] == count else {**noted, "count": count, "positions": {}, "before": noted}


def at_next_epoch(noted: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """``count`` readers at the beginning of an epoch that none of the noted ones has begun."""
    start = plain(ReaderPosition(Readers((), 0, 1, noted).last_epoch + 1))
    kept = {key: value for key, value in noted.items() if key != "before"}
    return {**kept, "count": count, "positions": dict.fromkeys(range(count), start)}


def without_past(noted: Mapping[str, Any]) -> Mapping[str, Any]:
    """``noted`` without the earlier readers, once none of the present ones reads what they left."""
    found = [_position(noted["positions"].get(reader)) for reader in range(noted["count"])]
    if all(isinstance(each, ReaderPosition) for each in found):
        return {key: value for key, value in noted.items() if key != "before"}
    return noted


def plain(position: Position) -> tuple[Any, ...]:
    """The position in tuples and numbers alone, as a checkpoint can hold it; :class:`Readers` takes it back."""
    if isinstance(position, RestPosition) and position.place is not None:
        return (*position[:2], plain(position.place))
    return tuple(position)


def _position(found: Sequence[Any] | None) -> Position | None:
    if found is None:
        return None
    if len(found) == len(ReaderPosition._fields):
        return ReaderPosition(*found)
    return RestPosition(found[0], found[1], _position(found[2]))


def _shares(shards: Sequence[str], reader: int, readers: int) -> list[Share]:
    """What one reader reads of the shards: as many whole ones as all others, and a part of one of the rest.

    Where as many readers share each of the rest, all read equally much, and end their epochs together.
    """
    whole = len(shards) // readers * readers
    shares = [Share(path) for path in shards[reader:whole:readers]]
    if rest := shards[whole:]:
        number = reader % len(rest)
        shares.append(Share(rest[number], len(range(number, readers, len(rest))), reader // len(rest)))
    return shares


def _samples(shares: Sequence[Share], shard: int, offset: int) -> Iterator[Found]:
    """The samples of the shares from the ``offset``-th of number ``shard`` on, each with its place."""
    for number, (path, readers, own) in enumerate(shares[shard:], shard):
        skipped = offset if number == shard else 0
        few, place = [], -1
        for place, sample in enumerate(read_shard(path)):
            if place < readers:
                few.append(sample)
            if place >= skipped and place % readers == own:
                yield number, place, sample
        if 0 <= place < own and len(shares) == 1:  # fewer samples than readers: nobody goes without
            yield number, 0, few[own % len(few)]


def _blockwise(samples: Iterator[Found], size: int, shuffle: Callable[[list[Found], int], None]) -> Iterator[Found]:
    """Samples in shuffled blocks of ``size``, each under the place where its block starts.

    While one block goes out the next one is read, sample for sample, so that reading is spread evenly.
    """
    block, number = list(islice(samples, size)), 0
    while block:
        shard, offset, _ = block[0]
        shuffle(block, number)
        following: list[Found] = []
        while block:
            yield shard, offset, block.pop()[2]
            following.extend(islice(samples, 1))
        block, number = following, number + 1
