"""Processor, memory, disk and Java."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result

GIB = 2**30
_LITTLE_MEMORY, _LITTLE_DISK, _LITTLE_SHARED = 4 * GIB, 5 * GIB, GIB / 2
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory() -> Iterator[Result]:
    import psutil

    memory = psutil.virtual_memory()
    limit = memory_limit()
    available = min(memory.available, limit or memory.available)
    text = f"{available / GIB:.1f} GiB available of {memory.total / GIB:.1f}"
    text += f", {limit / GIB:.1f} allowed here (control group)" if limit else ""
    yield (NOTE, f"{text}: little for the embedded models") if available < _LITTLE_MEMORY else (OK, text)
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < _LITTLE_SHARED:
        yield (
            NOTE,
            f"{shared} holds {size / 2**20:.0f} MiB: data workers (run.num_workers) die of it; give a container "
            "--shm-size or --ipc=host",
        )


def memory_limit() -> int | None:
    """Bytes that the control group allows; None where there is no limit below the machine's own."""
    for path in _CGROUP_LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limit = int(text)
            return limit if limit < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") else None
    return None


def check_disk(folder: Path, needed: int = 0) -> Iterator[Result]:
    """Room below the output folder and the right to write there; `needed` bytes are what a run writes."""
    reason = unwritable(folder)
    if reason:
        yield PROBLEM, f"{folder.absolute()} cannot be written ({reason})", "set run.output_dir to a folder that can"
        return
    free = shutil.disk_usage(existing_part(folder)).free
    text = f"{free / GIB:.1f} GiB free at {folder.absolute()}"
    if needed > free:
        yield (
            PROBLEM,
            f"{text}; checkpoints need {needed / GIB:.1f}",
            "lower run.keep_checkpoints, or set run.output_dir to a larger disk",
        )
    else:
        yield (NOTE, f"{text}: little for checkpoints") if free < _LITTLE_DISK else (OK, text)


def existing_part(folder: Path) -> Path:
    """The folder, or the deepest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the one that it would be made in; None if one can."""
    try:
        with tempfile.TemporaryFile(dir=existing_part(folder)):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def check_java() -> Iterator[Result]:
    """METEOR, SPICE and the official tokenizer are Java programs."""
    java = shutil.which("java")
    without = "caption metrics are counted without it, METEOR and SPICE are left out (metrics_tokenizer: java_free)"
    if java is None:
        yield NOTE, f"no Java on the path: {without}"
        return
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield PROBLEM, f"{java} does not run ({error})", "install a Java runtime (8 or 11), or take it off the PATH"
        return
    said = (done.stderr + done.stdout).strip().splitlines()
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if done.returncode or not found:
        words = said[0] if said else f"exit code {done.returncode}"
        yield PROBLEM, f"{java} does not run ({words})", "install a Java runtime (8 or 11), or take it off the PATH"
    elif not 8 <= int(found[1]) <= 11:
        yield NOTE, f"Java {found[1]} ({java}): METEOR and PTB tokens run, SPICE needs Java 8 to 11"
    else:
        yield OK, f"Java {found[1]} ({java}): METEOR, SPICE, PTB tokens"
