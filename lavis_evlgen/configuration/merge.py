"""Configurations put into one another: what both say under one key must be of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.errors import ConfigError

_KINDS: dict[type, str] = {dict: "keys and values", list: "a list"}


def merged(base: DictConfig, new: Mapping[str, Any] | DictConfig, where: str) -> Any:
    """``base`` with the values of ``new``.

    Args:
        where: the dotted key of both, for messages.

    Raises:
        ConfigError: see :func:`check_fits`.
    """
    check_fits(plain(new), plain(base), where)
    return OmegaConf.merge(base, OmegaConf.create(plain(new)))


def check_fits(new: Any, base: Any, where: str) -> None:
    """Raise ConfigError, which names the key, for a list in the place of keys and values, or the other way round.

    OmegaConf refuses these without a name. Both are plain containers.
    """
    if isinstance(new, dict) and isinstance(base, dict):
        for key in new.keys() & base.keys():
            check_fits(new[key], base[key], f"{where}.{key}")
    elif {type(new), type(base)} == {dict, list}:
        wanted, given = (_KINDS[type(each)] for each in (base, new))
        raise ConfigError(f"{where}: expected {wanted}, as {str(base)[:60]} is, not {given}: {str(new)[:60]}")


def plain(config: Any) -> Any:
    """What OmegaConf made of a container, as one of Python's, unresolved; anything else as it is."""
    return OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
