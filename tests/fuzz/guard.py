"""What a reader of hostile files must not do, and how it is noticed: by audit events, a canary, memory and a clock."""

import gc
import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lavis_evlgen.errors import EvlgenError

SECONDS = 120  # of one example, which takes milliseconds; the machine may be slow and busy
# bytes that one example may need beside what was there: PIL refuses pictures from 179 million pixels on, which are
# 512 MiB in RGB and 171 MiB in the palette that they are converted from
MEMORY = 768 * 2**20
CANARY = "canary"
"""Name of the file, in the working directory of the tests, that hostile content tries to make."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.rmtree")
_TWO_PATHS = ("os.rename", "os.link", "os.symlink", "shutil.move", "shutil.copyfile")
_RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "socket.connect")
_LIBRARIES = tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")})


def put(path: Path, data: bytes) -> Path:
    """Write a file in the folder of the tests, and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Hang(BaseException):
    """No Exception, so that no reader takes it for damage."""


class Guard:
    """A folder that a reader may write to, in the middle of one that it must leave as it is."""

    def __init__(self, outside: Path) -> None:
        self.outside, self.inside = outside, outside / "a" / "run"
        self.inside.mkdir(parents=True)
        for path in (outside / "precious", outside / "a" / "precious", outside / "a" / "runs"):
            path.write_text("precious")
        self.canary = outside / CANARY
        self._watching = False
        self._others: set[int] = set()  # threads of tests before this one: what they do is not the reader's
        self._found: list[str] = []
        sys.addaudithook(self._hear)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it nothing that earlier tests left is tidied up: the files that go with it would be the reader's."""
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()

    def empty(self) -> Path:
        """``inside`` without anything in it."""
        for path in sorted(self.inside.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        return self.inside

    def read(self, reader: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the reader gives, or the EvlgenError that it ends with; anything else fails the test."""
        before = self._snapshot()
        self._others = {each.ident for each in threading.enumerate() if each.ident} - {threading.get_ident()}
        try:
            with self._bounded():
                self._watching = True
                try:
                    result = reader(*args, **kwargs)
                finally:
                    self._watching = False
        except EvlgenError as error:
            result = error
            assert len(str(error)) > 10, f"{type(error).__name__} says nothing"
        found, self._found = self._found, []
        assert not found, found
        assert not self.canary.exists(), "code from the input was run"
        assert self._snapshot() == before, "files outside the folder have changed"
        return result

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Time and memory of a block."""

        def ring(*_: Any) -> None:
            raise Hang(f"not done after {SECONDS} s")

        earlier = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        start = _peak(reset=True)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)
            used = _peak() - start
            assert used < MEMORY, f"it took {used / 2**20:.0f} MiB"

    def _snapshot(self) -> list[tuple[str, int, int]]:
        status = [(path, path.lstat()) for path in self.outside.rglob("*") if self.inside not in (path, *path.parents)]
        return sorted((str(path), each.st_size, each.st_mtime_ns * path.is_file()) for path, each in status)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._watching or threading.get_ident() in self._others:
            return
        self._watching = False  # what follows raises events too
        try:
            if event in _CHANGES or (event == "open" and (args[2] or 0) & _WRITING):
                self._note(event, args[0])
            elif event in _TWO_PATHS:
                self._note(event, args[0])
                self._note(event, args[1])
            elif event in _RUNS:
                self._found.append(f"{event} {args[:2]!r:.200}")
            elif event == "exec" and not _is_known(args[0]):
                self._found.append(f"{event} {args!r:.200}")
        finally:
            self._watching = True

    def _note(self, event: str, path: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        absolute = os.path.realpath(os.fsdecode(path))
        allowed = f"{os.path.realpath(self.inside)}{os.sep}"
        if not f"{absolute}{os.sep}".startswith(allowed) and "__pycache__" not in absolute and absolute != os.devnull:
            self._found.append(f"{event} {absolute}")


def _is_known(code: Any) -> bool:
    """Whether code is that of an installed module or of this package, which are imported when they are needed."""
    file = os.path.realpath(getattr(code, "co_filename", ""))
    package = os.path.realpath(sys.modules["lavis_evlgen"].__path__[0])
    # modules write methods of enums and dataclasses as text when they are imported; typing evaluates annotations so
    return file.startswith((*_LIBRARIES, package)) or any(
        "importlib" in frame or frame.endswith(f"{os.sep}typing.py") for frame in _callers()
    )


def _callers() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back  # type: ignore[assignment]


def _peak(reset: bool = False) -> int:
    """Bytes of memory that this process held at most since the last reset, or ever where none is allowed; of Linux."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with open("/proc/self/status") as lines:
        found = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(found.split()[1]) * 1024
