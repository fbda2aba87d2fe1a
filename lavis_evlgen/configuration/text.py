"""A configuration from the text of a yaml file that anybody may have written, up to where ``${...}`` may be resolved.

No tag of yaml makes anything but plain values, and references are of few kinds: another key, or a variable of the
environment. OmegaConf's further resolvers are refused, and references that would multiply into more than memory holds.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.errors import ConfigError, first_line

MOST_BYTES = 1 << 24  # of the file
MOST_NESTED = 100
MOST_RESOLVED = 1 << 22  # characters and values that its references may stand for
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_KEY = r"[^{}$:]+"
_ENVIRONMENT = r"oc\.env:[^{}$]*"
_REFERENCE = re.compile(rf"\$\{{\s*(?:({_KEY})|{_ENVIRONMENT}|oc\.decode:\s*\$\{{\s*{_ENVIRONMENT}\}}\s*)\}}")


def load_yaml(path: str) -> DictConfig:
    """The content of a yaml file of keys and values, unresolved.

    Raises:
        ConfigError: it cannot be read, is no valid yaml, or holds something else.
    """
    try:
        if (size := os.path.getsize(path)) > MOST_BYTES:
            raise ConfigError(f"{path}: {size:,} bytes are too many for a configuration")
        text = Path(path).read_text(encoding="utf-8-sig")
        _check_depth(text)
        loaded = OmegaConf.load(io.StringIO(text))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # yaml's constructors raise a dozen kinds on values that do not fit their tag
        raise ConfigError(f"{path} is not valid yaml: {_said(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path} must hold the sections model, datasets, run")
    return loaded


def _check_depth(text: str) -> None:
    """Brackets within brackets: libyaml's loader would overflow the stack, and end the process without a word."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_NESTED:
            raise RecursionError


def resolve(config: DictConfig, path: str) -> set[str]:
    """Replace every ``${...}`` by what it stands for; the names of the sections that such references lead to.

    Raises:
        ConfigError: naming the key of a reference that leads nowhere, to itself or to too much, of one that is not
            allowed, of a value that is missing (``???``), and of texts and keys that no file can hold.
    """
    try:
        plain = OmegaConf.to_container(config)
        _check_values(plain, "", path)
        references = _References(plain, path)
        references.check()
        OmegaConf.resolve(config)
        _check_values(OmegaConf.to_container(config, throw_on_missing=True), "", path, resolved=True)
        return references.sections
    except ConfigError:
        raise
    except Exception as error:  # OmegaConf's own kinds, and those of its grammar's parser
        key = getattr(error, "full_key", None)
        where = f" ({key})" if key else ""
        raise ConfigError(f"{path}{where}: {_said(error)}") from error


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, yaml.MarkedYAMLError) else first_line(error)


def _check_values(value: Any, key: str, path: str, resolved: bool = False) -> None:
    """Keys must be texts, no text may hold what neither names of files nor UTF-8 do, and numbers can be written.

    Where all is resolved, no reference may be left: whoever copies the configuration would resolve it again.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ConfigError(
                    f"{path}: {key or 'the file'} has the key {str(name)!r}, which is not a string: quote it"
                )
            _check_values(name, f"{key} (a key of it)", path)
            _check_values(inner, f"{key}.{name}".lstrip("."), path, resolved)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_values(inner, f"{key}[{number}]", path, resolved)
    elif isinstance(value, str) and _UNWRITABLE.search(value):
        raise ConfigError(f"{path}: {key} holds a character that cannot be written as UTF-8: {value[:40]!r}")
    elif isinstance(value, str) and resolved and "${" in value:
        raise ConfigError(f"{path}: {key}: {value[:80]!r}: `${{` cannot be part of a string")
    elif isinstance(value, int) and abs(value) >= 10**300:
        raise ConfigError(f"{path}: {key} is a number of too many digits")
    elif value is not None and not isinstance(value, str | int | float):
        raise ConfigError(
            f"{path}: {key} is a {type(value).__name__}; only strings, numbers, true and false are allowed"
        )


class _References:
    """What the references of a configuration stand for, counted without making it.

    Attributes:
        sections: of the file that references lead to.
    """

    def __init__(self, plain: Any, path: str) -> None:
        self.plain, self.path = plain, path
        self.sections: set[str] = set()
        self._known: dict[tuple[Any, ...], int] = {}
        self._open: set[tuple[Any, ...]] = set()

    def check(self) -> None:
        """Raises ConfigError when it is too much, or endless."""
        if self._size(()) > MOST_RESOLVED:
            raise ConfigError(f"{self.path}: its references stand for more than {MOST_RESOLVED:,} characters")

    def _size(self, place: tuple[Any, ...]) -> int:
        """Of the value at a place, as it will be."""
        if place in self._open:
            raise ConfigError(f"{self.path}: {_dotted(place)} refers to itself")
        if place not in self._known:
            self._open.add(place)
            value = self.plain
            for key in place:
                value = value[key]
            self._known[place] = self._count(value, place)
            self._open.remove(place)
        return self._known[place]

    def _count(self, value: Any, place: tuple[Any, ...]) -> int:
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            return 1 + sum(self._size((*place, key)) for key in keys)
        if not isinstance(value, str) or "${" not in value:
            return len(value) if isinstance(value, str) else 1
        found = list(_REFERENCE.finditer(value))
        if value.count("${") != sum(match.group().count("${") for match in found):
            raise ConfigError(
                f"{self.path}: {_dotted(place)}: {value[:80]!r}: a reference is ${{section.key}}, ${{oc.env:NAME}} or "
                "${oc.decode:${oc.env:NAME}}; others are not allowed"
            )
        targets = [self._target(match[1], place) for match in found if match[1]]
        self.sections |= {target[0] for target in targets if target}
        return len(value) + sum(self._size(target) for target in targets if target)

    def _target(self, reference: str, place: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The place of a key, or of the reference on the way to it that leads on; None where there is nothing."""
        dots = len(reference) - len(reference.lstrip("."))
        keys = [key for key in re.split(r"[.\[\]]+", reference.strip().lstrip(".")) if key]
        target = place[: max(0, len(place) - dots)] if dots else ()
        value = self.plain
        for key in target:
            value = value[key]
        for key in keys:
            own: Any = int(key) if isinstance(value, list) and key.lstrip("-").isdecimal() else key
            if isinstance(value, str):
                break
            if not _holds(value, own):
                return None
            value, target = value[own], (*target, own)
        return target


def _holds(value: Any, key: Any) -> bool:
    if isinstance(value, list):
        return isinstance(key, int) and -len(value) <= key < len(value)
    return isinstance(value, dict) and key in value


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place)) or "the file"
