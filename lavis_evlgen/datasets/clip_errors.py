"""What is wrong with the file of a clip, said alike whichever package was to decode it."""

import os
import re
from pathlib import Path

from lavis_evlgen.errors import DataError


class ClipError(DataError):
    """A clip cannot be read. The message is the reason alone; whoever knows the file's place in the data names it."""


def unreadable(path: Path) -> str | None:
    """What is wrong with a file that need not be opened to see it."""
    if not os.path.exists(path):
        return "no such file"
    if not os.path.isfile(path):
        return "not a file"
    return None if path.stat().st_size else "the file is empty"


def message(error: BaseException) -> str:
    """An exception's message without what FFmpeg, PyAV and decord put around it."""
    text = getattr(error, "strerror", None) or str(error)
    first = next((line.strip() for line in str(text).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"^(?:\[[\d:]+\] \S+:\d+: )+", "", first)[:200]
