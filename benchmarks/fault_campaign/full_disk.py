"""Faults of the disk: a file system without space (a small tmpfs), and files that may not grow (RLIMIT_FSIZE)."""

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .cases import kind
from .runs import USER_ERROR, Failed, Missed, Run
from .workplace import Workplace

PAGE = 4096


def _mount(folder: Path, size: int, *options: str) -> bool:
    """A tmpfs of ``size`` bytes at ``folder``; False where that is not allowed."""
    option = ",".join([*options, f"size={size}"])
    return subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount(folder, size):
        raise Missed("no tmpfs may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@functools.cache
def mountable() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), PAGE):
                return True
        except (Missed, FileNotFoundError):
            return False


def _refused(run: Run, *reasons: str) -> None:
    """The run must have ended with an error that a user understands."""
    code = run.wait()[0]
    if code == 0:
        raise Missed("there was room enough")
    said = run.last_words()
    if code != USER_ERROR or not any(reason in said for reason in reasons):
        raise Failed(f"the run ended with {code} and not with a clear error: {said}")


def no_space(place: Workplace) -> str:
    """The run's folder is a file system that is too small; it gets larger before the run goes on."""
    run, reference = place.run("map"), place.reference("map")
    used = sum(path.stat().st_size + PAGE for path in reference.out.rglob("*"))
    size = place.rng.randrange(2 * PAGE, used, PAGE)
    with small_disk(run.out, size):
        run.start()
        _refused(run, "No space left on device")
        where = _written(run)
        if not _mount(run.out, 100 * used, "remount"):
            raise Failed("the tmpfs could not be made larger")
        place.recover(run, reference)
    return where


def file_limit(place: Workplace) -> str:
    """No file may grow beyond a size between the log's and the checkpoints'."""
    run, reference = place.run("large"), place.reference("large")
    largest = (reference.out / "checkpoint_24.pth").stat().st_size
    run.start(largest_file=place.rng.randrange(100_000, largest))
    _refused(run, "File too large")
    where = _written(run)
    place.recover(run, reference)
    return where


def _written(run: Run) -> str:
    kept = len(list(run.out.glob("checkpoint_[0-9]*.pth")))
    return f"{kept} checkpoints kept"


if mountable():
    kind("disk full (tmpfs, ENOSPC)", 12, "map")(no_space)
    kind("file too large (RLIMIT_FSIZE)", 4, "large")(file_limit)
else:
    kind("disk full (RLIMIT_FSIZE: no tmpfs here)", 16, "large")(file_limit)
