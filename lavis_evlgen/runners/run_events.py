"""The course of a run in its log: when it started and ended, why, and what it warned of."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lavis_evlgen
from lavis_evlgen.errors import EvlgenError, one_line
from lavis_evlgen.runners.progress import RunLog

if TYPE_CHECKING:
    from lavis_evlgen.runners.training import Training

PACKAGE = Path(lavis_evlgen.__file__).parent
MOST_ALIKE = 10  # warnings of one kind that a process notes


class WarningsToLog(logging.Handler):
    """Notes this package's warnings in the run's log too; of each kind MOST_ALIKE."""

    def __init__(self, log: RunLog, step: Callable[[], int]) -> None:
        super().__init__(logging.WARNING)
        self._log, self._step = log, step
        self._pid = os.getpid()  # data workers inherit the handler, but not the run
        self._counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if not Path(record.pathname).is_relative_to(PACKAGE) or os.getpid() != self._pid:
            return
        self._counts[str(record.msg)] += 1
        if self._counts[str(record.msg)] > MOST_ALIKE:
            return
        with suppress(EvlgenError):  # a full disk, of which the next measurement or checkpoint tells
            self._log.note(self._step(), warning=record.getMessage())


@contextmanager
def warnings_noted(log: RunLog, step: Callable[[], int]) -> Iterator[None]:
    """Inside the block warnings go to the log."""
    handler = WarningsToLog(log, step)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def note_start(log: RunLog, iters: int, max_iters: int, processes: int) -> None:
    who = {"processes": processes, "pid": os.getpid(), "host": socket.gethostname()}
    log.note(iters, state="started", max_iters=max_iters, **who)


@contextmanager
def end_noted(log: RunLog, training: "Training") -> Iterator[None]:
    """Note how the block ends: by an error or a signal (stopped), or before the run is finished (paused)."""
    try:
        yield
    except BaseException as error:
        _note_end(log, training.iters, state="stopped", why=_reason(error))
        raise
    if not training.finished:
        _note_end(log, training.iters, state="paused")


def _note_end(log: RunLog, iters: int, **facts: Any) -> None:
    try:
        log.note(iters, **facts)
    except EvlgenError as error:
        logging.warning("%s", error)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "told to stop; a checkpoint was written"
    return one_line(error)
