"""Values of a `compare` section: each of its kind or an error that names it, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from lavis_evlgen.errors import ConfigError, nearest


def check_keys(section: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: expected keys and values, not {str(section)[:60]!r}")
    for key in section:
        if key not in known:
            raise ConfigError(f"{where}.{key} is unknown{nearest(str(key), known)}")


def text_or_none(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {str(value)[:60]!r}, expected a string")
    return value


def list_or_empty(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{where}: {str(value)[:60]!r}, expected a list")
    return value or []


def whole_numbers(values: Any, where: str) -> list[int]:
    if not isinstance(values, list) or not values or any(type(v) is not int or not 0 <= v < 2**32 for v in values):
        raise ConfigError(f"{where}: {values!r}, expected whole numbers")
    return values


def as_text(value: Any) -> str:
    """As yaml writes it in one line."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
