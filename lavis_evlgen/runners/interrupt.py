"""SIGTERM and SIGUSR1 as a wish: the running step is finished and saved before the process ends."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, Optional

WAIT_SECONDS = 20.0  # less than SLURM leaves between SIGTERM and SIGKILL
EXIT_CODE = 143  # 128 + SIGTERM, what a shell reports for a process ended by SIGTERM


class StopSignal:
    """Context manager; ``requested`` becomes True when a stop signal arrives inside it.

    at_once: the signal ends the process where it is, as there is nothing to save yet; that is over as soon as
    another StopSignal was entered inside this one.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
    current: ClassVar[Optional["StopSignal"]] = None  # the innermost one

    def __init__(self, at_once: bool = False) -> None:
        self.requested = False
        self.at_once = at_once
        self._waiting = False
        self._previous: dict[int, Any] = {}
        self._outer: StopSignal | None = None

    def __enter__(self) -> "StopSignal":
        self._outer, StopSignal.current = StopSignal.current, self
        if self._outer is not None:
            self._outer.at_once = False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        StopSignal.current = self._outer
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self.at_once:
            logging.warning("%s received before the run began: there is nothing to save.", signal.Signals(number).name)
            raise SystemExit(EXIT_CODE)
        logging.warning("%s received: stopping after this step.", signal.Signals(number).name)
        if self._waiting:
            signal.signal(signal.SIGALRM, self._give_up)
            signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, where data may never come, a stop signal ends the process after WAIT_SECONDS in any case."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
            if self.requested:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        logging.warning("no data came within %g s: leaving with the last checkpoint as it is.", WAIT_SECONDS)
        raise SystemExit(EXIT_CODE)


def stop_requested() -> bool:
    """Whether this process was told to stop."""
    return StopSignal.current is not None and StopSignal.current.requested


def pass_on(told: list[str]) -> None:
    """Stop this process too, where others (by name) were told to."""
    if told and StopSignal.current is not None and not StopSignal.current.requested:
        logging.warning("%s was told to stop: stopping too.", told[0])
        StopSignal.current.requested = True
