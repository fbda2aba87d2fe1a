"""The json files of a model's folder, which may come from anybody: read with every doubt about them said."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from lavis_evlgen.datasets.whole_files import write_text
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.json_text import parse_json
from lavis_evlgen.models.safe_loading import files_beside


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ConfigError: the file is missing, damaged or holds something else; see also :func:`check_plain`.
    """
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        beside = files_beside(path.parent)
        raise ConfigError(f"{path} is missing, so this is no model's folder of save_pretrained{beside}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is damaged (it holds no object)")
    check_plain(path, content)
    return content


def check_plain(where: Path | str, content: Any) -> None:
    """Raise ConfigError for a text with ``${``: OmegaConf would replace it, for example by the environment's."""
    for text in _texts(content):
        if "${" in text:
            raise ConfigError(f"{where}: {text[:60]!r} holds '${{', which is not taken from others' files")


def write_object(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_known(where: Path | str, keys: Iterable[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first key that is not known, naming the nearest one."""
    for key in keys:
        if key not in known:
            raise ConfigError(f"{where}: the key {key!r} is unknown{nearest(key, known)}")


def _texts(content: Any) -> Iterator[str]:
    """Every text in plain values, keys included."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _texts(value)
