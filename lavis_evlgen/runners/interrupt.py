"""SIGTERM and SIGUSR1 as a wish: the running step is finished and saved before the process ends."""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, Optional

WAIT_SECONDS = 20.0  # less than SLURM leaves between SIGTERM and SIGKILL
EXIT_CODE = 143  # 128 + SIGTERM, what a shell reports for a process ended by SIGTERM
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


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
        self._waiting = ""
        self._clock: threading.Timer | None = None
        self._late = False
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
        if self._late and self._waiting:
            logging.warning("%s within %g s: leaving with the last checkpoint as it is.", self._waiting, WAIT_SECONDS)
            raise SystemExit(EXIT_CODE)
        if self.at_once:
            logging.warning("%s received before the run began: there is nothing to save.", signal.Signals(number).name)
            raise SystemExit(EXIT_CODE)
        logging.warning("%s received: stopping after this step.", signal.Signals(number).name)
        self.request()

    def request(self) -> None:
        """Wish it; any thread may."""
        self.requested = True
        if self._waiting:
            self._start_clock()

    @contextmanager
    def waiting(self, lack: str = "no data came") -> Iterator[None]:
        """Inside, where something may never come, a wish to stop ends the process after WAIT_SECONDS in any case, also
        one from before. ``lack`` says in the log what was waited for."""
        self._waiting = lack
        if self.requested:
            self._start_clock()
        try:
            yield
        finally:
            self._waiting = ""
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    def _start_clock(self) -> None:
        if self._clock is None and self._previous:
            self._clock = threading.Timer(WAIT_SECONDS, self._wake)
            self._clock.daemon = True
            self._clock.start()

    def _wake(self) -> None:
        """Let the main thread, wherever it waits, find out in :meth:`_note` that it is late."""
        main = threading.main_thread().ident
        if threading.current_thread() is self._clock and main is not None:
            self._late = True
            signal.pthread_kill(main, self.SIGNALS[0])


def stop_requested() -> bool:
    """Whether this process was told to stop."""
    return StopSignal.current is not None and StopSignal.current.requested


def end_with_agent(env: Mapping[str, str] = os.environ) -> None:
    """Let the end of torchrun's agent be a SIGTERM for its processes, where the system (Linux) can do so.

    A signal that the agent does not know, such as SIGUSR1, ends it at once and leaves them behind without their store.
    """
    if "TORCHELASTIC_RUN_ID" in env and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))


def pass_on(told: list[str]) -> None:
    """Stop this process too, where others (by name) were told to."""
    if told and StopSignal.current is not None and not StopSignal.current.requested:
        logging.warning("%s was told to stop: stopping too.", told[0])
        StopSignal.current.request()
