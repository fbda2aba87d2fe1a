"""Finds misspelled keys and names in a configuration before anything is built; LAVIS ignores them silently.

What is known comes from the classes themselves: their default yaml files, and the keys that their source reads
(``cfg.get("x")``, ``cfg.x``, ``cfg["x"]``). Classes of this package declare CONFIG_KEYS or RUN_KEYS instead.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lavis.common.config import create_runner_config_validator
from lavis.common.registry import registry
from lavis.common.utils import get_abs_path
from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.configuration.merge import check_fits
from lavis_evlgen.configuration.read import SECTIONS
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.runners.schedule import SCHEDULES
from lavis_evlgen.runners.settings import RunSettings

MODEL_KEYS = frozenset({"arch", "model_type", "load_pretrained"})  # LAVIS's files set the last also where none reads it
DATASET_KEYS = frozenset(
    {"type", "data_type", "dataset_card", "build_info", "vis_processor", "text_processor", "kw_processor"}
)
STORAGE_KEYS = frozenset({"storage", "url", "md5"})
FREE_BELOW = ("annotations", "vit_config", "bert_config")  # names of splits, or checked where they are used
_CONFIG_NAME = r"(?<![\w.])(?:self\.)?(?:cfg|config|run_cfg|model_config|cfg\.run_cfg)"
_READ = re.compile(
    _CONFIG_NAME
    + r"(?:\.get\(\s*[\"'](\w+)[\"']|\[\s*[\"'](\w+)[\"']\s*\]|\.(?!get\b|items\b|keys\b)([a-z_]\w*)(?!\w*\())"
)
_BUILT_FROM_SAME = re.compile(r"(\w+)\.from_config\(\s*cfg\b")
_METHODS = ("from_config", "__init__", "setup_task", "load_checkpoint_from_config", "build", "build_datasets")


def check_config(config: DictConfig) -> None:
    """Raise ConfigError naming every unknown key with its dotted path and the nearest known one.

    ``config`` holds what the user wrote (yaml and options), without LAVIS's defaults.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    problems = [f"{key} is unknown{nearest(key, SECTIONS)}" for key in plain if key not in SECTIONS]
    _check_kinds(plain)
    problems += _model_problems(plain.get("model") or {})
    for name, section in (plain.get("datasets") or {}).items():
        problems += _dataset_problems(str(name), section or {})
    problems += _run_problems(plain.get("run") or {})
    if problems:
        raise ConfigError("configuration: " + "\n  ".join(problems))


def _check_kinds(plain: Mapping[str, Any]) -> None:
    """What must hold keys and values does."""
    for name in SECTIONS:
        if not isinstance(plain.get(name) or {}, Mapping):
            raise ConfigError(f"{name} must hold keys and values, not {str(plain[name])[:60]!r}")
    for name, section in (plain.get("datasets") or {}).items():
        path = f"datasets.{name}"
        parts = {path: section or {}}
        if isinstance(section, Mapping):
            parts |= {
                f"{path}.{key}": value or {}
                for key, value in section.items()
                if str(key).endswith("_processor") or key in ("annotations", "build_info")
            }
        for where, part in parts.items():
            if not isinstance(part, Mapping):
                raise ConfigError(f"{where} must hold keys and values, not {str(part)[:60]!r}")


def _model_problems(section: dict[str, Any]) -> list[str]:
    model, problem = _registered("model", section.get("arch"), "model.arch")
    if problem:
        return [problem]
    types = model.PRETRAINED_MODEL_CONFIG_DICT
    if str(section.get("model_type")) not in types:
        said = f"{section['model_type']!r} is unknown" if section.get("model_type") else "is missing"
        return [f"model.model_type {said}{nearest(str(section.get('model_type')), types)}"]
    defaults = [_yaml_section(path, "model") for path in types.values()]
    check_fits(section, _yaml_section(types[str(section["model_type"])], "model"), "model")
    known = getattr(model, "CONFIG_KEYS", None)
    if known is not None:
        known = {*known, *MODEL_KEYS}
        return [f"model.{key} is unknown{nearest(key, known)}" for key in section if str(key) not in known]
    added: frozenset[str] = getattr(model, "EXTRA_CONFIG_KEYS", frozenset())  # to those that LAVIS's class reads
    return _unknown(section, defaults, _keys_read(model) | MODEL_KEYS | added, "model")


def _dataset_problems(name: str, section: dict[str, Any]) -> list[str]:
    path = f"datasets.{name}"
    builder, problem = _registered("builder", name, path)
    if problem:
        return [problem]
    kind = str(section.get("type", "default"))
    if kind not in builder.DATASET_CONFIG_DICT:
        return [f"{path}.type {kind!r} is unknown{nearest(kind, builder.DATASET_CONFIG_DICT)}"]
    processors = {key: value for key, value in section.items() if str(key).endswith("_processor")}
    rest = {key: value for key, value in section.items() if key not in processors}
    defaults: list[Any] = [
        next(iter(_yaml_section(p, "datasets").values()), {}) for p in builder.DATASET_CONFIG_DICT.values()
    ]
    default = _yaml_section(builder.DATASET_CONFIG_DICT[kind], "datasets")
    check_fits(section, next(iter(default.values()), {}), path)
    own: Iterable[str] = getattr(builder, "CONFIG_KEYS", frozenset())
    problems = _unknown(rest, defaults, _keys_read(builder, everywhere=True) | DATASET_KEYS | set(own), path)
    problems += [
        f"{path}.{key} is unknown{nearest(key, DATASET_KEYS)}" for key in processors if key not in DATASET_KEYS
    ]
    for key, splits in processors.items():
        for split, processor in (splits or {}).items():
            if isinstance(processor, dict):
                problems += _processor_problems(f"{path}.{key}.{split}", processor)
    return problems


