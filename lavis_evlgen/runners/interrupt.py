"""SIGTERM and SIGUSR1 as a wish: the running step is finished and saved before the process ends."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

EXIT_CODE = 143  # 128 + SIGTERM, what a shell reports for a process ended by SIGTERM


class StopSignal:
    """Context manager; ``requested`` becomes True when a stop signal arrives inside it."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        logging.warning("%s received: stopping after this step.", signal.Signals(number).name)

    def leave_if_requested(self) -> None:
        """Exit between evaluation batches: the state was saved before the evaluation began."""
        if self.requested:
            raise SystemExit(EXIT_CODE)
