"""Files that are whole or not there: written beside their place and renamed; and checksums of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavis_evlgen.errors import EvlgenError

UNFINISHED = ".unfinished"
_BLOCK_BYTES = 1 << 24


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` when the block ends well, and is removed when it does not."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield temporary
        if temporary.exists():
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with unfinished(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


@contextmanager
def writes_explained(folder: Path) -> Iterator[None]:
    """What the system refuses inside the block, as on a full disk, becomes an EvlgenError that names the folder."""
    try:
        yield
    except OSError as error:
        raise EvlgenError(
            f"could not write to {folder}: {error}. Free some space, or set another run.output_dir; checkpoints are as "
            "they were, so with run.auto_resume=True the same command goes on"
        ) from error


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def digest(content: Any) -> str:
    """A hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def file_stamp(path: str | Path) -> list[int]:
    """Size and time of a file, which change when its content does; nothing for a missing one."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]