def _processor_problems(path: str, section: dict[str, Any]) -> list[str]:
    processor, problem = _registered("processor", section.get("name"), f"{path}.name")
    if problem:
        return [problem]
    known = getattr(processor, "CONFIG_KEYS", None)
    if known is None:
        parents = [each for each in processor.__mro__ if "__init__" in vars(each) and each is not object]
        known = {name for each in parents for name in inspect.signature(each.__init__).parameters} - {"self"}
        known |= _keys_read(processor)
    known = {*known, "name"}
    return [f"{path}.{key} is unknown{nearest(key, known)}" for key in section if key not in known]


def _run_problems(section: dict[str, Any]) -> list[str]:
    task, problem = _registered("task", section.get("task"), "run.task")
    problems = [problem] if problem else []
    runner, problem = _registered("runner", section.get("runner") or "runner_evlgen", "run.runner")
    problems += [problem] if problem else []
    schedules = {*SCHEDULES, *registry.list_lr_schedulers()}
    schedule = section.get("lr_sched")
    if schedule is not None and str(schedule) not in schedules:
        problems.append(f"run.lr_sched {schedule!r} is unknown{nearest(str(schedule), schedules)}")
    known = set(RunSettings.keys()) | set(create_runner_config_validator().arguments)
    for part in (task, runner):
        if part is not None:
            declared = getattr(part, "RUN_KEYS", None)
            known |= set(declared) if declared is not None else _keys_read(part)
    # a few keys of LAVIS's own project files are read by no class
    unknown = [key for key in section if key not in known]
    shipped = _shipped_run_keys(str(section.get("task"))) if unknown else frozenset()
    return problems + [f"run.{key} is unknown{nearest(key, known)}" for key in unknown if key not in shipped]


def _registered(kind: str, name: Any, path: str) -> tuple[Any, str | None]:
    """The class registered under ``name``, or the problem with it."""
    names = registry.mapping[f"{kind}_name_mapping"]
    if isinstance(name, str) and name in names:
        return names[name], None
    said = f"{name!r} is unknown" if name else "is missing"
    return None, f"{path} {said}{nearest(str(name), names)}"


def _unknown(section: Mapping[str, Any], defaults: list[Any], read: Iterable[str], path: str) -> list[str]:
    """Unknown keys of a section and of the sections in it.

    ``defaults`` are the same section of the class's yaml files; ``read`` the keys that its source reads at any depth.
    """
    defaults = [each for each in defaults if isinstance(each, Mapping)]
    known = {str(key) for each in defaults for key in each} | set(read)
    problems = []
    for key, value in section.items():
        if str(key) not in known:
            problems.append(f"{path}.{key} is unknown{nearest(str(key), known)}")
        elif isinstance(value, Mapping) and key not in FREE_BELOW:
            inner = [each.get(key) for each in defaults]
            problems += _unknown(value, inner, {*read, *STORAGE_KEYS}, f"{path}.{key}")
    return problems


@cache
def _keys_read(cls: type, everywhere: bool = False) -> frozenset[str]:
    """Keys that the constructors (or all methods) of a class and of its parents read.

    Those of parts that are built from the same section count too.
    """
    keys: set[str] = set()
    for parent in cls.__mro__:
        if parent is object or parent is torch.nn.Module:
            continue
        for method, function in vars(parent).items():
            if not (everywhere or method in _METHODS):
                continue
            source = _source(function)
            keys |= {key for found in _READ.findall(source) for key in found if key}
            module = sys.modules[parent.__module__]
            for name in _BUILT_FROM_SAME.findall(source):
                part = getattr(module, name, None)
                if isinstance(part, type) and part is not cls:
                    keys |= _keys_read(part)
    return frozenset(keys)


def _source(function: Any) -> str:
    try:
        return inspect.getsource(getattr(function, "__func__", function))
    except (OSError, TypeError):
        return ""


@cache
def _yaml_section(path: str, name: str) -> dict[str, Any]:
    """A section of a default yaml file; LAVIS's own are relative to its folder."""
    file = Path(get_abs_path(path))
    if not file.is_file():
        return {}
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return content.get(name) or {}


@cache
def _shipped_run_keys(task: str) -> frozenset[str]:
    """Keys of the `run` sections of LAVIS's project files for a task."""
    keys: set[str] = set()
    for path in Path(registry.get_path("library_root"), "projects").rglob("*.yaml"):
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        run = content.get("run") or {}
        if run.get("task") == task:
            keys |= set(run)
    return frozenset(keys)
