"""The arms of a comparison, and the whole configuration of each of their stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.comparison.values import as_text, check_keys, list_or_empty, text_or_none
from lavis_evlgen.configuration.merge import merged
from lavis_evlgen.configuration.read import SECTIONS
from lavis_evlgen.errors import ConfigError

STAGE_KEYS = ("title", *SECTIONS)
ARM_KEYS = ("group", "stages", *STAGE_KEYS)
PREVIOUS = "{previous}"  # in a value of a later stage: the weights that the stage before exported


@dataclass(frozen=True)
class Stage:
    """One training run of an arm; `config` has the sections model, datasets and run."""

    title: str
    config: DictConfig

    @property
    def steps(self) -> int:
        return int(self.config.run.max_iters)


@dataclass(frozen=True)
class Arm:
    """What is compared: one stage, or several of which the last one captions.

    `overrides` say how it differs from the base, as ``key=value``.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    overrides: tuple[str, ...] = ()
    group: str | None = None

    def with_value(self, key: str, value: Any) -> Arm:
        """The arm with one dotted key set in all its stages."""
        stages = tuple(replace(stage, config=_set(stage.config, key, value)) for stage in self.stages)
        return replace(self, stages=stages)


def read_arm(name: str, said: Mapping[str, Any], base: DictConfig) -> Arm:
    """An arm of `compare.arms`: `base` is the whole configuration, `said` what differs from it, for each stage too."""
    where = f"compare.arms.{name}"
    if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
        raise ConfigError(f"{where}: a name is made of letters, digits and . _ + -, as a folder is named after it")
    _check_part(said, ARM_KEYS, where)
    shared = _with_sections(base, said, where)
    parts = list_or_empty(said.get("stages"), f"{where}.stages") or [{}]
    stages = []
    for number, part in enumerate(parts, start=1):
        place = f"{where}.stages[{number - 1}]"
        _check_part(part, STAGE_KEYS, place)
        title = part.get("title") or (f"stage {number}" if len(parts) > 1 else "language modelling")
        stages.append(Stage(title, _with_sections(shared, part, place)))
    overrides = [*_dotted(said), *(f"stage {n}: {each}" for n, part in enumerate(parts, 1) for each in _dotted(part))]
    return Arm(name, said.get("title") or name, tuple(stages), tuple(overrides), said.get("group"))


def _with_sections(base: DictConfig, said: Mapping[str, Any], where: str) -> DictConfig:
    """The base with the sections of an arm or a stage; a model section that names another `arch` stands for itself."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        new = OmegaConf.create(said.get(section) or {})
        replaces = section == "model" and new.get("arch", base.model.get("arch")) != base.model.get("arch")
        found[section] = new if replaces else merged(base[section], new, f"{where}.{section}")
    return OmegaConf.create(found)


def _dotted(said: Mapping[str, Any]) -> list[str]:
    lines = []
    for section in SECTIONS:
        for key, value in (said.get(section) or {}).items():
            nested = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
            lines += [f"{section}.{k}={as_text(v)}" for k, v in nested.items()]
    return lines


def _check_part(said: Any, known: Iterable[str], where: str) -> None:
    """What an arm or a stage says: its keys, and the kinds of their values."""
    check_keys(said, known, where)
    for key in ("title", "group"):
        text_or_none(said.get(key), f"{where}.{key}")
    for key in SECTIONS:
        if not isinstance(said.get(key) or {}, Mapping):
            raise ConfigError(f"{where}.{key}: expected keys and values, not {str(said[key])[:60]!r}")


def _set(config: DictConfig, key: str, value: Any) -> DictConfig:
    config = config.copy()
    OmegaConf.update(config, key, value, merge=False)
    return config
