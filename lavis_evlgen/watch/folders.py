"""Which runs a folder holds: itself, or those below it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.progress import LOG_FILE
from lavis_evlgen.watch.run import CONFIG

DEPTH = 4  # of folders below: comparison / arm / seed / stage


def run_folders(folder: Path) -> list[Path]:
    """The folder itself if a run writes into it, or else the run folders at most DEPTH below it, sorted."""
    return [folder] if _is_run(os.listdir(folder)) else sorted(_below(folder, DEPTH))


def check_folder(folder: Path) -> None:
    """Raises DataError where there is no run to be shown, with the nearest one that is there."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist{_suggestion(folder)}")
    if not run_folders(folder):
        raise DataError(f"{folder} holds no run: there is no {LOG_FILE} in it or below; name a run.output_dir")


def _is_run(names: list[str]) -> bool:
    return LOG_FILE in names or CONFIG in names


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # not ours to read, or gone
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            inside = os.listdir(path)
        except OSError:
            continue
        if _is_run(inside):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _suggestion(folder: Path) -> str:
    """What there is in the nearest folder above that exists."""
    parent = next(parent for parent in folder.parents if parent.is_dir())
    there = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    close = difflib.get_close_matches(folder.relative_to(parent).parts[0], there, n=1)
    if close:
        return f"; did you mean {parent / close[0]}?"
    return f"; {parent.absolute()} holds {', '.join(sorted(there)) or 'no folder'}"
