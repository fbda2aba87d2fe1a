"""The configuration of a run, from its yaml file and the options of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.configuration.text import load_yaml, resolve
from lavis_evlgen.errors import ConfigError, first_line

SECTIONS = ("model", "datasets", "run")


def read_config(path: str, options: list[str], further: tuple[str, ...] = ()) -> DictConfig:
    """The yaml with the options put in and every ``${...}`` resolved; ConfigError when it cannot be.

    ``further`` names sections to keep beside those of a run. Options come first so that they also choose the default
    yaml (model.model_type), which LAVIS overlooks.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"--cfg-path {path}: there is no such file (seen from {Path.cwd()})")
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise ConfigError(f"--options takes KEY=VALUE, for example run.max_iters=10; not {' '.join(wrong)}")
    loaded = load_yaml(path)
    try:
        config: Any = OmegaConf.merge(loaded, OmegaConf.from_dotlist(options))
    except Exception as error:  # OmegaConf's own kinds, and those of yaml, which it reads values with
        raise ConfigError(f"--options {' '.join(options)}: {first_line(error)}") from error
    # sections that only serve others, as paths in ${paths.images}
    for name in resolve(config, path) - {*SECTIONS, *further}:
        config.pop(name, None)
    missing = [name for name in SECTIONS if not isinstance(config.get(name), DictConfig)]
    if missing:
        raise ConfigError(f"{path}: the section {' and '.join(missing)} is missing or empty")
    return config
