"""Reading a log that another process writes: each record once, however long the file has become."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # bytes
MARK = 64  # bytes before the place reached, by which a rewritten file is recognised


class LogTail:
    """The records of a file of JSON lines that grows, and that a resumed run replaces by a shorter one.

    Attributes:
        damaged: lines that hold no JSON object, left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.damaged = 0
        self._inode = self._offset = 0
        self._mark = self._rest = b""

    def records(self, restart: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """What has been written since the last call, without a last line that is not ended yet.

        Calls ``restart`` first where the file is another one than before: then all its records come again.
        """
        try:
            file = open(self.path, "rb")  # noqa: SIM115  closed below; only a missing file is no error
        except FileNotFoundError:
            if self._offset:
                self._forget()
                restart()
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if self._offset and not (inode == self._inode and self._has_mark(file)):
                self._forget()
                restart()
            self._inode = inode
            file.seek(self._offset)
            while chunk := file.read(CHUNK):
                self._offset += len(chunk)
                self._mark = (self._mark + chunk)[-MARK:]
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                yield from self._parsed(lines)

    def _has_mark(self, file: Any) -> bool:
        file.seek(self._offset - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _parsed(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield record
            elif line.strip():
                self.damaged += 1
