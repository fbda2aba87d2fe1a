"""JSON that others wrote: errors for what Python's parser chokes on, or takes though nothing can write it again."""

import json
import re
from pathlib import Path
from typing import Any

from lavis_evlgen.errors import DataError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is no JSON (``json.JSONDecodeError``, which knows the line), no UTF-8, nested too deeply, has a
            number of thousands of digits, or half of a surrogate pair, which no file and no tokenizer takes.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        content = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        half = f"{error.object[error.start]!r}"
        raise ValueError(f"half of a surrogate pair ({half}): write characters whole, as UTF-8") from None
    return content


def read_json(path: str | Path, way_out: str) -> dict[str, Any]:
    """The object in a small file of our own; DataError with ``way_out`` when it cannot be read or is none."""
    try:
        content = parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); {way_out}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (it holds no object); {way_out}")
    return content


def said(error: ValueError) -> str:
    """What :func:`parse_json` found wrong, without the place."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
