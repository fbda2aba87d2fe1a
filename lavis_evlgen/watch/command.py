"""`evlgen watch`: the loop that looks, draws, and waits."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from lavis_evlgen.watch.folders import check_folder, run_folders
from lavis_evlgen.watch.run import TROUBLE, Frame, WatchedRun
from lavis_evlgen.watch.screen import run_screen, table_screen

LOOK_AROUND = 30.0  # seconds between two looks for new run folders
PLAIN_WIDTH = 100  # where there is no terminal


def watch(folder: Path, *, once: bool = False, as_json: bool = False, every: float = 2.0) -> int:
    """Show the runs of a folder until Ctrl-C, or one frame where ``once``, ``as_json`` or no terminal asks for it.

    Args:
        folder: a run's output folder, or one with several of them below; it may not be there yet.
        every: seconds between two looks.

    Returns:
        Exit code: 1 if one frame was asked for and a run in it is silent, dead or stopped, else 0.

    Raises:
        DataError: one frame was asked for, but there is no run in the folder.
    """
    runs = Runs(folder)
    if as_json or once or not sys.stdout.isatty():
        check_folder(folder)
        frames = runs.frames(time.time())
        if as_json:
            print(json.dumps({"folder": str(folder), "runs": [asdict(frame) for frame in frames]}, ensure_ascii=False))
        else:
            console = _console()
            console.print(runs.screen(frames, console))
        return int(any(frame.status in TROUBLE for frame in frames))
    console = _console()
    screen: RenderableType = Text("")
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                screen = runs.screen(runs.frames(time.time()), console)
                live.update(screen, refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        console.print(screen)  # what was seen last stays in the terminal
    return 0


class Runs:
    """The runs of a folder, each read on where it was read to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[Path, WatchedRun] = {}
        self._looked = -LOOK_AROUND

    def frames(self, now: float) -> list[Frame]:
        """What all of them look like now; new ones are looked for from time to time, at once while there are none."""
        if not self._runs or now - self._looked >= LOOK_AROUND:
            found = run_folders(self.folder) if self.folder.is_dir() else []
            self._runs = {path: self._runs.get(path) or WatchedRun(path) for path in found}
            self._looked = now
        for run in self._runs.values():
            run.refresh()
        return [run.frame(now) for run in self._runs.values()]

    def screen(self, frames: list[Frame], console: Console) -> RenderableType:
        if not frames:
            there = "no run in it yet" if self.folder.is_dir() else "not there yet"
            return Text(f"waiting for {self.folder}: {there} (Ctrl-C ends)", "dim")
        # a pipe has no height, so that nothing needs to be left out
        height = console.height if console.is_terminal else 1000
        if len(frames) == 1:
            return run_screen(next(iter(self._runs.values())), frames[0], console, height)
        return table_screen(frames, str(self.folder), height)


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # captions and folders may hold letters that the terminal lacks
    plain = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    # brackets in names of folders and splits are no markup
    return Console(highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH if plain else None)
