"""The files in a tar that somebody else made, one after the other, none larger than memory can take.

Python's tarfile believes what headers say: a sparse file of a few bytes unfolds to terabytes, a compressed name to
gigabytes, and a header with a flipped bit looks like the end of the archive, so that the rest is lost without a word.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import Any

from webdataset.tariterators import base_plus_ext

MOST_BYTES = 1 << 26  # of the files of one sample
_MOST_HEADER_BYTES = 1 << 20  # of a long name, or of further fields
_HEADERS = (b"x", b"g", b"X", b"L", b"K")  # their content is about the file behind them
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own files
_BLOCK = 1 << 16
_MOST_EMPTY = 16  # reads behind the end


class _Member(tarfile.TarInfo):
    """A header; a damaged one is an error wherever it stands, not the end."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("its end is missing") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged header ({error})") from None
        if member.size < 0 or (member.type in _HEADERS and member.size > _MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


class _Ending:
    """A stream that does not go on for ever at its end: tarfile skips terabytes that a header claims block by block."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._empty = stream, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._empty += not data
        if self._empty > _MOST_EMPTY:
            raise tarfile.ReadError("unexpected end of data")
        return data


def tar_members(stream: Any, url: str) -> Iterator[dict[str, Any]]:
    """The regular files of a tar, also a compressed one, as webdataset's ``group_by_keys`` takes them.

    Where the files of a sample are larger than ``MOST_BYTES``, they are left out and ``__error__`` says so.

    Raises:
        Exception: of several kinds, where the tar is damaged; among them tarfile.TarError, EOFError and zlib.error.
    """
    ending: Any = _Ending(stream)
    with tarfile.open(fileobj=ending, mode="r|*", tarinfo=_Member, errors="replace") as archive:
        sample, used = "", 0
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would remember all of them
            key, suffix = base_plus_ext(member.name)
            if not member.isreg() or key is None or suffix.startswith("__") or _META.match(member.name):
                continue
            if key != sample:
                sample, used = key, 0
            fits = used + member.size <= MOST_BYTES
            if fits:
                used += member.size
                file: Any = archive.extractfile(member)
                yield {"fname": member.name, "data": file.read(), "__url__": url}
            elif used <= MOST_BYTES:  # said once for a sample
                used = MOST_BYTES + 1
                reason = f".{suffix} is too large ({member.size} bytes)"
                yield {"fname": f"{key}.__error__", "data": reason, "__url__": url}
        rest: Any = archive.fileobj
        while block := rest.read(_BLOCK):
            if block.strip(b"\0"):
                raise tarfile.ReadError("something follows its end: a part of it is blank, or several were joined")
