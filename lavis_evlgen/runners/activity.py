"""What this process is doing at the moment, for the watchdog of the other ranks. Saying so costs next to nothing."""

import sys
import threading
from pathlib import PurePath

_COLLECTIVES = "torch/distributed/"  # the package whose functions wait for other ranks


class Activity:
    """Phase, step and counters of one process.

    ``phases`` numbers the phases entered so far. All ranks enter the same phases in the same order, so the rank with
    the lowest number is the one that the others wait for. ``moves`` counts every sign of progress, phases included;
    outside of ``short`` phases another line of Python code under the main thread is such a sign, too.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.phase, self.step = "starting", 0
        self.phases = self.moves = 0
        self.short = False
        self._place = ""

    def enter(self, phase: str, step: int | None = None, short: bool = False) -> None:
        """A new phase, such as "waiting for data"; without ``step`` that of the phase before.

        ``short``: the time allowed is enough for all of it, or from one ``move()`` to the next.
        """
        self.phase = phase
        self.short = short
        self.step = self.step if step is None else step
        self.phases += 1
        self.moves += 1

    def move(self) -> None:
        """Progress within a phase, such as a finished evaluation batch."""
        self.moves += 1

    def look(self) -> tuple[str, bool]:
        """Where the main thread is, and whether it waits there for other ranks; may count as a move."""
        place, waits = main_thread_place()
        if place != self._place and not self.short:
            self.move()
        self._place = place
        return place, waits


ACTIVITY = Activity()


def main_thread_place() -> tuple[str, bool]:
    """Where Python's main thread is, as ``file.py:12 function``, and whether it waits there for other ranks."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "", False
    path, function = PurePath(frame.f_code.co_filename), frame.f_code.co_name
    # DDP exchanges gradients in the backward pass
    waits = _COLLECTIVES in path.as_posix() or function == "_engine_run_backward"
    return f"{path.name}:{frame.f_lineno} {function}", waits
