"""Millions of records in one block of memory that all loader processes share."""

import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lavis_evlgen.datasets.records import Record


class RecordTable(Sequence[Record]):
    """A read-only list of records.

    A list of Python objects is copied into every worker of a loader bit by bit, because reading an object changes its
    reference count: 2.5 million clips are 1.4 GB a worker. Here they are bytes, which forked workers share.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        ends, data = [0], bytearray()
        for record in records:
            data += pickle.dumps((record.file, record.captions, record.image_id, record.extras))
            ends.append(len(data))
        self._data = np.frombuffer(bytes(data), np.uint8)
        self._ends = np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        return Record(*pickle.loads(self._data[self._ends[index] : self._ends[index + 1]].tobytes()))
