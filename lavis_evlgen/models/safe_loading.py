"""Files that torch.save wrote, read without running code from them and with their checksums compared."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from lavis_evlgen.errors import first_line

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_ZIP = b"PK\3\4"
_SHOWN = 8


def read_plain(path: Path | str) -> Any:
    """The tensors and plain values of a file, on the CPU.

    Raises:
        ValueError: the file is damaged or holds something else; the message is one line.
    """
    try:
        with open(path, "rb") as file:
            is_zip = file.read(len(_ZIP)) == _ZIP
        if is_zip or zipfile.is_zipfile(path):  # all but the files of torch before 1.6
            _compare_checksums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in a dozen ways
        raise ValueError(first_line(error)) from error


def _compare_checksums(path: Path | str) -> None:
    """torch writes a checksum of every part, but does not look at them when it reads."""
    claimed = 0
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            claimed += part.file_size
            if part.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing: it might unfold to any size
                raise ValueError(f"{part.filename} is compressed")
        if claimed > Path(path).stat().st_size:  # parts that share their bytes unfold to any size too
            raise ValueError(f"its parts claim {claimed} bytes, more than it has")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"checksum of {damaged} is wrong")


def files_beside(path: Path | str) -> str:
    """``; in FOLDER are a.pth, b.pth``: which files of weights lie where ``path`` was looked for, to end an error."""
    folder = Path(os.path.expanduser(path)).absolute()
    folder = folder if os.path.isdir(folder) else folder.parent
    if not os.path.isdir(folder):
        return f"; there is no folder {folder}"
    names = sorted(each.name for each in folder.iterdir() if each.suffix in SUFFIXES)
    if not names:
        return f"; in {folder} is no file of weights ({', '.join(SUFFIXES)})"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; in {folder} are {', '.join(names[:_SHOWN])}{more}"
