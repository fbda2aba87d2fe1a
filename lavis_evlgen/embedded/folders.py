"""Folders that are made once and appear whole: the cache of converted weights, the pictures of the demo."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.errors import EvlgenError, WeightsError

PREFIX = "embedded:"  # of names of what comes in packages


def cache_root() -> Path:
    """Where converted weights are kept: $EVLGEN_CACHE, else lavis_evlgen in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("EVLGEN_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lavis_evlgen"


@contextlib.contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that becomes ``target`` when the block ends without error.

    A process that is killed leaves no half-made ``target``; of two processes that make it at once, the first
    to finish wins and the other's copy is dropped. ``target`` must not exist, or be an empty folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp closes its folders to everybody else
        yield temporary
        try:
            temporary.rename(target)
        except OSError:  # a non-empty folder is there: another process was faster
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete a folder such that it never stands there half deleted."""
    trash = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(trash / folder.name)
    shutil.rmtree(trash)


def packaged_file(pip_name: str, module: str, relative: str, error: type[EvlgenError] = WeightsError) -> Path:
    """Path of a data file inside an installed package, found without importing the package.

    Importing would pull in what these packages need for their own purpose (OpenCV, llama.cpp).
    Raises ``error``, naming the pip package, when it is not installed or lacks the file.
    """
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, relative)).exists():
            return path
    missing = f"has no file {relative}" if spec else "is not installed"
    raise error(f"the package {pip_name} {missing}; run: pip install --no-deps {pip_name}")
