"""Batches of a DataLoader whose worker processes may be killed or block: which one it was, and what it was reading."""

import signal
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar
from weakref import WeakSet

from torch.utils.data import ConcatDataset, DataLoader

from lavis_evlgen.errors import DataError, EvlgenError, first_line

REAPED_SECONDS = 3.0  # at most, until the exit code of a process that closed its connections is known
_SIGNS = (RuntimeError, OSError, EOFError)  # torch's own error, and those of tensors that lay with the dead process
_OF_TORCH = "DataLoader worker"  # how its error begins
_WAY_OUT = (
    "Usually the machine's memory or /dev/shm was full: lower run.num_workers (each worker holds batches of its own) "
    "or give the container more shared memory (docker run --shm-size=8g); run.num_workers=0 reads in the main process, "
    "where an error of the reader is seen"
)
_NAMES = ("image", "video", "image_id", "question_id")  # what tells a sample from others, in records of LAVIS's kind


class Batches(Iterator[Any]):
    """The batches of a loader; DataError when a worker of it dies, or gives nothing for the loader's ``timeout``."""

    live: ClassVar["WeakSet[Batches]"] = WeakSet()

    def __init__(self, loader: DataLoader, name: str) -> None:
        """``name`` of the data set, for the error. ``loader.dataset.reading`` may say what each worker reads."""
        self._loader = loader
        self._name = name
        self._iterator: Any = iter(loader)
        Batches.live.add(self)
        if (fault := self.dead()) is not None:  # torch looks after workers only once all of them have started
            self.close()
            raise DataError(fault)

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except _SIGNS as error:
            if isinstance(error, OSError | EOFError):
                self._wait_for_exit_codes()
            fault = self._late() if "DataLoader timed out" in str(error) else self.dead()
            if fault is None:
                raise
            self.close()
            raise DataError(fault) from error

    def dead(self) -> str | None:
        """Which of the workers ended and why, None while they are well."""
        found = [(number, worker) for number, worker in enumerate(self._workers) if worker.exitcode]
        if not found:
            return None
        ended = "; ".join(self._doing(number) + _end_of(worker.exitcode) for number, worker in found)
        return f"{self._name}: {ended}. {_WAY_OUT}"

    def _wait_for_exit_codes(self) -> None:
        end = time.monotonic() + REAPED_SECONDS
        while self._workers and self.dead() is None and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        """End the workers; torch would raise its error again with every further child process that ends."""
        Batches.live.discard(self)
        if self._workers:
            self._iterator._shutdown_workers()

    def _late(self) -> str:
        """A batch did not come in time, and where the worker is that makes it."""
        task = getattr(self._iterator, "_task_info", {}).get(getattr(self._iterator, "_rcvd_idx", None))
        who = [task[0]] if task else range(len(self._workers))  # torch does not promise to say which one it is
        return (
            f"{self._name}: no batch came within run.data_timeout ({self._loader.timeout:g} s) from data "
            f"{'; '.join(map(self._doing, who))}. Does the disk answer? Raise run.data_timeout (0: wait for ever) if "
            "reading rightly takes so long; run.num_workers=0 reads in the main process"
        )

    @property
    def _workers(self) -> list[Any]:
        return getattr(self._iterator, "_workers", [])

    def _doing(self, number: int) -> str:
        who = f"worker {number} (pid {self._workers[number].pid})"
        reading = getattr(self._loader.dataset, "reading", None)
        index = -1 if reading is None or number >= len(reading) else int(reading[number])
        return who if index < 0 else f"{who}, last reading {sample_name(self._loader.dataset, index)}"


@contextmanager
def worker_deaths_named() -> Iterator[None]:
    """Turn torch's error about a dead worker, which strikes the main process anywhere, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (*_SIGNS, EvlgenError) as error:  # the last where it struck while a file was written
        for batches in list(Batches.live):
            if (dead := batches.dead()) is not None:
                batches.close()
                raise DataError(dead) from error
        if str(error).startswith(_OF_TORCH):  # it struck while a loader was still starting its workers
            raise DataError(f"{first_line(error)} {_WAY_OUT}") from error
        raise


@contextmanager
def worker_deaths_held_back() -> Iterator[None]:
    """Keep torch's error about a dead worker until the block is over: C++ that is writing ends the process by it."""
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held_back: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGCHLD, lambda *signalled: held_back.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if held_back:
        handler(*held_back[-1])  # it looks at all workers


def sample_name(dataset: Any, index: int) -> str:
    """``sample 17`` with the picture or id of its record, where the data set tells it."""
    dataset = getattr(dataset, "dataset", dataset)
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        before = dataset.cumulative_sizes[part - 1] if part else 0
        return f"{sample_name(dataset.datasets[part], index - before)} of part {part}"
    try:
        record = dataset.annotation[index]
        known = next(record[key] for key in _NAMES if key in record)
    except (AttributeError, IndexError, KeyError, TypeError, StopIteration):
        return f"sample {index}"
    return f"sample {index} ({known})"


def _end_of(code: int) -> str:
    return f", was killed by {signal.Signals(-code).name}" if code < 0 else f", left with exit code {code}"
